"""Zstandard, expanded a piece at a time and no further than allowed. Source: RFC 8878."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from convert.files.folders.extras import ZSTD, orbax_needs

PIECE = 1 << 20  # bytes read or expanded at a time


def load() -> None:
    """Raises: UsageError where the package is missing."""
    orbax_needs(ZSTD)


def expanded(pieces: Iterable[bytes | memoryview], limit: int) -> Iterator[bytes]:
    """What one frame holds, in pieces. Raises: ValueError where it is damaged, not alone, or over `limit` bytes."""
    zstd = orbax_needs(ZSTD)
    frame = zstd.ZstdDecompressor()
    for piece in pieces:
        if frame.eof:
            raise ValueError("goes on after its end")
        while piece or not (frame.eof or frame.needs_input):
            try:
                part = frame.decompress(piece, min(PIECE, limit + 1))
            except zstd.ZstdError as error:
                raise ValueError(f"cannot be expanded: {error}") from None
            limit -= len(part)
            if limit < 0:
                raise ValueError("expands to more than its size")
            yield part
            piece = b""
    if not frame.eof or frame.unused_data:
        raise ValueError("goes on after its end" if frame.eof else "ends too early")
