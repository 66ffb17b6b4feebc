"""Name the modules of two models alike by the Table between them, so that `parity.compare` compares each pair."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from convert.errors import UsageError
from convert.table.misfit import fits
from parity.given.module_names import STACKED, PairedNames
from parity.given.own import recognise
from parity.given.paired_arrays import ArrayPairs, Names, OneSide, pairs_of
from parity.given.views import Block
from parity.results.naming import ARRAYS
from specs.applied.layout import Entry, Layout
from specs.applied.moves import Move, takes_all
from specs.notation.claims import derived_lengths
from specs.notation.lines import TableError
from specs.notation.paths import dotted
from specs.solving.heads import clashes, follows_shown
from specs.solving.sizes import SizeError, dims
from specs.table import Table

Shapes = Mapping[str, tuple[int, ...]]
Lengths = Mapping[str, int]
SPLIT = "the models split modules otherwise"  # why modules that share arrays are not compared
Pair = tuple[str, str]  # paths of a module of the left model and of one of the right model


def paired(given: Any, models: Mapping[str, Any], check: str) -> dict[str, PairedNames]:
    """Return names for `parity.compare`: {label: {path of a module: name of its pair}}, by the left model's path.

    Arrays are paired by the Table's lines as well, where no length of these is open.

    Args:
      given: a Table, or what parity.derive returned.
      models: two models as their frameworks have them, the left one of the Table first.
    Raises: UsageError for other models, for a Table that does not fit them, and for one that pairs nothing.
    """
    if len(models) != 2:
        raise UsageError(f"a Table names the modules of two models, not of {len(models)}")
    table: Table = getattr(given, "table", given)
    sides = [_Side.of(model) for model in models.values()]
    layout, lengths, is_open, unseen = _layout(table, sides[0].shapes, sides[1].shapes, list(models))
    pairs, stacked, alone = _pairs(layout, *sides)
    if not pairs and check in ("layers", "single-step") and all(side.home != "function" for side in sides):
        raise UsageError("names: the Table pairs no module of one model with one of the other: leave names out")
    names = PairedNames({one: one for one, _ in pairs}), PairedNames({other: one for one, other in pairs})
    names[1].blocks = _blocks(layout, {other: one for one, other in pairs}, *sides)
    names[1].rows = _rows([*pairs, *alone])
    for k, module_names in enumerate(names):
        module_names.unlike = {STACKED: sorted({pair[k] for pair in stacked if all(pair)})}
        module_names.reasons = {pair[k]: STACKED if pair in stacked else SPLIT for pair in alone}
    names[1].order = _order(getattr(given, "input_order", ()), *sides)
    names[1].output_order = tuple(getattr(given, "output_order", ()))
    if is_open and check in ARRAYS:
        raise UsageError(
            f"names: the Table leaves lengths open that no shape of both models shows ({', '.join(is_open)}), and "
            f"check={check!r} lays out arrays by it: write them into its lines, as in {_with_length(table, is_open[0])}"
        )
    for k, module_names in enumerate(names):
        module_names.open, module_names.lengths = is_open, unseen
        module_names.arrays = None if is_open else OneSide(_arrays(table, layout, lengths, *sides), k)
    return dict(zip(models, names, strict=True))


def _with_length(table: Table, name: str) -> str:
    """Return the first dimension of a Table that has an axis, a composed one if any, with a length: "(p=4 c)"."""
    every = [one for line in table.lines for array in line.arrays for one in dims(array)]
    _, text, _ = max((one for one in every if name in one[2]), key=lambda one: len(one[2]) > 1)
    return re.sub(rf"\b{name}\b", f"{name}=4", text)


@dataclass(frozen=True)
class _Side:
    """A model as a Table names its arrays.

    Args:
      home: module in ports.runners. shapes: of all arrays. ties: {name: name of the array that it shares}.
    """

    home: str
    shapes: Shapes
    ties: Mapping[str, str]

    @classmethod
    def of(cls, model: Any) -> _Side:
        from parity.derive.trace.call import call_of
        from parity.derive.trace.sides import arrays_of, side

        own = side(model, call_of(()))
        shapes = {name: tuple(array.shape) for name, array in arrays_of(own).items()}
        return cls(recognise(model)[0], shapes, own.ties)

    def module(self, name: str) -> str:
        """Return the path of the module that an array belongs to, as the framework's models list it."""
        if self.home == "function":
            return ""
        if self.home in ("torch", "paddle"):
            return name.rpartition(".")[0]
        return dotted(name.split("/")[1 if self.home == "linen" else 0 : -1])


def _order(derived: Sequence[int], left: _Side, right: _Side) -> tuple[int, ...]:
    """Return the order of axes in which the right model takes what `parity.compare` gives to both; () as it is.

    Args:
      derived: the order in which derive gave it the left model's input. `compare` itself gives images with channels
        last to flax models, and `derive` gives each model what it takes.
    """
    axes = list(range(len(derived)))
    is_flax = [len(axes) == 4 and side.home in ("linen", "nnx", "function") for side in (left, right)]
    taken = [axes[k] for k in (0, 2, 3, 1)] if is_flax[0] else axes
    taken = [taken[k] for k in derived]
    taken = [taken[k] for k in (0, 3, 1, 2)] if is_flax[1] else taken
    return () if taken == axes else tuple(taken)


