"""Locate an Orbax checkpoint: a folder of this machine, or a URL that tensorstore reads (gs://, s3://, file://)."""

from __future__ import annotations

import os
import stat
import tempfile

from convert.errors import FormatError
from convert.files.base import INCOMPLETE, shown

from .base import MAX_FILES
from .tensorstore_process import Process

MAX_FILE = 1 << 30  # bytes of a remote file that is copied whole: `_METADATA` or aggregated arrays


class Local:
    """A folder. Raises: FormatError where a link leads out of it, or for a pipe: tensorstore would follow and open it.

    Attributes:
      size: bytes of all files.
    """

    def __init__(self, path: str):
        self.path, self.size = path, 0
        root, count = os.path.join(os.path.realpath(path), ""), 0
        for inner, folders, names in os.walk(path):
            count += len(names)
            if count > MAX_FILES:
                raise FormatError(path, f"holds over {MAX_FILES:,} files", "is it the right folder?")
            for name in (*folders, *names):
                status = os.lstat(os.path.join(inner, name))
                if stat.S_ISREG(status.st_mode):
                    self.size += status.st_size
                elif stat.S_ISLNK(status.st_mode) and not os.path.realpath(os.path.join(inner, name)).startswith(root):
                    link = os.path.relpath(os.path.join(inner, name), path)
                    problem = f"has a link {shown(link)}: outside the folder"
                    raise FormatError(path, problem, "copy the file itself there")
                elif not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                    pipe = shown(os.path.relpath(os.path.join(inner, name), path))
                    raise FormatError(path, f"has a pipe, socket or device {pipe}", INCOMPLETE)

    def has(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self.path, name))

    def file(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.path, name)

    def entries(self, inner: str) -> dict[str, bool]:
        """Return {name: is it a folder?} of what lies directly in `inner`, sorted."""
        listing = os.scandir(os.path.join(self.path, inner))
        return {entry.name: entry.is_dir() for entry in sorted(listing, key=lambda entry: entry.name)}

    def close(self) -> None:
        """Close nothing: nothing is open."""


class Remote:
    """A URL; single files of it are copied to a temporary folder when they are asked for."""

    size = None  # which is not known

    def __init__(self, path: str, process: Process):
        self.path, self._process = path, process
        try:
            self._names = process.call("files")
        except ValueError as error:
            raise FormatError(path, f"cannot be listed: {error}", "check the URL, and your access to it") from None
        if not self._names:
            raise FormatError(path, "there is nothing at this URL", "check the URL")
        self._copies = tempfile.TemporaryDirectory(prefix="triptych-")

    def has(self, name: str) -> bool:
        return name in self._names

    def file(self, name: str) -> str:
        """Copy a file. Returns: its path."""
        copy = os.path.join(self._copies.name, name.replace("/", "_"))
        try:
            self._process.call("copy", key=name, path=copy, room=MAX_FILE)
        except ValueError as error:
            raise FormatError(self.path, f"{shown(name)} cannot be read: {error}", INCOMPLETE) from None
        return copy

    def entries(self, inner: str) -> dict[str, bool]:
        """Return {name: is it a folder?} of what lies directly in `inner`, sorted."""
        is_folder: dict[str, bool] = {}
        for name in sorted(self._names):
            if name.startswith(inner):
                first, slash, _ = name[len(inner) :].partition("/")
                is_folder[first] = bool(slash)
        return is_folder

    def close(self) -> None:
        self._copies.cleanup()
