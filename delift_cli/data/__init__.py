"""Bytes in, records out: each with its turns, its id and the very bytes that it came from. Knows no model.

A new kind of file goes into `containers`, a new meaning of fields into `layouts`, a new form of a turn into `chats`.
"""

from .fields import record_field
from .near_duplicates import near_duplicates
from .options import Reading
from .reading import parse_records, read_records
from .record import Call, Message, Record, RecordSet, Rejected, copy_groups

__all__ = [
    "Call",
    "Message",
    "Reading",
    "Record",
    "RecordSet",
    "Rejected",
    "copy_groups",
    "near_duplicates",
    "parse_records",
    "read_records",
    "record_field",
]