class _LaidOut(NamedTuple):
    """The layout of a Table for two models.

    Args:
      lengths: that are taken where an array does not show them. open: names of those that nothing shows.
      unseen: of those that are taken, which no shape shows: others of their modules do, as slopes show how many heads.
    """

    layout: Layout
    lengths: Lengths
    open: tuple[str, ...]
    unseen: Lengths


def _layout(table: Table, left: Shapes, right: Shapes, labels: list[str]) -> _LaidOut:
    """Return the layout of a Table for two models, with lengths of the models that it was derived from.

    They are taken if all that follows from them is as in those, and no shape of a module contradicts them on heads. For
    an open one, 1 is taken: which array becomes which is the same whatever the lengths, and 1 divides any.
    Raises: UsageError for a Table that does not fit.
    """
    try:
        try:
            return _LaidOut(table.layout(left, right), {}, (), {})
        except SizeError as error:
            known = {name: int(length) for name, length in derived_lengths(table).items()}
            lengths = {name: known[name] for name in error.remedy.enough if name in known}
            with suppress(TableError):
                layout = table.layout(left, right, lengths)
                axes = [(name, layout.sizes[number][name]) for number, names in error.axes.items() for name in names]
                clash = next(clashes(layout.bound, lengths), "")
                if all(known.get(name) == length for name, length in axes) and not clash:
                    asked = [line for line in table.lines if line.number in error.axes]
                    seen = {n for line in asked for n in lengths if follows_shown(line, n, error.shown)}
                    return _LaidOut(layout, lengths, (), {n: lengths[n] for n in lengths if n not in seen})
            ones = dict.fromkeys(error.remedy.enough, 1)
            return _LaidOut(table.layout(left, right, ones), ones, error.remedy.enough, ones)
    except TableError as error:
        if fits(table.reverse(), left, right):
            raise UsageError(
                f"names: the Table's left side is {labels[1]}, and {labels[0]} is given first: exchange the models, "
                f"{{{labels[1]!r}: ..., {labels[0]!r}: ...}}, or pass names=table.reverse()"
            ) from None
        what = f"names: the Table does not fit {' and '.join(labels)}, of which the first is its left side"
        raise UsageError(f"{what}: {error.message}", error.problems) from error


def _pairs(layout: Layout, left: _Side, right: _Side) -> tuple[list[Pair], set[Pair], list[Pair]]:
    """Return pairs of modules; those of which one model stacks arrays; and all that share arrays and are no pair.

    Modules are a pair if all arrays of each, with those of the modules inside it, go to the other: a Linear of queries,
    keys and values is no pair of an nn.MultiheadAttention, which also holds the output projection. An array that stands
    for a sum goes to all terms of it.
    """
    lefts, rights = dict[str, set[str]](), dict[str, set[str]]()  # path of a module -> those that its arrays go with
    stacked = set[Pair]()
    for entry in layout.entries:
        for source in [*entry.sources, *[entry.like] * (entry.name in layout.zeroed)]:
            one, other = left.module(source), right.module(entry.name)
            lefts.setdefault(one, set()).add(other)
            rights.setdefault(other, set()).add(one)
            if len(left.shapes[source]) != len(entry.shape) and _is_stacked(entry, left.shapes):
                stacked.add((one, other))
    alone = [(one, next(iter(partners))) for one, partners in lefts.items() if len(partners) == 1]
    pairs = [pair for pair in alone if len(rights[pair[1]]) == 1 and all(pair) and pair not in stacked]
    pairs = [pair for pair in pairs if _inside(lefts, *pair) and _inside(rights, *pair[::-1])]
    shared = [(one, other) for one, partners in lefts.items() for other in sorted(partners) if one and other]
    return pairs, stacked, [p for p in shared if p not in {*pairs}]


def _blocks(layout: Layout, names: Mapping[str, str], left: _Side, right: _Side) -> dict[str, list[Block]]:
    """Return the axes that one side composes otherwise, by the name of a pair of modules.

    Args:
      names: of pairs, by the right module's path.
    """
    blocks = dict[str, list[Block]]()
    for entry in layout.entries:
        name = names.get(right.module(entry.name))
        if name is not None and len(entry.moves) == 1 and _has_all(entry.moves[0]):
            blocks.setdefault(name, []).extend(_composed(entry.moves[0], left.shapes[entry.sources[0]], entry.shape))
    return {name: list(dict.fromkeys(own)) for name, own in blocks.items() if own}


