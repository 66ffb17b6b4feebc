"""Compare two checkpoints array by array, by names alone.

Nothing is known of a model: equal arrays compute the same only in code that means the same by them.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import takewhile

from convert import folding
from convert.arrays.steps import Promise, Step
from convert.documents import document
from convert.errors import ConvertError, called, option
from convert.files import open_checkpoint
from convert.files.base import Reader, Tensor
from convert.reading.masters import OF_MASTER, optimizer_file
from convert.reading.nesting import ROOT, by_container, copied_place, training, within
from convert.reading.optimizers import find_any, state_names, state_of
from convert.reading.spelling import out_of_modules
from convert.records import record
from convert.table.file import recorded_table
from convert.table.part import matching, part, without_training
from specs.applied.moves import Move
from specs.notation.lines import TableError
from specs.table import Table
from specs.words import count

from . import places
from .array_differences import Differences, Tolerance, differences
from .numbered import Match, Numbered, is_list, matched
from .plain_values import PlainValues, common

BESIDE = "what is set aside"  # in the verdict
SHOWN = 3  # names of each file that an error lists
STATE, COPY = "training state", "a copy of the weights"
PLACE = {STATE: training, COPY: copied_place}  # what finds it by its name, and returns its container
ASIDE = ((), (STATE,), (COPY,), (COPY, STATE))  # what is set aside until the other names of two files are alike


def by_names(
    a: str, b: str, tolerance: Tolerance, weights: tuple[str | None, str | None] = (None, None)
) -> tuple[Differences, list[str]] | None:
    """Return how two files of one layout differ, and notes on what in them is not compared.

    None where most names of neither file are in the other.

    Args:
      weights: which part of A and of B to take; None takes the whole file, without training state and copies of the
        weights that the two name otherwise. ROOT takes all of it, where both files have it.
    """
    whole = weights == (ROOT, ROOT)
    with open_checkpoint(a) as first, open_checkpoint(b) as second:
        one, two = as_it_is(first, weights[0]), as_it_is(second, weights[1])
        if weights == (None, None):
            one, two = _like(one, first, two), _like(two, second, one)
        one, two, masters = _without_masters(one, two)
        one, two, nested = _nested_alike(one, two)
        match = matched(one.reader, two.reader)
        if match.a and match.b:
            one, two = _by_parameter(one, match.a), _by_parameter(two, match.b)
        one, two, placed, uncounted = _placed_alike(one, two, whole)
        tried = _may_be_aside(one, two, match, whole)
        trials = ((_without(one, aside), _without(two, aside), aside) for aside in tried)
        trial = next((trial for trial in trials if _are_alike(*trial[:2], whole)), None)
        if trial is None:
            _check_one_library(one, two)
            if training(one.prefix) and training(two.prefix):
                raise _nested_otherwise(one, two, match)
            return None
        one, two, aside = trial
        arrays = differences(one, two, tolerance)
        parts = one.prefix, two.prefix
        root = common(parts)
        named = whole or (weights != (None, None) and (all(parts) or training(root)))
        asked = root if named else _state_alone(first, second) if weights == (None, None) else None
        values = PlainValues.of(one.reader, two.reader, match, parts, asked)
        entries = [*values.part(asked).entries(), *arrays.entries]
        left_out = [BESIDE] if whole and any(_not_plain(side.reader, values.names) for side in (one, two)) else []
        arrays = arrays._replace(entries=entries, but=(*_not_compared(aside), *uncounted, *values.verdict(), *left_out))
        outside = of_both(a, beside(one, values.names), b, beside(two, values.names))
        has_state = any(training(one.prefix + name) for name in one.sources)
        is_unknown = STATE in aside and not match.known
        numbers = match.notes if has_state or is_unknown else ()
        notes = [*masters, *nested, *placed, *numbers, *outside, *values.notes(entries), *arrays.notes()]
        return arrays, [*notes, *_optimizers_beside(one, two), *_renamed(one, two), *_terms(arrays, first, second)]


def _state_alone(first: Reader, second: Reader) -> str | None:
    """Return the prefix of the state of an optimizer that is all of both files: its learning rate counts as arrays do.

    None where either file has other arrays, or the two have the state in different places.
    """
    states = [find_any(first), find_any(second)]
    tops = {one.top if one and reader.tensors.keys() <= state_names(reader, one) else None
            for reader, one in zip((first, second), states, strict=True)}  # fmt: skip
    return tops.pop() if len(tops) == 1 else None


def _not_plain(reader: Reader, compared: Set[str]) -> bool:
    """Tell whether a file has entries that are neither arrays nor among the plain values that were compared.

    Numbers and names of an optimizer's parameters do not count: they say whose its arrays are.
    """
    left = reader.skipped.without(compared)
    return any(left.counts[reason] > sum(map(is_list, names)) for reason, names in left.names.items())


def _may_be_aside(one: Arrays, two: Arrays, match: Match, whole: bool) -> Sequence[tuple[str, ...]]:
    """Return what may be set aside until names are alike: always the optimizers' state where nothing relates it.

    Raises: ConvertError where that is asked for: both files, or the parts that are compared, are nothing else, or all
      of the files is compared.
    """
    has_state = [training(one.prefix + name) for name in one.sources]
    if match.known or not any(has_state):
        return ASIDE[:1] if whole else ASIDE
    if whole or all(has_state):
        remedy = f"{document('training')}, Names for torch's parameters, shows how to add them"
        raise ConvertError(f"{one.reader.path} and {two.reader.path}: {match.notes[0]}: {remedy}")
    return [aside for aside in ASIDE if STATE in aside]


def _optimizers_beside(one: Arrays, two: Arrays) -> list[str]:
    """Say how to compare a state of paddle's that lies beside one file's weights with the one inside the other file."""
    paths = [side.reader.path for side in (one, two)]
    parts = [next(filter(None, map(training, side.reader.tensors)), "").rstrip("/") for side in (one, two)]
    lines = []
    for k, side in enumerate((one, two)):
        path, part = optimizer_file(side.reader), parts[1 - k]
        if path and part and not parts[k]:
            files = [shlex.quote(path if n == k else other) for n, other in enumerate(paths)]
            options = [f"--weights {shlex.quote(ROOT if n == k else part)}" for n in (0, 1)]
            command = " ".join([called("convert diff"), *files, *options])
            what = f"{path} lies beside {paths[k]}, by its name the state of the optimizer"
            lines.append(f"{what}: {command} compares it")
    return lines


def _renamed(one: Arrays, two: Arrays) -> list[str]:
    """Say how to compare arrays that may differ in their names alone, as of one model in two implementations."""
    alone = [
        sorted(sorted(tensor.shape) for name, tensor in side.sources.items() if name not in other.sources)
        for side, other in ((one, two), (two, one))
    ]
    if not alone[0] or alone[0] != alone[1]:
        return []
    what = "arrays that only one file has are of the same sizes in both: if they differ in their names alone"
    return [f"{what}, {option('table', 'FILE')} compares them by a Table of both names ({document('own-model')})"]


def _terms(arrays: Differences, *files: Reader) -> list[str]:
    """Say how to compare sums, where arrays differ of which a file's own Table counts the sum alone."""
    differing = {one["tensor"] for one in arrays.entries if one["kind"] == "value"}
    for file in files if differing else ():
        stored = record.read(file)
        table = recorded_table(stored)
        if table is None or stored.change:
            continue
        backwards = bool(stored.content["table"].get("reversed"))  # then the file is of the Table's left side
        lines = table if backwards else table.reverse()
        with contextlib.suppress(TableError):
            sums = lines.layout({name: tensor.shape for name, tensor in file.tensors.items()}).sums
            if terms := folding.listed(name for name in sums if name in differing):
                command = option("table", stored.file(file.path)) + f" {option('reverse')}" * (not backwards)
                return [f"the Table in the record of {file.path} adds {terms}: {command} compares the sums"]
    return []


