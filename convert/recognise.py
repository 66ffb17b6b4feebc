"""What a checkpoint is, read off its names: which part holds the model, which architecture, in whose dialect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import specs
from specs.kinds import FRAMEWORKS
from specs.notation import Axes, Path
from specs.spec import Dialect, Spec

from .errors import ConvertError, UsageError
from .files.base import Reader, Tensor, shown
from .kinds import PORTS, extra, template
from .parts import MAX_ARRAYS, Ambiguous, Names, choose, label, normal
from .tables import check, examples


class Match(NamedTuple):
    """A reading of a file: under `prefix` lies a model of `architecture`, named as in `dialect`.

    Args:
      tensors: inner name -> tensor in the file.
      score: share of the names that fit.
    """

    architecture: str
    dialect: str
    prefix: str
    tensors: Mapping[str, Tensor]
    score: float

    @property
    def which(self) -> tuple[str, str]:
        return self.architecture, self.dialect

    @property
    def spec(self) -> Spec:
        return specs.get(self.architecture)


def dialects(architecture: str) -> dict[str, Dialect]:
    """Return every dialect of an architecture, the ports' own first. Raises: ConvertError for a table with a fault."""
    check(architecture)
    return {**PORTS, **specs.get(architecture).dialects}


def all_dialects() -> dict[str, list[str]]:
    """{dialect: architectures that have it}."""
    found: dict[str, list[str]] = {}
    for architecture in specs.names():
        for name in dialects(architecture):
            found.setdefault(name, []).append(architecture)
    return found


def known_dialect(name: str) -> str:
    """The name. Raises: UsageError with the nearest one."""
    from specs.config import unknown

    if name not in PORTS and name not in all_dialects():
        raise UsageError(f"{unknown(name, all_dialects())} (dialects: {', '.join(all_dialects())})")
    return name


def recognise(
    reader: Reader, dialect: str | None, hints: Mapping[str, Any], weights: str | None = None
) -> Iterator[list[Match]]:
    """Yield the best readings of a file by its names, in groups that the caller tries in turn.

    First those of the dialect in its record, or else of the framework whose format it is, then the others: frameworks
    may name arrays alike, and then only shapes decide. Where no shape can, all are one group.

    Args:
      dialect: restrict to it; None tries all.
      hints: "architecture" and "dialect" out of our own metadata.
      weights: the part that holds the model, e.g. "state_dict_ema"; "/" is the root of the file.
    Raises: ConvertError where nothing fits, or where the record says that it is another dialect; Ambiguous where
      several parts of the file fit.
    """
    if dialect is not None and hints.get("dialect", dialect) != dialect:
        problem = f"its record says that it holds {shown(str(hints['dialect']))} arrays, not {dialect} ones"
        raise ConvertError(f"{reader.path}: {problem}: name that dialect, or remove the record if it is wrong")
    names = Names(reader.tensors, weights)
    tried: set[tuple[str, str]] = set()
    for candidates in _likely(reader, dialect, hints):  # most files need no other spec: none is imported
        matches = _matches(reader, names, candidates)
        if matches and matches[0].score == 1:
            yield from _groups(reader, matches, hints, tried)
    refuse_known_misfits(reader)
    matches = _matches(reader, names, _candidates(specs.names(), dialect))
    if not matches:
        raise ConvertError(_nothing_fits(reader, names, dialect, weights) + _unknown_page(hints))
    yield from _groups(reader, matches, hints, tried)


def _likely(reader: Reader, dialect: str | None, hints: Mapping[str, Any]) -> Iterator[list[tuple[str, str]]]:
    """Yield the dialects to try before all others, in growing lists."""
    guess = hints.get("architecture", specs.likely(reader.tensors))
    if guess not in specs.names():
        return
    every = _candidates([guess], dialect)
    if not _square(reader):
        hinted = guess, hints.get("dialect")
        yield [c for c in every if c == hinted or _framework(*c) == USUAL.get(reader.format)]
    yield every


def _matches(reader: Reader, names: Names, candidates: list[tuple[str, str]]) -> list[Match]:
    """The strongest readings among these dialects. Raises: Ambiguous."""
    chosen = choose(reader.path, names.readings({which: spellings(*which) for which in candidates}))
    return [Match(*r.which, label(r.place), r.tensors, r.score) for r in chosen]


