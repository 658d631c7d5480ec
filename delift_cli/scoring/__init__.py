"""Tokens and a model in, distances and log-probabilities out, into a cache. `job` puts one run together."""

from .job import Engine, Inputs, choose_engine, forecast, prepare
from .measures import Measures
from .pairs import Scoring, Unit, Work, score

__all__ = [
    "Engine",
    "Inputs",
    "Measures",
    "Scoring",
    "Unit",
    "Work",
    "choose_engine",
    "forecast",
    "prepare",
    "score",
]
