"""What is known in, the pairs to score next out; scored pairs in, estimates of the others out, and how good they are.

`rounds`, which runs the model, is not imported here: a selection needs the estimates without llama.cpp.
"""

from .estimate import Estimate, fit
from .measured import Scored
from .partial_block import Partial
from .plan import next_round
from .proposals import Proposals, propose
from .trust import Quality, quality

__all__ = ["Estimate", "Partial", "Proposals", "Quality", "Scored", "fit", "next_round", "propose", "quality"]