def _groups(
    reader: Reader, matches: list[Match], hints: Mapping[str, Any], tried: set[tuple[str, str]]
) -> Iterator[list[Match]]:
    """Yield matches that were not tried before: what the record says, or the format's usual framework first."""
    untried: dict[tuple[str, str], Match] = {}
    for match in matches:
        if match.which not in tried:
            untried.setdefault(match.which, match)
    tried.update(untried)
    if (hinted := (hints.get("architecture"), hints.get("dialect"))) in untried:
        yield [untried[hinted]]
        return
    square, usual = _square(reader), USUAL.get(reader.format)
    first = [match for which, match in untried.items() if _framework(*which) == usual and not square]
    rest = [match for match in untried.values() if match not in first]
    yield from filter(None, (first, rest))


def nearest(reader: Reader, weights: str | None = None) -> Match | None:
    """The reading that knows most of a file's names, however few; None where none knows any."""
    names = Names(reader.tensors, weights)
    readings = names.readings({which: spellings(*which) for which in _candidates(specs.names(), None)})
    best = max(readings, key=lambda reading: reading.strength, default=None)
    return best and Match(*best.which, label(best.place), best.tensors, best.score)


def _square(reader: Reader) -> bool:
    """Whether transposing its matrices would change no shape of a file."""
    return all(len(set(tensor.shape)) == 1 for tensor in reader.tensors.values() if len(tensor.shape) == 2)


# The framework whose users write a format.
USUAL = {"msgpack": "flax", "npz": "flax", "orbax": "flax", "torch": "torch", "dcp": "torch", "safetensors": "torch",
         "pdparams": "paddle"}  # fmt: skip


def _framework(architecture: str, dialect: str) -> str:
    return dialects(architecture)[dialect].framework


def _candidates(architectures: list[str], dialect: str | None) -> list[tuple[str, str]]:
    """(architecture, dialect) that a file may be of."""
    return [(a, name) for a in architectures for name in dialects(a) if dialect in (None, name)]


def refuse_known_misfits(reader: Reader) -> None:
    """Raises: ConvertError for families of files that look like a known one and are not."""
    for architecture in specs.names():
        for fragments, reason in specs.get(architecture).refused:
            if all(any(fragment in name for name in reader.tensors) for fragment in fragments):
                raise ConvertError(f"{reader.path}: {reason}")


def _unknown_page(hints: Mapping[str, Any]) -> str:
    """Name the remedy for a record of an architecture that is not here: only the user may have its page loaded."""
    recorded = hints.get("architecture")
    if recorded is None or recorded in specs.names():
        return ""
    return f"; its record names the architecture {shown(str(recorded))}: name that one's page with --spec PAGE"


def _nothing_fits(reader: Reader, names: Names, dialect: str | None, weights: str | None) -> str:
    if weights is not None and not names.forms:
        tops = sorted({name.split("/")[0] for name in reader.tensors if "/" in name})
        return f"{reader.path}: nothing known lies under {weights!r} (it holds {', '.join(tops) or 'no nesting'})"
    if len(names.below(names.root)) > MAX_ARRAYS:
        count = f"holds {len(reader.tensors):,} arrays"
        return f"{reader.path}: {count}: no model known here has over {MAX_ARRAYS:,}"
    with contextlib.suppress(Ambiguous):
        if dialect and (others := _matches(reader, names, _candidates(specs.names(), None))):
            best = f"{others[0].dialect} ({others[0].architecture}): {others[0].dialect}2..."
            return f"{reader.path}: holds no {dialect} names, but those of {best}"
    what = f"not those of dialect {dialect}" if dialect else "those of no architecture known here"
    first = ", ".join(list(reader.tensors)[:3])
    remedy = "" if dialect else " (python -m ports lists them)"
    return f"{reader.path}: a {reader.format} file, but its names are {what}{remedy}; its first names are {first}"


class Line(NamedTuple):
    """One kind of array in a dialect, for any numbers: what `template` says, stripped of an example's numbers."""

    ours: Path
    theirs: Path
    axes: tuple[Axes, Axes]
    hub: tuple[str, ...]  # the kind's own axes


@cache
def lines(architecture: str, dialect: str) -> dict[str, list[Line]]:
    """{normal(their name): lines}, learnt from the layers of the tiny twins, which use every option."""
    table = dialects(architecture)[dialect]
    index: dict[str, list[Line]] = {}
    for parameter, _ in examples(architecture):
        placed = template(parameter, table, dialect in FRAMEWORKS)
        if placed and placed[0].axes:
            rule = placed[0]
            line = Line(rule.ours, rule.theirs, placed[0].axes, parameter.axes)
            index.setdefault(normal(Path.HOLE.sub("0", rule.theirs.text)), []).append(line)
    return index


@cache
def spellings(architecture: str, dialect: str) -> frozenset[str]:
    """Every name that a dialect's file may hold, numbers aside."""
    table = dialects(architecture)[dialect]
    return frozenset(lines(architecture, dialect)) | {
        normal(n) for layer in table.extras for n, _ in extra(layer, table)
    }