def of_both(a: str, ours: list[str], b: str, theirs: list[str]) -> list[str]:
    """Return notes on two files, behind their names; one that holds of both once."""
    both = [note for note in ours if note in theirs]
    own = [f"{path}: {note}" for path, notes in ((a, ours), (b, theirs)) for note in notes if note not in both]
    return [*own, *(f"both files: {note}" for note in both)]


def _without_masters(one: Arrays, two: Arrays) -> tuple[Arrays, Arrays, list[str]]:
    """Name moments of paddle's float32 masters as those of weights, where the other file has no such master.

    Returns: both files, and a note where names are read otherwise.
    """
    sides, notes = [], list[str]()
    for side, other in ((one, two), (two, one)):
        plain = {name: name if name in other.sources else name.replace(OF_MASTER, "_") for name in side.sources}
        names = {name: new if new in other.sources else name for name, new in plain.items()}
        if renamed := [name for name, new in names.items() if name != new]:
            what = f"compared {count(len(renamed), 'array')} of float32 masters with those of weights"
            notes.append(f"{side.reader.path}: {what}: {renamed[0]} is {names[renamed[0]]} in the other file")
        sources = {names[name]: tensor for name, tensor in side.sources.items()}
        sides.append(replace(side, sources=sources, steps=copied(sources)) if renamed else side)
    return sides[0], sides[1], notes


