"""Write folders that appear whole or not at all: beside their name, locked meanwhile, synced, then swapped in."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import shutil
from collections.abc import Callable, Iterator

from convert.errors import ConvertError, UsageError, command_or_call, option
from specs.words import first_few

from .atomic import Claim, appeared, locked, sync, sync_folder, temporary_of, undisturbed
from .base import Writer
from .folders.base import RECORD

NAMED = 5  # files that an error names
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
HERE = -100  # AT_FDCWD


def check(out: str, writer: type[Writer], is_record: Callable[[str], bool]) -> None:
    """Check that a folder target destroys nothing that is not its own.

    Args:
      is_record: whether a file is a record of ours.
    Raises: UsageError, ConvertError that names what --force does not replace: a folder without our record, or a file
    in it that its format's writer does not write.
    """
    if not os.path.lexists(out):
        return
    if os.path.islink(out) or not os.path.isdir(out):
        raise ConvertError(f"{out}: is no folder, so {option('force')} does not replace it by one: move it away")
    strangers = [name for name in _inside(out) if not any(fnmatch.fnmatchcase(name, own) for own in writer.own)]
    what = [f"holds {first_few(strangers, NAMED)}, which this converter does not write"] if strangers else []
    if not is_record(os.path.join(out, RECORD)):
        what.append("is no checkpoint folder that this converter wrote")
    if what:
        raise ConvertError(f"{out}: {', and '.join(what)}, so {option('force')} does not replace it: move it away")


def check_apart(source: str, out: str) -> None:
    """Check that neither of target and source lies in the other, where one is a folder. Raises: UsageError."""
    ours, theirs = os.path.realpath(out), os.path.realpath(source)
    if os.path.commonpath([ours, theirs]) in (ours, theirs):
        elsewhere = command_or_call("give another -o", "give another path")
        how = "is" if ours == theirs else "contains" if theirs.startswith(ours) else "lies in"
        raise UsageError(f"{out}: {how} the source {source}: {elsewhere}")


def _inside(folder: str) -> list[str]:
    """Return every file and link in a folder and its folders, relative to it."""
    return sorted(
        os.path.relpath(os.path.join(inner, name), folder)
        for inner, folders, names in os.walk(folder)
        for name in (*names, *(f for f in folders if os.path.islink(os.path.join(inner, f))))
    )


@contextlib.contextmanager
def claimed(out: str, removed: Callable[[str], None] = lambda _: None) -> Iterator[Claim]:
    """Yield a temporary folder beside the target that only this process writes, and the record in it; then remove it.

    What a killed run left behind is taken over: what is locked is alive, what is not is stale.

    Args:
      removed: is called with the path of a stale folder whose contents are removed.
    """
    temporary = temporary_of(out)
    lock: int | None = None
    try:
        with undisturbed():  # between creating it and having it here, nothing would remove it
            lock = locked(out, lambda: _lock(temporary, removed))
        with open(os.path.join(temporary, RECORD), "x+b", buffering=0) as file:
            yield Claim(file, temporary)
    except OSError as error:
        raise ConvertError(f"{out}: cannot be written: {error.strerror or error}; nothing was left behind") from None
    finally:
        if lock is not None:
            if _is(temporary, lock):
                shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


def _lock(path: str, removed: Callable[[str], None]) -> int | None:
    """Return the folder at `path`, empty and locked; None if another process holds it."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its owner was done between the two calls
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if _is(path, lock):
            if stale := list(os.scandir(path)):
                removed(path)
            for entry in stale:
                _remove(entry.path)
            return lock
        os.close(lock)  # its owner gave it its name between our opening and our locking


def _is(path: str, descriptor: int) -> bool:
    """Tell whether the folder that was opened still has this name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def publish(temporary: str, out: str, force: bool) -> None:
    """Give a finished folder its name: at once, and without force only if nothing has that name."""
    for inner, _, names in os.walk(temporary):
        for path in (inner, *(os.path.join(inner, name) for name in names)):
            sync(path)
    if not os.path.lexists(out):
        os.rename(temporary, out)
    elif force:
        _swap(temporary, out)
        _remove(temporary)  # what had the name before
    else:
        raise appeared(out)
    sync_folder(out)


def _swap(temporary: str, out: str) -> None:
    """Exchange two names in one step, so that a whole folder has the target's name at any moment."""
    import ctypes

    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is not None and exchange(HERE, os.fsencode(temporary), HERE, os.fsencode(out), EXCHANGE) == 0:
        return
    aside = temporary.removesuffix(".part") + ".old"  # a file system that cannot: two steps
    os.rename(out, aside)
    os.rename(temporary, out)
    os.rename(aside, temporary)
