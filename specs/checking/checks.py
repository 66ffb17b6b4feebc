"""Check what a page's functions return, by its tiny twins: a fault is reported before any checkpoint is read."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, NamedTuple

from specs import config as configs
from specs import words
from specs.dialects import PORTS, shapes
from specs.init import INITS, SPREADS
from specs.kinds import ANY, GATES, KINDS, nnx_name
from specs.layer import Layer, count, parameters
from specs.notation.paths import normal
from specs.numbers import exact
from specs.raised import first_of, line_of
from specs.spec import Dialect, Spec, described
from specs.spec import __file__ as spec_file
from specs.words import in_a_row, unknown, with_article

from .asked import Unanswered, arrays_of, fields_shown
from .unseen import unseen

PATH = re.compile(r"[A-Za-z_]\w*(\.(\d+|[A-Za-z_]\w*))*")
FILLING = ("lecun_normal", "zeros", "ones")  # inits of a scale: the default of every kind, of which it begins at 1
FUNCTIONS = ("layers", "infer", "input_shape", "check_images", "immaterial")  # fields of Spec
NAMED = 3  # layers with the same fault that are named; the others are counted


class Fault(NamedTuple):
    """What is wrong in one Config, and with which of its layers; path "" for none."""

    text: str
    path: str = ""
    config: str = ""


def faults(spec: Spec) -> list[str]:
    """List everything that is wrong with a Spec whose fields have the right types."""
    raised: list[Fault] = []
    sound: dict[str, Any] = {}  # twins without a fault
    for what, configurations in (("tiny", spec.tiny), ("variants", spec.variants)):
        for name, config in configurations.items():
            try:
                some = list(_of_config(spec, config))
            except Exception as error:  # of the page's own code
                some = [Fault(_said(spec, error))]
            raised += [fault._replace(config=f"{what} {name!r}") for fault in some]
            if what == "tiny" and not some:
                sound[name] = config
    listed = list(_each_once(raised))
    listed += {name: fault for config in sound.values() for name, fault in _undeclared(spec, config)}.values()
    listed += [*_of_conventions(spec, sound), *_of_immaterial(spec, sound), *_of_sign(spec, sound)]
    listed += [*_of_names(spec), *_of_feature_maps(spec)] if not raised else []
    for name, published in spec.published.items():
        counted = _counted(spec, spec.variants[name])
        if counted is not None and counted != published:
            listed.append(f"published: variant {name!r} has {counted:,} trained parameters, not {published:,}")
    listed += unseen(spec) if not raised else []
    return listed


def _said(spec: Spec, error: Exception) -> str:
    """Describe an exception of a page's own code, with its place: "layers, line 70: ValueError: no"."""
    functions = {name: getattr(spec, name) for name in FUNCTIONS}
    code = {f.__code__: name for name, f in functions.items() if hasattr(f, "__code__")}
    line = line_of(error, {each.co_filename for each in code} - {spec_file})
    where = ", ".join(filter(None, [first_of(error, code), f"line {line}" if line else ""]))
    what = str(error) if isinstance(error, Unanswered) else described(error)
    return f"{where}: {what}" if where else what


def _each_once(raised: list[Fault]) -> Iterator[str]:
    """Say once what is wrong in several layers or Configs, numbers aside: which layers, and how many Configs."""
    groups: dict[tuple[str, bool], list[Fault]] = {}
    for fault in raised:
        groups.setdefault((normal(fault.text), bool(fault.path)), []).append(fault)
    for (_, of_layers), group in groups.items():
        text, _, config = group[0]
        others = len({fault.config for fault in group}) - 1
        where = f"{config} (and {words.count(others, 'more Config')})" if others else config
        if of_layers:
            firsts: dict[str, str] = {}
            for fault in group:
                firsts.setdefault(normal(fault.path), fault.path)
            named, paths = list(firsts.values())[:NAMED], {fault.path for fault in group}
            rest = f" (and {len(paths) - len(named)} more)" if len(paths) > len(named) else ""
            text = f"layers: {in_a_row(map(repr, named))}{rest}: {text}"
        yield f"{where}: {text}"