def _nested_alike(one: Arrays, two: Arrays) -> tuple[Arrays, Arrays, list[str]]:
    """Name the states of two optimizers alike that differ in nothing but their positions in optax.chain.

    Returns: both files and a note, or the files as they are where names agree, or differ otherwise.
    """
    plain = _without_chain(one), _without_chain(two)
    state, other = ({name for name in side.sources if training(side.prefix + name)} for side in plain)
    if state != other:
        return one, two, []
    ours, theirs = (
        dict(zip(new.sources, old.sources, strict=True)) for new, old in zip(plain, (one, two), strict=True)
    )
    first = next((name for name in ours if name in state and ours[name] != theirs[name]), None)
    if first is None:
        return one, two, []
    where = f"{one.prefix}{ours[first]} in A is {two.prefix}{theirs[first]} in B"
    return *plain, [f"the two files nest the optimizer's state otherwise, and it is compared: {where}"]


def _without_chain(side: Arrays) -> Arrays:
    """Name the state of an optimizer without the positions in optax.chain that all of it shares: opt_state/1/0/mu/x is
    opt_state/mu/x.
    """
    inside: dict[str, list[str]] = {}
    for name in side.sources:
        container = "" if training(side.prefix) else training(name)
        if training(side.prefix) or container.endswith("/"):
            inside.setdefault(container, []).append(name)
    names = {name: name for name in side.sources}
    for container, some in inside.items():
        levels = [name.removeprefix(container).split("/") for name in some]
        above = zip(*(level[:-1] for level in levels), strict=False)
        depth = len(list(takewhile(lambda ones: ones[0].isdecimal() and len(set(ones)) == 1, above)))
        names |= {name: container + "/".join(level[depth:]) for name, level in zip(some, levels, strict=True)}
    sources = {names[name]: tensor for name, tensor in side.sources.items()}
    return replace(side, sources=sources, steps=copied(sources))


def _by_parameter(side: Arrays, optimizer: Numbered) -> Arrays:
    """Name the state of an optimizer of torch by its parameters, in place of their numbers."""
    sources, states = dict[str, Tensor](), f"{optimizer.root}state/"
    for name, tensor in side.sources.items():
        number, slash, slot = (side.prefix + name).removeprefix(states).partition("/")
        if slash and (side.prefix + name).startswith(states):
            name = f"{states}{optimizer.names.get(number, number)}/{slot}".removeprefix(side.prefix)
        sources[name] = tensor
    return replace(side, sources=sources, steps=copied(sources))


def _placed_alike(one: Arrays, two: Arrays, whole: bool) -> tuple[Arrays, Arrays, list[str], list[str]]:
    """Name the weights in B and the average of them as in A, where their places have other names.

    How often it was averaged is set aside where one file alone says it, unless the whole files are compared: at a count
    of 0 the next average copies the weights.
    Returns: both files, notes, and what is not compared in words of the verdict.
    """
    weights, averages, alone = places.matched(one.sources, two.sources, whole)
    names = weights | averages
    if not names:
        return one, two, [], []
    notes = []
    for of, pairs in (("the weights", weights), ("an average of the weights", averages)):
        for old, new in [(old, new) for old, new in pairs.items() if old != new][:1]:
            where = f"{one.prefix}{new} in A is {two.prefix}{old} in B"
            notes.append(f"the two files name the place of {of} otherwise, and it is compared: {where}")
    alone = set() if whole else alone
    notes += [f"set aside {name}, as one file alone says how often it was averaged" for name in alone]
    a = {name: tensor for name, tensor in one.sources.items() if name not in alone}
    b = {names.get(name, name): tensor for name, tensor in two.sources.items() if name not in alone}
    uncounted = [places.UNCOUNTED] if alone else []
    return replace(one, sources=a, steps=copied(a)), replace(two, sources=b, steps=copied(b)), notes, uncounted


def _check_one_library(one: Arrays, two: Arrays) -> None:
    """Check that what is compared is no state of an optimizer of one library and one of another.

    Raises: ConvertError with the remedy.
    """
    libraries = [state_of(side.reader, side.prefix) for side in (one, two)]
    if all(libraries) and libraries[0] != libraries[1]:
        what = f"the optimizer's state is {libraries[0]}'s in one file, {libraries[1]}'s in the other"
        remedy = "convert one with its weights by --with-optimizer to the other's framework, and compare that"
        raise ConvertError(f"{one.reader.path} and {two.reader.path}: {what}: {remedy}")


def _nested_otherwise(one: Arrays, two: Arrays, match: Match) -> ConvertError:
    if match.a and match.b:
        what = "most names of their optimizers' parameters are in one file alone"
        remedy = "if both are of one model, convert one to the other's dialect by --with-optimizer, and compare that"
        return ConvertError(f"{one.reader.path} and {two.reader.path}: {what}: {remedy}")
    shown = [folding.listed([one.prefix + name for name in one.sources][:SHOWN]) for one in (one, two)]
    what = "the two files nest the optimizer's state otherwise, or it is of other optimizers"
    return ConvertError(f"{one.reader.path} and {two.reader.path}: {what}", [f"A: {shown[0]}", f"B: {shown[1]}"])


