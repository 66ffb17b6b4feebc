"""Read a record for a conversion, which compares all values of its file, and not a sample alone."""

from convert.files.base import Reader

from . import record
from .record import Record


def read(reader: Reader, sampled: bool = False) -> Record:
    """Return a checkpoint's record, compared with every value of the file, or with a sample of them."""
    stored = record.read(reader)
    if not stored.sample or sampled:
        return stored
    from .verification import with_every_value  # hashes, which few commands need

    return with_every_value(reader, stored)