def _composed(move: Move, left: tuple[int, ...], right: tuple[int, ...]) -> Iterator[Block]:
    """Yield the axes of a whole array that are others on the other side: (h d) of h, d or of (d h)."""
    sides = (
        _factors(left, range(len(move.source_atoms)), move.source_atoms),
        _factors(right, move.order, move.target_atoms),
    )
    done = set[int]()
    for first in sides[0]:
        atoms = {*first} - done
        while atoms and (more := {a for side in sides for axis in side if atoms & {*axis} for a in axis}) != atoms:
            atoms = more
        done |= atoms
        axes = [[k for k, axis in enumerate(side) if atoms & {*axis}] for side in sides]
        one, other = ([a for k in places for a in side[k]] for places, side in zip(axes, sides, strict=True))
        is_apart = any(places != [*range(places[0], places[-1] + 1)] for places in axes if places)
        taken = tuple(_taken(move, a) for a in other)
        if atoms and not is_apart and (one != other or len(axes[0]) != len(axes[1]) or any(taken)):
            lengths = tuple(left[k] for k in axes[0]), tuple(right[k] for k in axes[1])
            split, order = tuple(move.source_atoms[a] for a in other), tuple(other.index(a) for a in one)
            yield Block(*lengths, split, order, taken, is_output=min(len(left), len(right)) == 1)


def _taken(move: Move, atom: int) -> tuple[int, ...]:
    """Return the places from which a reversed or listed atom of the source comes in the target; () of any other."""
    entry, size = move.select[atom], move.source_atoms[atom]
    if takes_all(entry, size):
        return ()
    places = np.arange(size)[entry if isinstance(entry, slice) else [*np.atleast_1d(entry)]]
    return tuple(map(int, np.argsort(places)))


def _has_all(move: Move) -> bool:
    """Tell whether a move takes each element of one tensor to one of the other, be it reversed or in a listed order."""
    every = [_taken(move, atom) for atom in range(len(move.source_atoms))]
    onto = all(not taken or len(taken) == size for taken, size in zip(every, move.source_atoms, strict=True))
    onto = onto and not any(isinstance(entry, int) for entry in move.select)
    return onto and move._replace(select=(slice(None),) * len(every)).is_whole


def _factors(shape: tuple[int, ...], atoms: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return the atoms of each axis, but for those of length 1."""
    left = [(atom, length) for atom, length in zip(atoms, lengths, strict=True) if length > 1]
    axes: list[list[int]] = []
    for size in shape:
        axes.append([])
        while size > 1:
            atom, length = left.pop(0)
            axes[-1].append(atom)
            size //= length
    return axes


def _rows(shared: Sequence[Pair]) -> dict[str, str]:
    """Map right modules to the left modules in whose rows they are listed.

    Such a pair shares arrays, its own or those of the modules inside it, with no other module.

    Args:
      shared: all modules that share arrays.
    """
    owners = tuple({pair[k] for pair in shared} for k in (0, 1))
    rows: dict[str, str] = {}
    for one in {path[:k] for path in owners[0] for k, sign in enumerate(f"{path}.") if sign == "."}:
        other = _around(shared, one, 0)
        if other and _around(shared, other, 1) == one and (one in owners[0]) == (other in owners[1]):
            rows[other] = one
    return rows


def _around(shared: Sequence[Pair], path: str, side: int) -> str:
    """Return the innermost module around all that share arrays with a module, or with those inside it."""
    others = [pair[1 - side] for pair in shared if f"{pair[side]}.".startswith(f"{path}.")]
    return posixpath.commonpath([other.replace(".", "/") for other in others]).replace("/", ".")


def _is_stacked(entry: Entry, shapes: Shapes) -> bool:
    """Tell whether one side stacks arrays of the other one along an axis of its own.

    Args:
      shapes: of the left arrays.
    """
    for part in entry.moves:
        source = shapes[part.source]
        of_left, of_right = (source, part.source_atoms, part.select), (entry.shape, part.target_atoms, part.place)
        shape, atoms, picks = of_left if len(source) > len(entry.shape) else of_right
        before = [math.prod(atoms[:k]) for k in range(len(atoms))]
        edges = {math.prod(shape[:d]): size for d, size in enumerate(shape)}
        if any(isinstance(pick, int) and edges.get(at) == n for pick, at, n in zip(picks, before, atoms, strict=True)):
            return True
    return False


def _arrays(table: Table, layout: Layout, lengths: Lengths, left: _Side, right: _Side) -> ArrayPairs:
    """Pair arrays in the order in which a model lists them, if possible one of torch or paddle: JAX sorts names.

    Of two such models, that with more arrays shows more of the order.
    """
    back = table.reverse().layout(right.shapes, left.shapes, lengths)
    finer = max((right, left), key=lambda side: (side.home in ("torch", "paddle"), len(side.shapes)))
    place = {name: k for k, name in enumerate(finer.shapes)}
    places = {e.name: min((place[n] for n in (e.name, *e.sources) if n in place), default=-1) for e in layout.entries}
    one, other = (Names(side.home, list(side.shapes), side.ties) for side in (left, right))
    return pairs_of(layout, back, one, other, places)


def _inside(partners: Mapping[str, set[str]], path: str, other: str) -> bool:
    """Tell whether the partners of all modules inside this one are inside that one."""
    inner = (paths for module, paths in partners.items() if module.startswith(f"{path}."))
    return all(partner.startswith(f"{other}.") for paths in inner for partner in paths)


def is_paired(names: Any) -> bool:
    """Tell whether this is a Table, or what parity.derive returned."""
    return isinstance(getattr(names, "table", names), Table)