def _like(side: Arrays, reader: Reader, other: Arrays) -> Arrays:
    """Return the one part of a file that has the other file's names, where that is what is meant, or the whole file."""
    from .strangers import places

    if len(side.sources.keys() & other.sources.keys()) * 2 > min(len(side.sources), len(other.sources)):
        return side
    prefixes = places(side.sources, other.sources)
    if len(prefixes) != 1:
        return side
    part_of = as_it_is(reader, prefixes[0])
    alone = all(name.startswith(part_of.prefix) for name in reader.tensors)  # else what is set aside says it
    notes = [f"took the arrays under {part_of.prefix!r}"] if alone else []
    return replace(part_of, notes=(*part_of.notes, *notes))


def _are_alike(one: Arrays, two: Arrays, whole: bool) -> bool:
    """Tell whether over half of the names of one of two files are in the other, and all names of training state.

    Args:
      whole: whether all of the files is compared: training state that one alone has is a difference.
    """
    both = one.sources.keys() & two.sources.keys()
    mostly = 2 * len(both) > min(len(one.sources), len(two.sources))
    if whole:
        return mostly
    return mostly and _found(one, STATE).keys() == _found(two, STATE).keys()


def _found(side: Arrays, what: str) -> dict[str, str]:
    """Return {name: its container} of a file's training state or copies, by names; {} of a file of nothing else."""
    place = PLACE[what]
    containers = {name: container for name in side.sources if (container := place(name))}
    return containers if len(containers) < len(side.sources) and not place(side.prefix) else {}


def _without(side: Arrays, aside: Sequence[str]) -> Arrays:
    """Set aside what two files name otherwise, as where optimizers are nested otherwise."""
    for what in aside:
        containers = _found(side, what)
        sources = {name: tensor for name, tensor in side.sources.items() if name not in containers}
        listed = folding.listed(by_container(containers))
        note = [f"set aside {listed}, {what} of which not all names are in both files"] if containers else []
        side = replace(
            side, sources=sources, steps=[step for step in side.steps if step[0].name in sources],
            taken=side.taken.union(side.sources[name].name for name in containers), notes=(*side.notes, *note),
        )  # fmt: skip
    return side


def _not_compared(aside: Sequence[str]) -> list[str]:
    """Say in words of the verdict what is set aside."""
    are = "is" if len(aside) == 1 else "are"
    return [f"{' and '.join(aside)}, which {are} not compared"] if aside else []


def beside(side: Arrays, compared: Set[str] = frozenset()) -> list[str]:
    """Name what of a file is not compared: arrays outside the part that is taken, and what is no array.

    Args:
      compared: names of what is no array and was compared.
    """
    skipped = side.reader.skipped.without(compared)
    outside = [name for name in side.reader.tensors if not name.startswith(side.prefix) and name not in side.taken]
    listed = folding.listed(by_container(outside))
    took = [f"took the arrays under {side.prefix!r} and set aside {listed}"] if outside else []
    others = folding.skipped(skipped.without(within(skipped.values, outside)))
    return [*side.notes, *took, *(f"set aside {line}" for line in others)]


@dataclass(frozen=True)
class Arrays:
    """A checkpoint as it is: each array under its own name.

    Args:
      prefix: of the names in the file of the part that is taken; "" for all of it.
      taken: names of arrays that are set aside. notes: on those, and on names that are read otherwise.
    """

    reader: Reader
    sources: dict[str, Tensor]
    steps: list[Step]
    checks: list[Promise]
    prefix: str = ""
    taken: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def as_it_is(stored: Reader, weights: str | None = None, table: Table | None = None) -> Arrays:
    """Return a checkpoint's arrays, or those of a part of it, as steps that copy them.

    Args:
      table: whose left side the file is; arrays are named as there, and training state is set aside.
    """
    reader = out_of_modules(stored)
    own = part(reader, weights) if table is None else without_training(matching(reader, weights, table), table)
    sources, notes = own.sources, (*own.reader.remarks, *own.notes)
    return Arrays(own.reader, sources, copied(sources), [], own.prefix, own.taken, notes)


def copied(sources: Mapping[str, Tensor]) -> list[Step]:
    """Return the steps that copy arrays under the names that they have here."""
    steps: list[Step] = []
    for name, tensor in sources.items():
        whole = (slice(None),) * len(tensor.shape)
        copied = Move(name, tensor.shape, whole, tuple(range(len(whole))), tensor.shape, whole)
        steps.append((tensor._replace(name=name), [copied]))
    return steps
