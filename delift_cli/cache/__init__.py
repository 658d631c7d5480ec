"""Rows in, files out, and back: a cache directory of memory-mapped arrays with a manifest that says what they are.

`dense` holds all pairs, `sparse` some of them in rounds; `stored` what both have. Every byte that delift writes beside
its output is written here.
"""