def _counted(spec: Spec, config: Any) -> int | None:
    """Count the trained parameters of a Config; None if its layers are at fault, which is reported elsewhere."""
    try:
        return count(list(spec.layers(config)))
    except Exception:
        return None


def _of_config(spec: Spec, config: Any) -> Iterator[Fault]:
    layers = list(spec.layers(config))
    if not layers:
        yield Fault("layers: yields no layer")
        return
    if wrong := [fault for layer in layers for fault in _of_layer(layer)]:
        yield from wrong
        return
    paths = Counter(layer.path for layer in layers)
    repeated = [f"layers: {path!r} is the path of {number} layers" for path, number in paths.items() if number > 1]
    fields = configs.types_of(spec.config)
    immaterial = spec.immaterial(config)
    if not isinstance(immaterial, set | frozenset):
        yield Fault(f"immaterial: returned {immaterial!r}, not a set of Config fields")
        return
    strange = [f"immaterial: {unknown(name, fields)}" for name in immaterial if name not in fields]
    yield from map(Fault, [*repeated, *_of_infer(spec, config, layers), *_of_images(spec, config), *strange])
    for name, dialect in spec.dialects.items():
        for what, check in (("extras", _of_extras), ("computed", _of_computed)):
            try:
                wrong = list(check(dialect, config))
            except Exception as error:  # of the page's own code
                wrong = [Fault(_said(spec, error))]
            yield from (Fault(f"dialect {name!r}, {what}{_named(fault)}") for fault in wrong)


def _of_extras(dialect: Dialect, config: Any) -> Iterator[Fault]:
    yield from (fault for layer in dialect.unused(config) for fault in _of_layer(layer))


def _of_computed(dialect: Dialect, config: Any) -> Iterator[Fault]:
    if not dialect.computed:
        return
    import numpy as np  # which pages without such arrays do not need

    values = dialect.computed(config)
    if not isinstance(values, Mapping):
        yield Fault(f"returned {with_article(type(values).__name__)}, not a mapping of paths to numpy arrays")
        return
    for path, array in values.items():
        if not isinstance(path, str) or not PATH.fullmatch(path):
            yield Fault(f"{path!r}: a path is names and numbers joined by dots")
        elif not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.dtype.isnative:
            yield Fault("is no numpy array of numbers", path)


def _named(fault: Fault) -> str:
    return f" {fault.path!r}: {fault.text}" if fault.path else f": {fault.text}"


def _of_layer(layer: Any) -> Iterator[Fault]:
    if not isinstance(layer, Layer):
        several = isinstance(layer, Iterator | list | tuple)
        what = with_article(type(layer).__name__) if several else repr(layer)
        remedy = ": write `yield from` where a function returns several" if several else ""
        yield Fault(f"layers: yields {what}, not a Layer{remedy}")
        return
    if not isinstance(layer.path, str) or not PATH.fullmatch(layer.path):
        yield Fault(f"layers: {layer.path!r}: a path is names and numbers joined by dots")
        return
    yield from (
        Fault(text, layer.path) for text in (_of_leaves(layer) if layer.kind in KINDS else [_of_kind(layer.kind)])
    )


def _of_kind(kind: str) -> str:
    """Describe a kind that does not exist, with the kind of a library's class of that name, or the nearest name."""
    word = str(kind).replace("_", "")
    near = [name for name, row in KINDS.items() if any(_is_class(word, form) for form in row.classes.values())]
    what = unknown(str(kind), KINDS) if not near else f"unknown name {kind!r}, did you mean {near[0]!r}?"
    return f"kind: {what} (the kinds are {', '.join(KINDS)})"


def _is_class(word: str, pattern: str) -> bool:
    return bool(pattern and re.fullmatch(pattern, word, re.IGNORECASE))


