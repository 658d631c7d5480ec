"""Which delift this is, and which llama-cpp-python it is tested with."""

__version__ = "0.2.0"
TESTED = ("0.3.23", "0.3.36")  # the oldest and the newest version of llama-cpp-python
