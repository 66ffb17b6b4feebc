"""Damaged files and noise: a reader gives FormatError, or tensors of the sizes it announced."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.errors import FormatError
from convert.files import FORMATS, msgpack
from convert.files.base import ITEMSIZE
from parity_tests.files.corpus_plain import npy, zipped
from parity_tests.files.samples import read_all, tensors, written

PLAIN = ("safetensors", "msgpack", "npz")


def originals() -> dict[str, bytes]:
    """One small good file of each kind, with every feature its reader has."""
    dtypes = [dtype for dtype in ITEMSIZE if dtype not in ("bfloat16", "complex128") and "float8" not in dtype][:4]
    items = [tensor for tensor in tensors(dtypes) if tensor.nbytes < 100][:20]
    kept, msgpack.CHUNK = msgpack.CHUNK, 40  # so that there are chunked arrays
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: written(Path(folder) / name, name, items).read_bytes() for name in PLAIN}
    finally:
        msgpack.CHUNK = kept
    arrays = [(f"{order}.npy", npy(order=order)) for order in ("True", "False")]
    return files | {"npz-deflated": zipped(*arrays, method=8)}


ORIGINALS = originals()


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """The file with some bytes flipped, overwritten, cut out or doubled, and perhaps truncated."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "edge", "cut", "double", "truncate"]))
        length = draw(st.integers(1, 16))
        if kind == "flip" and raw:
            raw[at] ^= draw(st.integers(1, 255))
        elif kind == "edge":
            raw[at : at + length] = draw(st.sampled_from([b"\xff", b"\x00", b"\x7f", b"\x80"])) * length
        elif kind == "cut":
            del raw[at : at + length]
        elif kind == "double":
            raw[at:at] = raw[at : at + length]
        elif kind == "truncate":
            del raw[at:]
    return bytes(raw)


@pytest.mark.parametrize("name", ORIGINALS)
def test_damage_gives_format_errors_and_nothing_else(tmp_path, name):
    path = tmp_path / "damaged"
    entry = next(entry for entry in FORMATS if entry.name == name.partition("-")[0])
    reader_class = entry.load(entry.reader)
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=400,
        derandomize=True,
        database=None,
        deadline=2000,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(ORIGINALS[name]))
    def run(content):
        path.write_bytes(content)
        try:
            read_all(path, reader_class)
            outcomes["read"] += 1
        except FormatError as error:
            outcomes["refused"] += str(error).startswith(f"{path}: ") and str(error).isprintable()

    run()
    assert outcomes["refused"] > 100, outcomes
    assert sum(outcomes.values()) >= 400, outcomes  # none without its path, or with control characters


@settings(max_examples=500, derandomize=True, database=None, deadline=2000, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        [
            b"",
            b"\x20\0\0\0\0\0\0\0{",
            b"PK\3\4",
            b"\x81\xa1a",
            b"\xc7\x20\x01\x93",
            b"\x82\xa1a\xc7\x10\x01\x93\x91",
        ]
    ),
    st.binary(max_size=200),
)
def test_noise_gives_format_errors_and_nothing_else(tmp_path_factory, head, tail):
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(head + tail)
    with contextlib.suppress(FormatError):
        assert read_all(path) >= 0
