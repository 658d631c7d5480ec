"""A GGUF file in, logits and log-probabilities out. The only room that touches llama.cpp.

Knows tokens and weights, but no record and no utility. To import it takes a second, for it loads llama.cpp.
"""

from .installed import check_installed

check_installed()
