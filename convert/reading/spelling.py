"""Respell a file's names as arrays are usually named: joined by "/", without levels that are no part of a name.

Decided by all names of a file together, before anything is recognised. The reader of such a file says what was done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property

from convert.files.base import Reader, Wrapped
from convert.files.modules import Module
from specs.kinds import KINDS, LIBRARIES

from .nesting import SEPARATOR

BOXES = {"value", "raw_value"}  # what nnx.Variable and linen's boxes call the one array that they contain
STATES = {"mu", "nu", "exp_avg", "exp_avg_sq", "momentum", "momentum_buffer", "trace", "moment1", "moment2", "velocity"}
LEAST = 8  # arrays that have to share a last level of another name, before it counts as no part of their names
LONGEST = 4096  # characters in a name that is respelled

_KEY = r"(?:'[^']*'|\"[^\"]*\"|-?\d+)"
_TUPLE = rf"\({_KEY}(?:, ?{_KEY})*,?\)"  # str(("params", "Dense_0")), a key of flax's flatten_dict
_PATH = rf"(?:\[{_KEY}\]|\.\w+)*\[{_KEY}\](?:\[{_KEY}\]|\.\w+)*"  # jax.tree_util.keystr
_PART = rf"{_KEY}|\w+"
_ARROW = "->"
_MODULE = r"(?:^|(?<=[/.]))_(?:modules|parameters|buffers)/"  # of a torch module that was pickled whole


class Respelled(Wrapped):
    """A file under other names for its arrays.

    Args:
      names: its arrays' names -> their new ones.
    """

    def __init__(self, reader: Reader, names: Mapping[str, str], remarks: Iterable[str]):
        renamed = {new: reader.tensors[old]._replace(name=new) for old, new in names.items()}
        super().__init__(reader, renamed, remarks)
        self._own = {new: old for old, new in names.items()}
        self.filled = frozenset(names[old] for old in reader.filled)

    @cached_property
    def parameter_names(self) -> dict[str, str]:
        names = self.reader.parameter_names
        return {new: names[old] for new, old in self._own.items() if old in names}

    @cached_property
    def shared(self) -> frozenset[str]:
        return frozenset(new for new, old in self._own.items() if old in self.reader.shared)

    @cached_property
    def aliases(self) -> dict[str, str]:
        new = {old: new for new, old in self._own.items()}
        return {new[old]: new[first] for old, first in self.reader.aliases.items()}

    @cached_property
    def modules(self) -> list[Module]:
        """Return modules by paths as `state_name` spells the names of their arrays."""
        return [m._replace(path=state_name(f"{m.path}/").rstrip("/.")) for m in self.reader.modules]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        return self.reader.read(self._own[name], start, stop)

    def whole(self, name: str) -> memoryview | None:
        return self.reader.whole(self._own[name])

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        return self.reader.pieces(self._own[name])

    def stored_name(self, name: str) -> str:
        return self.reader.stored_name(self._own[name])


def respelled(reader: Reader) -> Reader:
    """Return the file under its arrays' usual names; the file itself where it has them already."""
    names, remarks = {name: name for name in reader.tensors}, []
    for step in (_joined, _out_of_modules, _rejoined, _unboxed):
        changed, remark = step(list(names.values()))
        later = [changed.get(name, name) for name in names.values()]
        if changed and len(set(later)) == len(later):  # else two arrays would have one name
            names = dict(zip(names, later, strict=True))
            remarks.append(remark)
    return Respelled(reader, names, remarks) if remarks else reader


Change = tuple[dict[str, str], str]  # {name: new one}, what to tell the user


def out_of_modules(reader: Reader) -> Reader:
    """Return the file with the arrays of pickled torch modules under their state_dict's names, all others as stored."""
    changed, remark = _out_of_modules(list(reader.tensors))
    names = {name: changed.get(name, name) for name in reader.tensors}
    unique = len(set(names.values())) == len(names)
    return Respelled(reader, names, [remark]) if changed and unique else reader


def _joined(names: list[str]) -> Change:
    """Split names that are printed tuples or tree paths, or joined by arrows: each level becomes one of the name."""
    changed = {name: new for name in names if len(name) <= LONGEST and (new := _levels(name)) != name}
    return changed, "read the levels of its names as joined by /"


