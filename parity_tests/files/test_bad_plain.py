"""Every file of the corpus gives one clear error, soon, in little memory, running nothing."""

from __future__ import annotations

import os
import re

import pytest

from convert.errors import FormatError
from parity_tests.files.corpus_plain import bad_files
from parity_tests.files.harm import soon
from parity_tests.files.samples import read_all

# What some of the messages must say: each limit and rule, not another one that happens to apply as well.
REASONS = {
    "safetensors-truncated-64": "claims 57 bytes", "safetensors-trailing": "describes 89",
    "safetensors-header-too-long": "exceeds", "safetensors-overlap": "holes and overlaps",
    "safetensors-hole": "holes and overlaps", "safetensors-header-duplicate": "'a' twice",
    "safetensors-header-escaped-duplicate": "'a' twice", "safetensors-too-many-names": "more than 50000",
    "safetensors-zero-of-huge": "2^63", "safetensors-header-surrogate": "lone surrogate",
    "safetensors-header-long-name": "longer than 4096", "safetensors-shape-many": "at most 64",
    "safetensors-header-twice-dtype": "'dtype' twice",
    "safetensors-header-length-9223372036854775808": "claims 9223372036854775808",
    "msgpack-trailing": "follow the end", "msgpack-giant-df": "of which the file has",
    "msgpack-giant-dd-root": "of which the file has", "msgpack-giant-c6": "of which the file has",
    "msgpack-giant-extension": "of which the file has", "msgpack-long-key": "over 16384",
    "msgpack-long-name": "longer than 4096", "msgpack-deep-maps": "64 deep", "msgpack-deep-lists": "64 deep",
    "msgpack-million-scalars": "entries", "msgpack-key-boolean": "bool, not str",
    "msgpack-duplicate-key-integer": "appears twice", "msgpack-duplicate-key-negative": "appears twice",
    "msgpack-million-integer-keys": "entries", "msgpack-deep-integer-keys": "64 deep",
    "msgpack-key-slash": "contains a /", "msgpack-duplicate-key": "appears twice",
    "msgpack-duplicate-key-other-token": "appears twice", "msgpack-shape-many": "128 dimensions",
    "msgpack-shape-negative": "dimension of -2", "msgpack-dtype-object": "dtype 'object'",
    "msgpack-payload-short": "has 23 bytes", "msgpack-payload-long": "has 25 bytes",
    "msgpack-payload-lies": "a payload of 32", "msgpack-leaf-trailing-inside": "a payload of 24",
    "msgpack-chunked-count": "add up", "msgpack-chunked-dtypes": "have dtypes",
    "msgpack-chunked-mark-false": "bool 1 belongs", "msgpack-chunked-mark-late": "in this order",
    "msgpack-chunked-duplicate-chunk": "numbered", "msgpack-chunked-two-dimensional": "one dimension",
    "msgpack-root-array": "without a name", "msgpack-zero-of-huge": "2^63", "npz-dtype-|O": "pickled objects",
    "npz-dtype->f4": "big-endian", "npz-dtype-record": "a dtype of records (save the file without it",
    "npz-member-payload-short": "23 bytes",
    "npz-member-long-header": "over 10000", "npz-member-magic": "version 1 to 3",
    "npz-member-expression": ".npy header", "npz-not-npy": "that is no .npy", "npz-bzip2": "method 12",
    "npz-duplicate": "two members", "npz-zip-encrypted": "encrypted", "npz-zip-crc": "CRC",
    "npz-zip-payload-flip": "CRC", "npz-deflate-bit-flip": "CRC", "npz-zip-size": "stored, yet",
    "npz-zip-local-name": "does not belong", "npz-zip-local-extra": "reaches into",
    "npz-zip-end-comment": "after its zip directory", "npz-trailing": "after its zip directory",
    "npz-bomb": "bomb", "npz-bomb-lying-size": "more than its size", "npz-overlapping": "overlaps",
    "npz-deflate-more": "more than its size", "npz-deflate-less": "expands to 94",
    "npz-too-many-arrays": "more than 50000 arrays", "npz-long-headers": "bytes of .npy headers",
    "npz-too-many-members": "more than 80000", "npz-directory-too-long": "over 8388608",
    "npz-zero-of-huge": "2^63", "npz-zip-both-sizes-huge": "reach beyond",
    "npz-zip-end-disk": "several disks", "npz-zip-disk": "another disk", "foreign-empty.npz": "empty",
    "foreign-html.pt": "web page", "foreign-lfs.safetensors": "git lfs pull", "foreign-json.msgpack": "JSON",
    "foreign-text.ckpt": "is text", "foreign-noise.npz": "no npz file", "foreign-gzip.ckpt": "compressed",
    "foreign-tar.ckpt": "tar", "foreign-zip-text.ckpt": "holds no tensors", "foreign-hdf5.ckpt": "HDF5",
    "foreign-npy.ckpt": "without a name",
}  # fmt: skip


def test_every_bad_file_gives_one_clear_error_soon_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = set()
    for name, suffix, content in bad_files():
        assert name not in names
        names.add(name)
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        with soon(name), pytest.raises(FormatError) as caught:
            read_all(path)
        message = str(caught.value)
        assert re.fullmatch(re.escape(str(path)) + r": .+ \(.+\)", message), f"{name}: {message}"
        assert message.isprintable(), f"{name}: {message}"
        assert len(message) < 700, f"{name}: {message}"
        assert REASONS.get(name, "") in message, f"{name}: {message}"
        path.unlink()
        assert not os.listdir(tmp_path), name
    assert len(names) >= 300
    assert not REASONS.keys() - names
