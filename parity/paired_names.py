"""Name the modules of two models alike by the Table between them, so that `parity.compare` compares each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convert.errors import UsageError
from specs.lines import TableError
from specs.sizes import SizeError
from specs.table import Table

from .own import PairedNames, recognise

Shapes = Mapping[str, tuple[int, ...]]


def paired(given: Any, models: Mapping[str, Any]) -> dict[str, PairedNames]:
    """Return names for `parity.compare`: {label: {path of a module: name of its pair}}, by the left model's path.

    Modules are a pair if all arrays of each, with those of the modules inside it, go to the other: a Linear of queries,
    keys and values is no pair of an nn.MultiheadAttention, which also holds the output projection. The arrays have as
    many axes, as axes of heads in one model alone are in the results as well.

    Args:
      given: a Table, or what parity.derive returned.
      models: two models that are no ports, the left one of the Table first.
    Raises: UsageError for other models, and for a Table that does not fit them.
    """
    if len(models) != 2:
        raise UsageError(f"a Table names the modules of two models, not of {len(models)}")
    table: Table = getattr(given, "table", given)
    arrays, homes = [_shapes(model) for model in models.values()], [recognise(model)[0] for model in models.values()]
    try:
        try:
            layout = table.layout(arrays[0], arrays[1])
        except SizeError as error:  # which array becomes which is the same whatever the lengths, and 1 divides any
            layout = table.layout(arrays[0], arrays[1], dict.fromkeys(error.enough, 1))
    except TableError as error:
        what = f"names: the Table does not fit {' and '.join(models)}, of which the first is its left side"
        raise UsageError(f"{what}: {error.message}", error.problems) from error
    lefts, rights = dict[str, set[str]](), dict[str, set[str]]()  # path of a module -> those that its arrays go with
    unlike = set[tuple[str, str]]()
    for entry in layout.entries:
        for source in entry.sources:
            left, right = _module(homes[0])(source), _module(homes[1])(entry.name)
            lefts.setdefault(left, set()).add(right)
            rights.setdefault(right, set()).add(left)
            if len(arrays[0][source]) != len(entry.shape):
                unlike.add((left, right))
    pairs = [(one, *of) for one, of in lefts.items() if len(of) == 1 and len(rights[next(iter(of))]) == 1]
    pairs = [pair for pair in pairs if all(pair) and pair not in unlike]
    pairs = [(one, other) for one, other in pairs if _inside(lefts, one, other) and _inside(rights, other, one)]
    if not pairs:
        raise UsageError("names: the Table pairs no module of one model with one of the other: leave names out")
    sides = {one: one for one, _ in pairs}, {other: one for one, other in pairs}
    return {label: PairedNames(side) for label, side in zip(models, sides, strict=True)}


def _inside(partners: Mapping[str, set[str]], path: str, other: str) -> bool:
    """Tell whether the partners of all modules inside this one are inside that one."""
    inner = (of for module, of in partners.items() if module.startswith(f"{path}."))
    return all(partner.startswith(f"{other}.") for of in inner for partner in of)


def is_paired(names: Any) -> bool:
    """Tell whether this is a Table, or what parity.derive returned."""
    return isinstance(getattr(names, "table", names), Table)


def _shapes(model: Any) -> Shapes:
    """Return the shapes of a model's arrays under the names that a Table has for them."""
    from .derive.trace.call import call_of
    from .derive.trace.sides import side

    of = side(model, call_of(()))
    tied = {name: of.parameters[first] for name, first in of.ties.items()}
    return {name: tuple(array.shape) for name, array in {**of.parameters, **tied, **of.others}.items()}


def _module(home: str) -> Callable[[str], str]:
    """Return what tells the path of the module that an array belongs to, as the framework's models list it."""
    if home == "function":
        return lambda name: ""
    if home in ("torch", "paddle"):
        return lambda name: name.rpartition(".")[0]

    from ports.runners.jax_trees import dotted  # the model has imported jax

    return lambda name: dotted(name.split("/")[1 if home == "linen" else 0 : -1])
