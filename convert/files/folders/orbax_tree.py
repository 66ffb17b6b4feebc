"""List the arrays of an Orbax checkpoint, and where each is stored.

`_METADATA` lists the leaves. Until 2024 Orbax wrote leaves with `SaveArgs(aggregate=True)` into one msgpack file
`checkpoint` beside it, and flax's own guide did so with all of them. Where an array is stored by itself, that file
contains the text `PLACEHOLDER://params.dense.kernel`. Older folders have this file alone.
Source: orbax/checkpoint/_src/metadata/tree.py (`_METADATA`); orbax/checkpoint/utils.py (placeholders).
"""

from __future__ import annotations

from typing import Any

from convert.errors import FormatError
from convert.files import bounded_json
from convert.files.base import INCOMPLETE, MAX_DEPTH, MAX_NAME, MAX_TENSORS, File, shown
from convert.files.msgpack import MsgpackReader
from convert.files.skipped import Skipped

from .orbax_places import Local, Remote

METADATA, AGGREGATE, STEP = "_METADATA", "checkpoint", "default"  # a CheckpointManager's step has its tree in "default"
MAX_METADATA = 12 << 20  # bytes: some 30,000 arrays, two seconds
MAX_VALUES = 1_000_000  # in them

ARRAYS = ("np.ndarray", "jax.Array", "scalar")  # kinds of leaves that are arrays
EMPTY = ("None", "Dict", "List", "Tuple", "NamedTuple")  # kinds without content
FIELDS = {"tree_metadata", "use_ocdbt", "use_zarr3", "store_array_data_equal_to_fill_value"}
LEAF_FIELDS = {"value_type", "skip_deserialize", "write_shape"}
PREFIXES = ("PLACEHOLDER://", "AGGREGATED://")


class OrbaxTree:
    """The leaves of a checkpoint that are arrays.

    Attributes:
      root: where the tree lies in the checkpoint: "" or "default/".
      settings: what `_METADATA` says beside the leaves.
      stored: name -> where its array is stored; None: in the file `checkpoint`, which is `aggregate`.
      metadata: is there a `_METADATA`?
    """

    def __init__(self, place: Local | Remote, skipped: Skipped):
        self.path, self.place, self.skipped = place.path, place, skipped
        self.root = "" if place.has(METADATA) or place.has(AGGREGATE) else f"{STEP}/"
        self.stored: dict[str, str | None] = {}
        self._names: dict[str, str] = {}  # by where they are stored
        self.aggregate = self._aggregate()
        self.settings: dict[str, Any] = {}
        try:
            self._list()
        except BaseException:
            self.close()
            raise

    def _aggregate(self) -> MsgpackReader | None:
        name = self.root + AGGREGATE
        if not self.place.has(name) or self.place.entries(self.root).get(AGGREGATE):  # a folder: the array of ArraySave
            return None
        return MsgpackReader(self.place.file(name), alone=False)

    def _list(self) -> None:
        self.metadata = self.place.has(self.root + METADATA)
        if self.metadata:
            self.settings = self._read(self.place.file(self.root + METADATA))
            leaves = self.settings.pop("tree_metadata")
            for entry, leaf in leaves.items():
                self._add_listed(entry, leaf)
            for key, value in self.settings.items():
                if key not in FIELDS and value not in (None, {}):
                    self.skipped.add(f"{METADATA}: {key}", "an entry that describes no array")
        if self.aggregate is not None:
            self._add_aggregated(self.aggregate)
        if len(self.stored) > MAX_TENSORS:
            raise FormatError(self.path, f"has over {MAX_TENSORS:,} arrays", "save only the model's arrays")

    def _read(self, path: str) -> dict[str, Any]:
        file = File(path)
        try:
            if file.size > MAX_METADATA:
                raise FormatError(file.path, f"is {file.size:,} bytes long, over {MAX_METADATA:,}", INCOMPLETE)
            about = bounded_json.loads(file.read(file.size, 0), MAX_VALUES)
        except ValueError as error:
            raise FormatError(file.path, f"cannot be read as JSON: {error}", INCOMPLETE) from None
        finally:
            file.close()
        if not isinstance(about, dict) or not isinstance(about.get("tree_metadata"), dict):
            raise FormatError(file.path, "lists no tree of arrays", "save it again with a current orbax")
        if len(about["tree_metadata"]) > MAX_TENSORS:
            raise FormatError(file.path, f"lists over {MAX_TENSORS:,} arrays", "save only the model's arrays")
        return about

    def _add_listed(self, entry: str, leaf: Any) -> None:
        """Add a leaf of `_METADATA`. Raises: FormatError."""
        match leaf:
            case {"key_metadata": [*keys], "value_metadata": {"value_type": str(kind), **rest}} if all(
                isinstance(key, dict) and "key" in key for key in keys
            ):
                path = [str(key["key"]) for key in keys]
            case _:
                raise FormatError(self.path, f"describes {shown(entry)} in an unknown way", INCOMPLETE)
        if kind in EMPTY:
            return
        name = self._checked(path)
        for field in rest:
            if field not in LEAF_FIELDS:
                self.skipped.add(f"{name}: {field}", "a field of a leaf that is not known")
        if self.aggregate is not None and name in self.aggregate.tensors:
            self._add(name, None)
        elif kind not in ARRAYS:
            self.skipped.add(name, "a text" if kind == "string" else "a leaf of a kind that is not known")
        elif not rest.get("skip_deserialize"):
            self._add(name, ".".join(path))
        elif self.aggregate is None or kind != "scalar":  # numbers without a dtype are among what its reader skipped
            where = f"which should be in its file {AGGREGATE!r}"
            raise FormatError(self.path, f"lacks the array {shown(name)}, {where}", INCOMPLETE)

    def _add_aggregated(self, aggregate: MsgpackReader) -> None:
        """Add what the file `checkpoint` has and `_METADATA` does not list. Raises: FormatError."""
        for name in aggregate.tensors:
            if name not in self.stored:
                self._add(self._checked(name.split("/")), None)
        for name, text in aggregate.placeholders.items():
            path = name.split("/")
            if text not in [prefix + ".".join(path) for prefix in PREFIXES]:
                problem = f"has a placeholder {shown(text)} in {AGGREGATE!r} where {shown(name)} should be"
                raise FormatError(self.path, problem, "restore it with the library that wrote it, and save it again")
            if name not in self.stored and not self.metadata:
                self._add(self._checked(path), ".".join(path))
        self.skipped.update(aggregate.skipped)

    def _add(self, name: str, where: str | None) -> None:
        if name in self.stored:
            raise FormatError(self.path, f"names two tensors {shown(name)}", "one of the two would be lost")
        if where is not None and (other := self._names.setdefault(where, name)) != name:
            what = f"stores {shown(other)} and {shown(name)} at one place, {shown(where)}: Orbax joins levels by dots"
            raise FormatError(self.path, what, "one of the two is lost: save it again under other keys")
        self.stored[name] = where

    def _checked(self, path: list[str]) -> str:
        """Return a leaf's name. Raises: FormatError for a key that is no name."""
        name = "/".join(path)
        if not path or len(path) > MAX_DEPTH or len(name) > MAX_NAME or not name.isprintable():
            raise FormatError(self.path, f"names an array {shown(name)}", "rename it")
        return name

    def close(self) -> None:
        if self.aggregate is not None:
            self.aggregate.close()
