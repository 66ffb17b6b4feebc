"""Threads beside the main one: results and errors arrive, and nothing is waited for forever."""

import hashlib
import threading

import pytest

from convert.background import BEHIND, Line, Task
from convert.errors import ConvertError
from convert.formats.base import Tensor
from convert.hashing import BATCH, PIECE, Digest, Source


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


def test_a_line_makes_calls_in_order_and_bounds_what_waits():
    made, gate = [], threading.Event()
    with Line() as line:
        line.do(lambda: gate.wait(10))
        for number in range(BEHIND):
            line.do(lambda number=number: made.append(number))
        assert line._calls.full()
        assert made == []
        gate.set()
        line.wait()
        assert made == list(range(BEHIND))


def test_a_line_raises_the_first_error_and_makes_no_later_call():
    made = []
    with Line() as line:
        line.do(fail)
        for number in range(3 * BEHIND):  # more than may wait: the queue drains none the less
            line.do(lambda number=number: made.append(number))
        with pytest.raises(OSError, match="gone"):
            line.wait()
    assert made == []


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("size", [0, 100, PIECE * BATCH + 4, 5 * PIECE * BATCH])
def test_a_digest_is_the_same_beside_and_inline(size, beside):
    data = bytes(range(256)) * (size // 256 + 1)
    pieces = [data[at : min(at + PIECE, size)] for at in range(0, size, PIECE)]
    with Line() as line:
        digest = Digest(Tensor("x", (size,), "uint8"), line if beside else None)
        assert list(digest.of(pieces)) == pieces
        assert digest.line()["sha256"] == hashlib.sha256(data[:size]).hexdigest()


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
        with pytest.raises(ConvertError, match=r"s: (cannot be read any more|changed)"):
            source.sha256()
