"""Remember which checkpoint a port was loaded from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from convert.errors import ConvertError
from convert.files import state
from convert.files.base import URL
from convert.files.hashing import sha256


@dataclass(frozen=True)
class Source:
    """One checkpoint as it was when a port was loaded from it.

    Args:
      state: size and time of change of each of its files; empty at a URL.
      part: which part of it has the weights, as --weights spells it; "" is its root.
    """

    path: str
    state: tuple[tuple[int, int], ...] = ()
    part: str = ""

    @classmethod
    def of(cls, path: str, part: str = "") -> Source:
        """Note the state of a checkpoint. Raises: OSError, FormatError."""
        return cls(path, () if URL.match(path) else tuple(state(path)), part)

    def digest(self) -> str:
        """Return the checkpoint's "sha256 ...", or say why there is none, such as that it has changed."""
        if not self.state:
            return "not hashed"
        try:
            known = self._sha256 if tuple(state(self.path)) == self.state else ""
            now = tuple(state(self.path))  # it may have changed while it was read
        except (OSError, ConvertError) as error:
            return f"cannot be read any more ({error})"
        return f"sha256 {known}" if now == self.state else "has changed since it was loaded"

    @cached_property
    def _sha256(self) -> str:
        """Hash the checkpoint, once for all comparisons of its port."""
        return sha256(self.path)
