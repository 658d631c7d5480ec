"""Where models lie: what `-m` means, and what is found on this machine. One file for each kind of place."""

from .locate import locate
from .on_disk import Found

__all__ = ["Found", "locate"]
