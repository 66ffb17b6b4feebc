"""Say what arrays are called in each framework: reports use one name for all of them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from functools import cache

import specs
from parity.given.own import OWN
from parity.given.quoting import quoted
from ports.runners.inputs import INPUT, OUTPUT
from specs.kinds import FRAMEWORKS, KINDS, PORTED
from specs.layer import parameters
from specs.notation.paths import normal
from specs.words import in_a_row

from .result import Result

ARRAYS = ("gradients", "train")  # checks that compare arrays of the models, and not what layers return


@cache
def _leaves(framework: str) -> dict[str, str]:
    """Return a framework's names of the arrays of layers, by the common name: {"kernel": "weight"}."""
    places = {leaf: place for kind in KINDS.values() for leaf, place in kind.leaves[PORTED[framework]].items()}
    return {leaf: place.name for leaf, place in places.items() if leaf and place is not None}


def elsewhere(leaf: str, frameworks: Iterable[str]) -> str:
    """Say what a layer's array is called where it has another name: "weight in torch and paddle"; "" if nowhere."""
    names: dict[str, list[str]] = {}
    for framework in frameworks:
        name = _leaves(framework).get(leaf, leaf)
        if name != leaf:
            names.setdefault(name, []).append(framework)
    return in_a_row(f"{name} in {in_a_row(homes)}" for name, homes in names.items())


def called_elsewhere(name: str, architecture: str, frameworks: Iterable[str]) -> str:
    """Say what an array of an architecture is called elsewhere; "" for an `array` of its page, which has one name."""
    return "" if _is_alone(name, _alone(architecture)) else elsewhere(name.rpartition(".")[2], frameworks)


def _alone(architecture: str) -> set[str]:
    """Return patterns of the names of all arrays of an architecture that belong to no layer with leaves."""
    if architecture not in specs.names():
        return set()
    spec = specs.get(architecture)
    every = (parameter for config in spec.tiny.values() for parameter in parameters(list(spec.layers(config))))
    return {normal(parameter.name) for parameter in every if not parameter.leaf}


def _is_alone(name: str, alone: Container[str]) -> bool:
    """Tell whether an array of a report, "adam: norm.scale", is one of those."""
    return normal(name.rpartition(": ")[2]) in alone


def frameworks_of(results: Iterable[Result]) -> list[str]:
    """Return the frameworks that the sides are labelled by; all where a label is none."""
    labels = dict.fromkeys(side.partition("@")[0] for r in results for side in r.sides)
    return list(labels) if labels and set(labels) <= {*FRAMEWORKS} else list(FRAMEWORKS)


def with_own(name: str, *results: Result) -> str:
    """Add to the name of an array of known layers what it is called elsewhere: "norm.scale (weight in torch)"."""
    leaf = name.rpartition(".")[2]
    if results[0].check not in ARRAYS:
        return name
    if results[0].architecture != OWN:
        own = called_elsewhere(name, results[0].architecture, frameworks_of(results))
        return f"{name} ({own})" if own else name
    known, leaves = own_name(name, *results), _leaves_of(name, results)
    others = [f"{own} in {quoted(side)}" for side, own in leaves.items() if own != leaf and known == name]
    return f"{known} ({in_a_row(others)})" if others else known


def own_name(name: str, *results: Result) -> str:
    """Return the name of an array that all of the user's models share, "norm.weight" for "norm.scale" of torch alone.

    Where they share none, it is the name that reports use.
    """
    leaves = {*_leaves_of(name, results).values()}
    return ".".join([*name.split(".")[:-1], *leaves]) if len(leaves) == 1 else name


def _leaves_of(name: str, results: Sequence[Result]) -> dict[str, str]:
    """Return the last part of an array's name in each of the user's models, by label; {} of known architectures."""
    array, leaf = name.rpartition(": ")[2], name.rpartition(".")[2]
    of_arrays = [r for r in results if r.architecture == OWN and r.check in ARRAYS]
    return {side: r.spelled.get(side, {}).get(array, leaf) for r in of_arrays for side in r.sides}


def whose(results: Sequence[Result]) -> str:
    """Say whose names the arrays of a report bear, with the translation of those that occur; "" if none is compared."""
    arrays = [r for r in results if r.check in ARRAYS and r.curve and r.architecture != OWN]
    if not arrays:
        return ""
    alone = {architecture: _alone(architecture) for architecture in {r.architecture for r in arrays}}
    of_layers = (name for r in arrays for name, _, _ in r.curve if not _is_alone(name, alone[r.architecture]))
    leaves = dict.fromkeys(name.rpartition(".")[2] for name in of_layers)
    alike: dict[str, list[str]] = {}
    for leaf in leaves:
        if own := elsewhere(leaf, frameworks_of(arrays)):
            alike.setdefault(own, []).append(leaf)
    texts = [f"{in_a_row(some)} {'are' if some[1:] else 'is'} called {own}" for own, some in alike.items()]
    return f"Arrays bear one name for all frameworks: {'; '.join(texts)}." if texts else ""


def of_gradients(results: Iterable[Result]) -> str:
    """Say what arrays of gradients are that no layer names: values, and gradients of inputs; "" if none is compared."""
    taps = list(dict.fromkeys(tap for r in results if r.check == "gradients" for tap, _, _ in r.curve))
    values, names = (
        [tap for tap in taps if re.fullmatch(f"({kind})(:.*)?", tap)] for kind in (f"loss|{OUTPUT}", INPUT)
    )
    alone = "are values" if values[1:] else "is a value"
    kind, s = ("are the gradients", "s") if names[1:] else ("is the gradient", "")
    parts = [f"{in_a_row(values)} {alone} and no gradient{'s' * len(values[1:2])}"] if values else []
    parts += [f"{in_a_row(names)} {kind} with respect to the model's input{s}"] if names else []
    return f"In gradients, {', and '.join(parts)}." if parts else ""
