"""Threads beside the main one: results and errors arrive, and nothing is waited for forever."""

import contextlib
import hashlib
import threading

import pytest
import xxhash

from convert.errors import ConvertError
from convert.files.background import Task, ahead
from convert.files.base import PIECE, Tensor
from convert.files.hashing import Digest, Source


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


def test_items_are_computed_ahead_in_another_thread_and_in_their_order():
    threads = set()

    def items():
        for item in range(100):
            threads.add(threading.current_thread())
            yield item

    assert list(ahead(items(), 2)) == list(range(100))
    assert threading.main_thread() not in threads


def test_no_more_items_are_computed_ahead_than_asked_for():
    """While one is used, the next waits and a third is computed: with more, memory would grow with the tensor."""
    computed, third = [], threading.Event()

    def items():
        for item in range(100):
            computed.append(item)
            if item == 2:
                third.set()
            yield item

    with contextlib.closing(ahead(items(), 2)) as some:
        assert next(some) == 0
        assert third.wait(30)
    assert computed == [0, 1, 2]


def test_what_computing_an_item_raises_is_raised_where_it_is_used():
    def items():
        yield 1
        fail()

    some = ahead(items(), 2)
    assert next(some) == 1
    with pytest.raises(OSError, match="gone"):
        next(some)


def test_a_user_who_leaves_early_ends_the_thread():
    before = threading.active_count()
    with contextlib.closing(ahead(iter(int, 1), 2)) as endless:
        assert next(endless) == 0
    assert threading.active_count() == before


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
