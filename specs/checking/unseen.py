"""Find faults that no Config in `tiny` would show: each test runs on these twins alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import combinations
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from specs import config as configs
from specs.layer import parameters
from specs.notation.paths import pattern
from specs.numbers import exact
from specs.spec import Spec
from specs.words import first_few, in_a_row

from .asked import fields_shown

NAMED = 3  # axes that are named; the others are counted
EPSILONS = {1e-5, 1e-6, 9.999999747378752e-06}  # defaults of norms: of torch, of flax, and of paddle in float32
ANY_NUMBER = "not None"  # the value of an optional field that is set, in `options`
TWIN = "give one Config in tiny another value"


def unseen(spec: Spec) -> list[str]:
    """Describe what the twins of a page do not show, with the remedy."""
    choices = [*_of_choices(spec)] or [*_of_combinations(spec)]
    return [*choices, *_of_epsilons(spec), *_of_numbers(spec), *_of_lengths(spec)]


def _of_choices(spec: Spec) -> Iterator[str]:
    """Describe the values of a field with a few that no Config in tiny has: no test would run them."""
    for name, hint in configs.types_of(spec.config).items():
        used = [getattr(config, name) for config in spec.tiny.values()]
        choices = (False, True) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        if left := [value for value in choices if value not in used]:
            yield f"tiny: no Config has {' or '.join(f'{name}={exact(value)}' for value in left)}"


def _of_numbers(spec: Spec) -> Iterator[str]:
    """Describe the integers that no array shows and that are the same in every Config: ports that ignore them agree."""
    stated = spec.unshown.union(*(dialect.conventions for dialect in spec.dialects.values()))
    for name in sorted(stated):
        values = {getattr(config, name) for config in spec.tiny.values()}
        if len(values) == 1 and type(value := values.pop()) is int:
            yield f"tiny: every Config has {name}={value}, as a port has that ignores it: {TWIN}"


def options(spec: Spec, config: Any) -> dict[str, Any]:
    """Return the flags and choices of a Config by field, with what its arrays show; those without effect are left out.

    Of an optional number, the choice is whether it is None.
    """
    shown = fields_shown(spec, list(spec.layers(config)))
    config = configs.build(spec.config, {**configs.as_dict(config), **shown})
    idle = spec.immaterial(config)
    chosen = dict[str, Any]()
    for name, hint in configs.types_of(spec.config).items():
        value = getattr(config, name)
        if name not in idle and (hint is bool or get_origin(hint) is Literal):
            chosen[name] = value
        elif name not in idle and NoneType in get_args(hint):
            chosen[name] = value if value is None or isinstance(value, str | bool) else ANY_NUMBER
    return chosen


def written(option: tuple[str, Any]) -> str:
    """Write an entry of `options`: "act=gelu", "deep not None"."""
    name, value = option
    return f"{name} {value}" if value == ANY_NUMBER else f"{name}={exact(value)}"


def uncovered(spec: Spec, by: Iterable[Any]) -> dict[str, list[str]]:
    """Return the options that a variant has together and no Config in `by`, with the names of such variants.

    Options that all of these Configs have too are not named.
    """
    known = [options(spec, config).items() for config in by]
    lacking = dict[str, list[str]]()
    for variant, config in spec.variants.items():
        own = options(spec, config).items()
        if not any(own <= each for each in known):
            differing = [option for option in own if not all(option in each for each in known)]
            lacking.setdefault(in_a_row(map(written, differing)), []).append(variant)
    return lacking


def _of_combinations(spec: Spec) -> Iterator[str]:
    """Describe options that a variant has together and no Config in tiny has: a port may fail at these alone."""
    for together, variants in uncovered(spec, spec.tiny.values()).items():
        yield f"tiny: no Config has {together}, as variant {in_a_row(map(repr, variants))}: add one"


def _of_epsilons(spec: Spec) -> Iterator[str]:
    """Describe epsilons that every Config in tiny has as a framework does: a port that forgets them would agree."""
    own = {spec.norms.get("eps"), *(field.name for field in fields(spec.config) if field.name.endswith("eps"))}
    for name in sorted(name for name in own if isinstance(name, str)):
        values = {getattr(config, name) for config in spec.tiny.values()}
        if len(values) == 1 and values <= EPSILONS:
            value = exact(values.pop())
            yield f"tiny: every Config has {name}={value}, a framework's default, as a port has that forgets it: {TWIN}"


def _of_lengths(spec: Spec) -> Iterator[str]:
    """Describe axes of an array that are of one length in every Config in tiny, and of several in a variant."""
    (known, apart), (_, of_variants) = (_axes(spec, configs.values()) for configs in (spec.tiny, spec.variants))
    same = [f"{one} and {other} of {name}" for name, one, other in known if (name, one, other) in of_variants - apart]
    if same:
        what = "are of one length in every Config, and of two in a variant, so that a transposed array would fit"
        yield f"tiny: {first_few(same, NAMED)} {what}: {TWIN}"


def _axes(spec: Spec, some: Iterable[Any]) -> tuple[dict[tuple[str, str, str], None], set[tuple[str, str, str]]]:
    """Return each pair of axes of an array, numbers of blocks aside, and those of two lengths in some Config."""
    known, apart = dict[tuple[str, str, str], None](), set[tuple[str, str, str]]()
    for parameter in (one for config in some for one in parameters(list(spec.layers(config)))):
        for (one, m), (other, n) in combinations(zip(parameter.axes, parameter.shape, strict=True), 2):
            pair = pattern(parameter.name), one, other
            known[pair] = None
            if m != n:
                apart.add(pair)
    return known, apart
