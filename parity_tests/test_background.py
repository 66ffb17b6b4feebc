"""Threads beside the main one: results and errors arrive, nothing is waited for forever. Freed memory is used again."""

import hashlib
import platform

import pytest
import xxhash

from convert.errors import ConvertError
from convert.files.background import Task
from convert.files.base import PIECE, Tensor
from convert.files.hashing import Digest, Source

from .commands import python


def fail():
    raise OSError("the disk is gone")


def test_a_task_gives_its_result_or_its_error():
    with Task(lambda stop: 6 * 7) as task:
        assert task.result() == 42
    with Task(lambda stop: fail()) as task, pytest.raises(OSError, match="gone"):
        task.result()


def test_a_task_is_told_to_stop_when_nobody_waits_for_it():
    with Task(lambda stop: stop.wait(30)) as task:
        pass
    assert task.result() is True  # it was set, not timed out


@pytest.mark.parametrize("size", [0, 100, 5 * PIECE])
def test_a_digest_passes_pieces_on_and_knows_their_hash(size):
    data = bytes(range(256)) * (size // 256 + 1)
    pieces = [data[at : min(at + PIECE, size)] for at in range(0, size, PIECE)]
    digest = Digest(Tensor("x", (size,), "uint8"))
    assert list(digest.of(pieces)) == pieces
    assert digest.line()["xxh3_128"] == xxhash.xxh3_128(data[:size]).hexdigest()


def test_a_source_is_hashed_and_may_not_change(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(bytes(range(256)) * 10_000)
    with Source(str(path)) as source:
        assert source.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    with Source(str(path)) as source:
        path.write_bytes(b"other")
        with pytest.raises(ConvertError, match="changed while it was read"):
            source.sha256()
    with Source(str(path)) as source:
        path.unlink()
        with pytest.raises(ConvertError, match="s: cannot be read any more"):
            source.sha256()


# Page faults of blocks after a command: a strip of a tensor and what was read for it, of 512 pages together.
FAULTS = """
import resource
from convert.__main__ import program
program(["--version"])
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(64):
    strip, source = bytearray(1 << 20), bytearray(1 << 20)
    del strip, source
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc: it decides what it keeps")
def test_a_command_uses_freed_memory_again():
    faults = int(python("-c", FAULTS).stdout.split()[-1])
    assert faults < 4 * 512  # once or twice; each time anew it would be 64 * 512