def _levels(name: str) -> str:
    return "/".join(map(_level, name.split("/"))) if any(mark in name for mark in ("(", "[", _ARROW)) else name


def _level(text: str) -> str:
    if re.fullmatch(_TUPLE, text) or re.fullmatch(_PATH, text):
        return "/".join(part.strip("'\"") for part in re.findall(_PART, text))
    return text.replace(_ARROW, "/") if _ARROW in text.strip("->") else text


def _out_of_modules(names: list[str]) -> Change:
    """Name the arrays of torch modules that were pickled whole as the modules' state_dict does."""
    changed = {name: new for name in names if "_" in name and (new := state_name(name)) != name}
    return changed, "read the arrays of pickled modules under the names that their state_dict has"


def state_name(name: str) -> str:
    """Name an array of a pickled torch module as its state_dict does; any other stays as it is."""
    first = re.search(_MODULE, name)
    if not first:
        return name
    before, inner = name[: first.start()], name[first.start() :]
    return before + re.sub(_MODULE, "", inner).replace("/", ".")


@cache
def _leaves(*frameworks: str) -> frozenset[str]:
    """Tell what layers of any kind call their arrays in these frameworks."""
    libraries = [library for framework in frameworks for library in LIBRARIES[framework]]
    kinds = (kind.leaves[library] for kind in KINDS.values() for library in libraries)
    return frozenset(leaf.name for leaves in kinds for leaf in leaves.values() if leaf is not None and leaf.name)


def _rejoined(names: list[str]) -> Change:
    """Split flax names that are joined by dots, as transformers writes them into safetensors, or by another mark.

    The mark is what stands before the leaf of a layer, the same in all names; "_" alone is part of words.
    """
    flax, others = _leaves("flax"), _leaves("torch", "paddle")
    tails = (*flax, *BOXES)
    likely = (name for name in names if name.endswith(tails) and len(name) <= LONGEST)
    ends = [cut for name in likely if (cut := _leaf().search(name))]
    leaves, marks = {cut["leaf"] for cut in ends}, {cut["mark"] for cut in ends}
    if len(marks) != 1 or not leaves & (flax - others):
        return {}, ""
    mark = marks.pop()
    if {end for name in names for end in (name.rpartition(mark)[2], SEPARATOR.split(name)[-1])} & (others - flax):
        return {}, ""
    return {name: name.replace(mark, "/") for name in names if mark in name}, f"read {mark!r} in its names as /"


@cache
def _leaf() -> re.Pattern[str]:
    """Match the mark before a flax leaf at the end of a name, boxed or not."""
    leaves = "|".join(map(re.escape, sorted(_leaves("flax"))))
    return re.compile(
        rf"(?<=[A-Za-z0-9])(?P<mark>(?!_[a-z])[^A-Za-z0-9/]{{1,3}})(?P<leaf>{leaves})(?:(?P=mark)(?:{'|'.join(BOXES)}))?$"
    )


def _unboxed(names: list[str]) -> Change:
    """Leave out a level under which a leaf lies alone: `kernel/value` of an nnx.State or of linen's boxes is `kernel`.

    A last level of any other name is left out only where all arrays of the file, or of its top level, share it.
    """
    inside = Counter(name.rpartition("/")[0] for name in names)
    alone = {name for name in names if "/" in name and inside[name.rpartition("/")[0]] == 1}
    shared = _shared(names) | BOXES
    boxed = [name for name in alone if name.rpartition("/")[2] in shared]
    changed = {name: name.rpartition("/")[0] for name in boxed}
    ends = sorted({name.rpartition("/")[2] for name in boxed})
    boxes = ", which nnx and linen's boxes add to the name of each parameter" * (not set(ends) - BOXES)
    return changed, f"read its names without {' and '.join(f'/{end}' for end in ends)} at the end{boxes}"


def _shared(names: Iterable[str]) -> set[str]:
    """Return last levels that no array under some top level, or in the whole file, is without."""
    tops: dict[str, Counter[str]] = {}
    for name in names:
        for top in ("", name.partition("/")[0]):
            tops.setdefault(top, Counter())[name.rpartition("/")[2]] += 1
    ends = {next(iter(count)) for count in tops.values() if len(count) == 1 and count.total() >= LEAST}
    return ends - STATES - _leaves("flax", "torch", "paddle")