def _of_leaves(layer: Layer) -> Iterator[str]:
    leaves = KINDS[layer.kind].axes
    needed = {
        axis for leaf, axes in leaves.items() if leaf not in layer.without and axes != ANY for axis in axes.split()
    }
    if missing := sorted(needed - layer.sizes.keys()):
        other = [axis for axis in layer.sizes if axis not in needed]
        yield f"sizes lack {', '.join(missing)}" + (f", and have {', '.join(other)}" if other else "")
    yield from (
        f"size of {axis} is {size!r}" for axis, size in layer.sizes.items() if type(size) is not int or size < 1
    )
    if layer.sizes.get("g", 0) != GATES.get(layer.kind, layer.sizes.get("g", 0)):
        yield f"size of g is {layer.sizes['g']}, {with_article(layer.kind)} has {GATES[layer.kind]} gates"
    yield from (f"without: {unknown(leaf, leaves)}" for leaf in layer.without if leaf not in leaves)
    yield from _of_init(layer, leaves)


def _of_init(layer: Layer, leaves: Collection[str]) -> Iterator[str]:
    if layer.bias_init is not None and ("bias" not in leaves or "bias" in layer.without):
        yield f"bias_init is {layer.bias_init!r}, and the layer has no bias"
    elif layer.bias_init is not None and not _is_number(layer.bias_init):
        yield f"bias_init is {layer.bias_init!r}, no finite number"
    spread = f"a pair, as in ({SPREADS[0]!r}, 0.02) or ({SPREADS[1]!r}, 0.1)"
    allowed = f"(one of {', '.join(INITS)}, a number, as in 0.1, or {spread})"
    if isinstance(layer.init, tuple):
        if len(layer.init) != 2 or layer.init[0] not in SPREADS or not _is_number(layer.init[1]) or layer.init[1] <= 0:
            yield f"init is {layer.init!r}, not {spread}"
        elif "scale" in leaves:
            yield f"init is {layer.init!r}: a scale is not drawn: a number, {' or '.join(FILLING[1:])} fills it"
    elif isinstance(layer.init, str):
        if layer.init not in INITS:
            yield f"init: {unknown(layer.init, INITS)} {allowed}"
        elif "scale" in leaves and layer.init not in FILLING:
            yield f"init is {layer.init!r}: a scale is not drawn: a number, {' or '.join(FILLING[1:])} fills it"
    elif not _is_number(layer.init):
        yield f"init is {layer.init!r}, neither the name of a distribution nor a finite number {allowed}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= configs.MAX_FLOAT


def _of_infer(spec: Spec, config: Any, layers: list[Layer]) -> Iterator[str]:
    """Check that what `infer` reads off a Config's own arrays makes the same arrays."""
    try:
        inferred = fields_shown(spec, layers)
    except Exception as error:
        yield _said(spec, error)
        return
    if not isinstance(inferred, Mapping):
        yield f"infer: returned {inferred!r}, not a mapping, {{Config field: value}}"
        return
    if problems := configs.misfits(spec.config, inferred):
        yield from (f"infer: {problem}" for problem in problems)
        return
    if spec.takes_any_image and "image" in inferred:
        what = "write a check_images that raises ValueError for other sizes than config.image"
        yield f"check_images: infer reads image off the arrays, so that the network takes this size alone: {what}"
    wrong = {name: value for name, value in inferred.items() if configs.tuples(value) != getattr(config, name)}
    others = [
        f"infer returned {name}={value!r}, the Config has {getattr(config, name)!r}" for name, value in wrong.items()
    ]
    try:
        again = configs.build(spec.config, {**configs.as_dict(config), **inferred})
    except ValueError as error:
        yield from (f"{other}: {error}" for other in others)
        return
    if arrays_of(spec, again) != arrays_of(spec, config):
        yield from others


