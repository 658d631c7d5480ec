"""Bytes in, records out: each with its turns, its id and the very bytes that it came from. Knows no model.

A reader of a new kind of file goes into `reading`, a new meaning of fields into `layouts`.
"""

from .fields import record_field
from .near_duplicates import near_duplicates
from .reading import parse_records, read_records
from .record import Message, Record, RecordSet, Rejected, copy_groups

__all__ = [
    "Message",
    "Record",
    "RecordSet",
    "Rejected",
    "copy_groups",
    "near_duplicates",
    "parse_records",
    "read_records",
    "record_field",
]
