"""Write files that appear whole or not at all: beside their name, locked meanwhile, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, TypeVar

from convert.errors import ConvertError, UsageError, option

from .base import write_all

T = TypeVar("T")

KEEP_SIZE = 1  # of fallocate(2)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # it fails for want of room; else, for not being supported


class Claim(NamedTuple):
    """A temporary file, open and locked, and its path."""

    file: IO[bytes]
    path: str


def reserve(file: IO[bytes], size: int) -> None:
    """Set disk space aside for a file, which keeps its size: a full disk is told at once, and writing gets faster.

    Raises: OSError where there is no room; a file system that cannot set space aside is asked for none.
    """
    import ctypes

    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)  # Linux; posix_fallocate may write it all
    if fallocate is None or not size:
        return
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(file.fileno(), KEEP_SIZE, 0, size) and (code := ctypes.get_errno()) in FULL:
        raise OSError(code, os.strerror(code))


def temporary_of(out: str) -> str:
    """Return the path of a target while it is written: a name that is ours alone, so that what has it may be swept."""
    folder, name = os.path.split(os.path.abspath(out))
    return os.path.join(folder, f".{name}.triptych.part")


@contextlib.contextmanager
def claimed(out: str, removed: Callable[[str], None] = lambda _: None) -> Iterator[Claim]:
    """Yield a temporary file beside the target that only this process writes; gone at the end, however it ends.

    A file that a killed run left behind is taken over: what is locked is alive, what is not is stale.

    Args:
      removed: is called with the path of a stale file that is taken over.
    """
    temporary = temporary_of(out)
    file: IO[bytes] | None = None
    try:
        with undisturbed():  # between creating it and having it here, nothing would remove it
            file = locked(out, lambda: _lock(temporary))
        if os.fstat(file.fileno()).st_size:
            removed(temporary)
        file.truncate(0)
        yield Claim(file, temporary)
    except OSError as error:
        raise ConvertError(f"{out}: cannot be written: {error.strerror}; nothing was left behind") from None
    finally:
        if file is not None:
            if _is(temporary, file):
                os.unlink(temporary)
            file.close()


def locked(out: str, lock: Callable[[], T | None]) -> T:
    """Return what `lock` creates and locks. Raises: ConvertError where it cannot be, or another process holds it."""
    try:
        made = lock()
    except OSError as error:
        raise ConvertError(f"{out}: cannot be written: {error.strerror}") from None
    if made is None:
        raise ConvertError(f"{out}: another conversion is writing it: wait for that one")
    return made


def _lock(path: str) -> IO[bytes] | None:
    """Return the file at `path`, locked; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _is(path, file):
            if os.fstat(descriptor).st_nlink == 1:
                return file
            os.unlink(path)  # killed while it gave the file its name: these bytes are a finished target's
        file.close()  # else its owner gave it its name between our opening and our locking


def _is(path: str, file: IO[bytes]) -> bool:
    """Tell whether an open file still has this name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Defer Ctrl-C, a request to end and a closed terminal until the block is done, such as one that renames files."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: caught.append(number)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not made in Python
        for missed in caught:
            signal.raise_signal(missed)


def publish(temporary: str, out: str, force: bool) -> None:
    """Give a finished file its name: at once, and without force only if nothing has that name."""
    if force:
        os.replace(temporary, out)
    else:
        try:
            os.link(temporary, out)
        except FileExistsError:
            raise appeared(out) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(out):
                raise appeared(out) from None
            os.replace(temporary, out)
    sync_folder(out)


def appeared(out: str) -> UsageError:
    """Return the error for a target that was not there when the command began."""
    return UsageError(f"{out}: appeared meanwhile ({option('force')} replaces it)")


def sync_folder(path: str) -> None:
    """Sync the folder of `path` to the disk, so that its renames survive a crash."""
    sync(os.path.dirname(os.path.abspath(path)))


def sync(path: str) -> None:
    """Sync a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: str, content: bytes) -> None:
    """Write a file that appears whole under its name, in place of an old one."""
    with claimed(path) as (file, temporary):
        write_all(file, content)
        os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path)


def rewrite(file: IO[bytes], content: bytes) -> None:
    """Give a file this content alone, and sync it to the disk."""
    file.seek(0)
    write_all(file, content)
    file.truncate()
    os.fsync(file.fileno())


@contextlib.contextmanager
def accompanied(path: str, claim: Claim, content: bytes, force: bool) -> Iterator[None]:
    """Write the claimed file around a block that publishes what it describes.

    An old one is deleted before the block and this one is renamed after it, so that it never describes another file.
    Raises: UsageError without force where there is an old one: another conversion has written it and its file.
    """
    file, temporary = claim
    rewrite(file, content)
    if not force and os.path.lexists(path):
        raise appeared(path)
    remove(path)
    yield
    os.replace(temporary, path)
    sync_folder(path)


def remove(path: str) -> None:
    """Delete a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
