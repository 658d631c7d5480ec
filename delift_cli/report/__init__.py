"""Caches and subsets in, one HTML file out: what the scores say about the data.

`pool` and `comparison` compute, `sections` puts it into words, tables and plots (`document`), `html` into a page.
"""