def _undeclared(spec: Spec, config: Any) -> Iterator[tuple[str, str]]:
    """Name and describe fields whose default a conversion would take without a mark: a file has it, and nobody says so.

    A field without a default would be asked for, though the arrays show it, if it is the only one: they may show a
    product of several. A rate of dropout changes nothing in evaluation.
    """
    inferred = fields_shown(spec, list(spec.layers(config)))
    again = configs.build(spec.config, {**configs.as_dict(config), **inferred})
    every = [f for f in fields(spec.config) if f.name not in {*inferred, *spec.immaterial(again)}]
    left_open = [f.name for f in every if f.default is MISSING and f.default_factory is MISSING]
    fixed = {name for dialect in spec.dialects.values() for name in dialect.conventions}
    shown = {name: array for name in left_open if (array := _shown_by(spec, again, name))}
    if len(shown) == 1 and not shown.keys() & {*fixed, *spec.unshown}:
        yield from (
            (name, f"infer returns no {name}, which arrays show, as {array!r}") for name, array in shown.items()
        )
    for name in [f.name for f in every if f.name not in (*left_open, *fixed, *spec.unshown) and "drop" not in f.name]:
        array = _shown_by(spec, again, name)
        if not array:
            what = f"{name}: infer does not return it, {_no_dialect(spec)}, and it is not in unshown, nor immaterial"
            fix = "state it in `conventions` if the dialect's code has one value alone, " if spec.dialects else ""
            fix += "list it in `unshown` if it changes the outputs, else let `immaterial` return it"
            yield name, f"{what}: {fix}"
        elif not shown:  # else arrays may show a product of both
            yield name, f"infer returns no {name}, which arrays show, as {array!r}"


def _of_conventions(spec: Spec, twins: Mapping[str, Any]) -> Iterator[str]:
    """Describe the conventions of fields that every file's arrays show: they would have no effect."""
    shown = [fields_shown(spec, list(spec.layers(config))).keys() for config in twins.values()]
    always = set.intersection(*map(set, shown)) if shown else set()
    for name, dialect in spec.dialects.items():
        for field, value in dialect.conventions.items():
            if field in always:
                what = f"dialect {name!r}, conventions: {field}={exact(value)} has no effect, as infer returns {field}"
                yield f"{what}; leave it out, or state it in `requires` if the dialect's code knows no other value"


def _of_immaterial(spec: Spec, twins: Mapping[str, Any]) -> Iterator[str]:
    """Describe the fields that change nothing in any twin, and of which another part of the page says that they do."""
    idle = [set(spec.immaterial(config)) for config in twins.values()]
    stating = {f"`conventions` of {name!r}": set(dialect.conventions) for name, dialect in spec.dialects.items()}
    stating |= {"`unshown`": set(spec.unshown), "`norms`": {str(spec.norms.get("eps"))}}
    stating |= {"`activations`": {field for shown in spec.activations.values() for field in shown}}
    for field in sorted(set.intersection(*idle)) if idle else ():
        if naming := [where for where, names in stating.items() if field in names]:
            what = f"immaterial: returns {field} for every Config in tiny, as if it changed no output"
            yield f"{what}, and it stands in {in_a_row(naming)}, as if it changed some: leave it out of one of both"


def _no_dialect(spec: Spec) -> str:
    if len(spec.dialects) == 1:
        return f"dialect {next(iter(spec.dialects))!r} does not fix it"
    names = f" of {', '.join(map(repr, spec.dialects))}" if spec.dialects else ""
    return f"no dialect{names} fixes it"


def _shown_by(spec: Spec, config: Any, name: str) -> str:
    """Return an array that is another one in a Config with another value of a field; "" for none."""
    own, arrays = getattr(config, name), arrays_of(spec, config)
    values = [getattr(other, name) for other in (*spec.tiny.values(), *spec.variants.values())]
    values += [f.default for f in fields(spec.config) if f.name == name and f.default is not MISSING]
    values.append(_doubled(own))
    for value in values:
        with contextlib.suppress(Exception):  # of the page's own code: the value does not fit the other fields
            other = arrays_of(spec, replace(config, **{name: value})) if value != own else arrays
            if differing := [array for array in {**arrays, **other} if arrays.get(array) != other.get(array)]:
                return differing[0]
    return ""


def _doubled(value: Any) -> Any:
    """Double an integer, also each one of a tuple: the other fields may refuse a tuple of another length."""
    return tuple(map(_doubled, value)) if isinstance(value, tuple) else 2 * value if type(value) is int else value


