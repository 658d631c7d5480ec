"""A GGUF file in, logits and log-probabilities out. The only room that touches llama.cpp.

Knows tokens and weights, but no record and no utility. To import it takes a second, for it loads llama.cpp.
"""

from .gguf import ModelFile, Vocabulary, locate
from .llama import Model, Settings, open_models, quantize
from .logprob import token_logprobs

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
