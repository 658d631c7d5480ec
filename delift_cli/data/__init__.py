"""Bytes in, records out: each with its turns, its id and the very bytes that it came from. Knows no model.

A new kind of file goes into `containers`, a new meaning of fields into `layouts`, a new form of a turn into `chats`.
"""
