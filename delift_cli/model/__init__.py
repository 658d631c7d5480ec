"""A GGUF file in, logits and log-probabilities out. The only room that touches llama.cpp.

Knows tokens and weights, but no record and no utility. To import it takes a second, for it loads llama.cpp.
"""

from .installed import check_installed

check_installed()

from .gguf import ModelFile, Vocabulary  # noqa: E402
from .llama import Model, Settings, open_models, quantize  # noqa: E402
from .logprob import token_logprobs  # noqa: E402
from .places import locate  # noqa: E402

__all__ = [
    "Model",
    "ModelFile",
    "Settings",
    "Vocabulary",
    "locate",
    "open_models",
    "quantize",
    "token_logprobs",
]
