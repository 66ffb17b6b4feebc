"""Tell which arrays of a model are one parameter: tied ones, which an optimizer trains and a training averages once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from convert.plans.plan import Plan
from specs.applied.moves import Move

if TYPE_CHECKING:
    from convert.table.plan import TablePlan


def tied_names(plan: Plan | TablePlan) -> dict[str, frozenset[str]]:
    """Return {name of a source that is tied: all names of its parameter, this one too}."""
    tied: dict[str, frozenset[str]] = {}
    for one, other in _pairs(plan):
        names = tied.get(one, frozenset({one})) | tied.get(other, frozenset({other}))
        tied |= dict.fromkeys(names, names)
    return tied


def repeated(names: Sequence[str], tied: Mapping[str, frozenset[str]]) -> list[str]:
    """Return those of `names` that are not the first one of their parameter."""
    places = {name: place for place, name in enumerate(names)}
    return [name for name in names if any(places.get(one, len(names)) < places[name] for one in tied.get(name, ()))]


def _pairs(plan: Plan | TablePlan) -> Iterator[tuple[str, str]]:
    """Yield pairs of names that are one parameter: as the Table says, or by their place in the file."""
    for check in plan.checks:
        if check.other and _alike(check.parts) == _alike(check.others):
            yield check.name, check.other
    yield from plan.reader.ties(plan.sources)


def _alike(moves: Sequence[Move]) -> list[Move]:
    return [move._replace(source="") for move in moves]
