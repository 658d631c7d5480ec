"""Records and a vocabulary in, token ids out: the chat template, prefixes and targets, tries of what targets share."""

from .builtin import BUILT_IN, load_template
from .encoding import EncodedExamples, EncodedTargets, encode_examples, encode_targets
from .template import ChatTemplate, Target, Tokens
from .trie import Trie, batches, build_trie

__all__ = [
    "BUILT_IN",
    "ChatTemplate",
    "EncodedExamples",
    "EncodedTargets",
    "Target",
    "Tokens",
    "Trie",
    "batches",
    "build_trie",
    "encode_examples",
    "encode_targets",
    "load_template",
]
