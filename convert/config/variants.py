"""Find the official variant of a checkpoint, what a dialect's own code cannot hold, and records that fit."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import specs
from convert import folding
from convert.documents import document
from convert.errors import command_or_call, is_saving, subject
from convert.reading.readings import Reading
from convert.reading.recognise import dialects
from specs import config as configs
from specs.layer import Layer, Sizes
from specs.numbers import exact
from specs.spec import ADAPTED, Spec

from .conventions import computing, disputed, same
from .inference import unmatched
from .settings import Settings, spelled


def variant_of(architecture: str, config: Any) -> str | None:
    """Return the official variant with these arrays that agrees best in what no array shows; None if there is none."""
    return next(iter(variants_of(architecture, config)), None)


def variants_of(architecture: str, config: Any) -> list[str]:
    """Return the official variants with these arrays, classes and input channels aside.

    Those come first that agree in more of the fields that no array shows.
    """
    spec, fitting = specs.get(architecture), list[str]()
    for name, variant in spec.variants.items():
        with contextlib.suppress(ValueError):
            if alike(spec, config, _adapted(variant, config)):
                fitting.append(str(name))
    unlike = {name: _unlike(spec.variants[name], config, computing(spec)) for name in fitting}
    return sorted(fitting, key=lambda name: len(unlike[name]))


def variant_names(architecture: str, config: Any, left_open: Collection[str]) -> str | None:
    """Return the official variants that a Config may be, as text: they have its arrays, and differ in open fields."""
    names, known = variants_of(architecture, config), specs.get(architecture).variants
    return " or ".join(n for n in names if n == names[0] or _unlike(known[n], known[names[0]], left_open)) or None


def _unlike(one: Any, other: Any, names: Iterable[str]) -> list[str]:
    """Return which of these fields differ between two Configs."""
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def from_variant(spec: Spec, stated: Mapping[str, Any], shown: Sizes) -> tuple[str, dict[str, Any]]:
    """Return the official variant that has the arrays of this file, and its fields that nothing else determines.

    Equal sizes make these fields likely; they state nothing. Of several variants the name says each, "A or B", and the
    fields are those in which they agree: those whose arrays all have the sizes here, if there are any. What one
    dialect's code fixes and another's fixes otherwise is no variant's.
    """
    left_open = disputed(spec) | stated.keys()
    likely, fitting = (list[tuple[str, dict[str, Any]]]() for _ in range(2))
    for name, variant in spec.variants.items():
        with contextlib.suppress(ValueError, TypeError):
            candidate = replace(variant, **{k: configs.tuples(v) for k, v in stated.items()})
            if alike(spec, candidate, _adapted(variant, candidate)):
                missing = {k: v for k, v in configs.as_dict(variant).items() if k not in left_open and v is not None}
                (fitting if _has_sizes(spec, candidate, shown) else likely).append((str(name), missing))
    several = fitting or likely
    agreed = {k: v for k, v in several[0][1].items() if all(v == o.get(k) for _, o in several)} if several else {}
    return " or ".join(name for name, _ in several), agreed


def _has_sizes(spec: Spec, config: Any, shown: Sizes) -> bool:
    """Tell whether a file has every trained array of a Config, in its sizes."""
    for layer in spec.layers(config):
        for parameter in layer.parameters():
            if parameter.trained and parameter.name not in shown:
                return False
            for axis, size in zip(parameter.axes, parameter.shape, strict=True) if parameter.trained else ():
                with contextlib.suppress(KeyError):  # an axis whose length names and shapes do not determine
                    if shown[parameter.name, axis] != size:
                        return False
    return True


def _adapted(variant: Any, config: Any) -> Any:
    """Return a variant with another Config's fields that may differ within a variant."""
    return replace(variant, **{name: getattr(config, name) for name in ADAPTED})


def alike(spec: Spec, one: Any, other: Any) -> bool:
    """Tell whether two Configs make the same arrays; those of different networks mostly differ in the first layer."""

    def arrays(layer: Layer | None) -> list[tuple[str, tuple[int, ...]]]:
        return [(p.name, p.shape) for p in layer.parameters()] if layer else []

    if one == other:
        return True
    return all(arrays(a) == arrays(b) for a, b in zip_longest(spec.layers(one), spec.layers(other)))


def restrictions(architecture: str, config: Any, dialect: str) -> dict[str, tuple[Any, Any]]:
    """Return {field: (what a dialect's own code hard-codes, what this Config has)} where the two differ."""
    spec, unfit = specs.get(architecture), {}
    for name, value in dialects(architecture)[dialect].requires.items():
        fits = same(getattr(config, name), value)
        if not fits and name not in computing(spec):
            with contextlib.suppress(ValueError):  # a size may be stated in another way, as tokens are by an image
                fits = alike(spec, config, replace(config, **{name: value}))
        if not fits:
            unfit[name] = (value, getattr(config, name))
    return unfit


def clashes(
    spec: Spec,
    config: Any,
    stated: Mapping[str, Any],
    shown: Mapping[str, Any],
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> list[str]:
    """List the fields in which a Config that was stated is of other arrays than the file's.

    Args:
      settings: which state the fields; None of a record's.
      reading: of the file, where names of arrays that the Config has and the file lacks are to come first.
    """
    other = {k: shown[k] for k in stated if k in shown and configs.tuples(stated[k]) != configs.tuples(shown[k])}
    if not other:
        return []
    with contextlib.suppress(ValueError):  # a token grid says more than the token count that shapes show
        if alike(spec, replace(config, **{k: configs.tuples(v) for k, v in shown.items()}), config):
            return []

    def write(name: str, value: Any) -> str:
        return exact(configs.as_hxw(spec.config, name, value))

    from_file = [k for k in other if settings and settings.of_file(k)]
    is_another = len(from_file) > 1 and any(k not in ADAPTED for k in from_file)
    missing, unused = unmatched(reading, config) if reading else ([], [])
    has_renamed = bool(missing and unused)
    lines = [
        f"{k}={write(k, stated[k])} {settings.how(k) if settings else 'is recorded'}, "
        f"but the {subject()} has {k}={write(k, value)}"
        f"{'' if has_renamed or (is_another and k in from_file) else _remedy(settings, k, value, bool(missing))}"
        for k, value in other.items()
    ]
    if is_another:
        return [*lines, "this configuration is of another model"]
    renaming = ["if an unexpected array is one of those that are missing, rename it"] if has_renamed else []
    return [*folding.missing(missing, unused), *folding.unexpected(unused if missing else []), *lines, *renaming]


def _remedy(settings: Settings | None, name: str, value: Any, is_less: bool) -> str:
    """Name the option that goes above a configuration file, or how to give a model another head; "" for neither.

    Args:
      is_less: whether the file has fewer arrays than are stated: it may have lost some.
    """
    if not settings or is_saving():
        return ""
    if not settings.of_file(name):
        how = f": {document('quick-start')}, Another number of classes, shows how to give a model another head"
        return how if name == "classes" and name not in settings.others else ""
    built = "if the model was built so, " * is_less
    above = "which goes above the file that --config names"
    return f": {built}{command_or_call(f'add {spelled(name, value)}, {above}', f'add {name}={value!r} to ports.load')}"


def misfit(spec: Spec, recorded: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Return how a recorded Config has other arrays than a file, classes and input channels aside; "" if it fits."""
    own = {name: value for name, value in recorded.items() if name not in ADAPTED}
    try:
        config = configs.build(spec.config, {**shown, **own})
    except ValueError as error:
        return str(error)
    return "; ".join(clashes(spec, config, own, dict(shown)))
