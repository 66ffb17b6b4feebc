"""No pickle runs, hangs, fills the memory or gives anything but one FormatError."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from convert.errors import FormatError
from convert.files.base import Reader
from convert.files.pickled.paddle import PdparamsReader
from convert.files.pickled.torch import TorchReader
from convert.files.pickled.values import looks_like_pickle
from parity_tests.files.corpus_pickles import BadFile, bad_files
from parity_tests.files.harm import soon
from parity_tests.files.pickle_parts import CANARY

READERS: dict[str, type[PdparamsReader] | type[TorchReader]] = {
    ".pdparams": PdparamsReader,
    ".pt": TorchReader,
    ".pth": TorchReader,
}


def consume(reader: Reader) -> None:
    """Reads everything, as a conversion does."""
    with reader:
        for name in reader.tensors:
            reader.read(name)


def check(bad: BadFile, folder: Path) -> None:
    path = folder / f"bad{bad.suffix}"
    path.write_bytes(bad.data)
    with soon(bad.name), pytest.raises(FormatError) as caught:
        consume(READERS[bad.suffix](path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(bad.reason, message), message
    assert message.isprintable() and len(message) < 600
    assert not (folder / CANARY).exists()


CORPUS = list(bad_files())


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: f"{bad.name}{bad.suffix}")
def test_bad_file(bad: BadFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(bad, tmp_path)


def test_names_are_unique() -> None:
    assert len({(bad.name, bad.suffix) for bad in CORPUS}) == len(CORPUS) >= 300


def test_the_corpus_would_run() -> None:
    """The canary is real: Python's own unpickler does what these files say."""
    ran = [bad for bad in CORPUS if bad.name == "attack-stack-global" and bad.suffix == ".pdparams"]

    class Watched(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            raise LookupError(f"{module}.{name}")

    import io

    with pytest.raises(LookupError, match=r"os\.system"):
        Watched(io.BytesIO(ran[0].data)).load()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_python_pickle_looks_like_one(protocol: int) -> None:
    assert looks_like_pickle(pickle.dumps({"a": [1]}, protocol))


@pytest.mark.parametrize("head", [b"", b"\x80", b"PK\3\4", b"{}", b"<html>", b"\x89HDF", b"hello"])
def test_others_do_not(head: bytes) -> None:
    assert not looks_like_pickle(head)