def _of_sign(spec: Spec, twins: Mapping[str, Any]) -> Iterator[str]:
    """Describe the dialects in which `sign` matches no array's name of some twin."""
    for dialect in {**PORTS, **spec.dialects} if spec.sign else ():
        for name, config in twins.items():
            with contextlib.suppress(ValueError, LookupError, AttributeError):  # of a line, which is reported as such
                forms = spellings(spec, dialect, config)
                missed = [form for form in forms if form and not any(re.search(spec.sign, each) for each in form)]
                if missed:
                    how = "as" if missed[0] is forms[0] else "in nnx as"
                    where = f"dialect {dialect!r}, {how} {missed[0][0]!r} of tiny {name!r}"
                    yield f"sign: {spec.sign!r} matches no name of {where}"
                    break


def spellings(spec: Spec, dialect: str, config: Any) -> list[list[str]]:
    """Return the names of a Config's arrays in a dialect, and in flax those of nnx too."""
    lines = {**PORTS, **spec.dialects}[dialect]
    names = list(shapes(spec.layers(config), lines, config))
    return [names, [nnx_name(name, lists=dialect in PORTS) for name in names]] if lines.framework == "flax" else [names]


def of_other_signs(spec: Spec, others: Mapping[str, Spec]) -> Iterator[str]:
    """Describe the architectures of which `sign` does not tell this one: one of both takes names of the other's."""
    for other, its in others.items() if spec.sign else ():
        for page, sign, whose in ((its, spec.sign, other), (spec, its.sign, "this page")):
            every = ((d, twin) for d in {**PORTS, **page.dialects} for twin in page.tiny.values())
            for names in (form for dialect, twin in every for form in spellings(page, dialect, twin)):
                taken, own = ([n for n in names if re.search(one, n)] for one in (sign, page.sign))
                if taken and len(taken) >= len(own):
                    stated = f"{sign!r}" if whose == other else f"that of {other}, {sign!r},"
                    what = f"matches {len(taken)} of {len(names)} names of {whose}, as {taken[0]!r}"
                    yield f"sign: {stated} {what}, and {page.sign!r} matches {len(own)}: choose what it alone has"
                    break


def _of_names(spec: Spec) -> Iterator[str]:
    """Describe the arrays of variants that no twin has: names are learnt from the twins alone."""
    learnt = {
        (normal(p.name), p.layer.kind) for twin in spec.tiny.values() for p in parameters(list(spec.layers(twin)))
    }
    lacking: dict[tuple[str, str], tuple[dict[str, str], dict[str, None]]] = {}  # by layer: its arrays, the variants
    for name, config in spec.variants.items():
        for parameter in parameters(list(spec.layers(config))):
            folded, layer = normal(parameter.name), parameter.layer
            if (folded, layer.kind) not in learnt:
                arrays, variants = lacking.setdefault((normal(layer.path), layer.kind), ({}, {}))
                arrays.setdefault(folded, parameter.name)
                variants[name] = None
    for (_, kind), (arrays, variants) in lacking.items():
        what = f"{with_article(kind)} as {in_a_row(map(repr, arrays.values()))}"
        yield f"variants {in_a_row(map(repr, variants))}: no Config in tiny has {what}"


def _of_feature_maps(spec: Spec) -> Iterator[str]:
    """Describe the modules that no layer is in or beside: a module without arrays stands below one with some."""
    paths = {normal(layer.path) for twin in spec.tiny.values() for layer in spec.layers(twin)}
    known = {".".join(parts[:n]) for parts in (path.split(".") for path in paths) for n in range(len(parts) + 1)}
    for path in spec.feature_maps:
        if normal(path) not in known and (parent := normal(path).rpartition(".")[0]) not in known:
            yield f"feature_maps: {path!r}: no layer lies there: {unknown(parent, sorted(known))}"


def _of_images(spec: Spec, config: Any) -> Iterator[str]:
    shape = spec.input_shape(config)
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        yield f"input_shape: is {shape!r}, not (channels, height, width)"
        return
    channels, height, width = shape
    if channels != config.channels:
        yield f"input_shape: has {channels} channels, the Config {config.channels}"
    try:
        spec.check_images(config, height, width)
    except ValueError as error:
        yield f"check_images: refuses images of input_shape: {error}"
