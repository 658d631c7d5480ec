"""Tokens and a model in, distances and log-probabilities out, into a cache. `job` puts one run together."""
