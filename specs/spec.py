"""Define the record that a page ends with, `SPEC = Spec(...)`: its fields are the contract of a page."""

import inspect
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

from .config import is_type, misfits, types_of
from .kinds import FRAMEWORKS
from .layer import Layer, Sizes
from .preprocessing import Preprocessing
from .words import one_of, unknown


class Dialect(NamedTuple):
    """How one code base names and lays out an architecture's arrays, and what its code computes.

    Args:
      framework: whose names and layouts its layers have: flax, torch or paddle.
      table: lines "ours <-> theirs", as of a Table; see specs.dialects. Without axes a line renames a layer (or all
        below it); with axes it places one array. What no line names keeps our name.
      conventions: Config fields that its files do not hold but its code fixes.
      requires: Config fields whose values its code hard-codes: a model with other values cannot be written in it.
      extras: layers that its files hold and the network never uses, by their paths there: a tuple, or a function of the
        Config that yields them. They are written as zeros, unless the source has them. An array that the code ties to
        another is none: the table ties it.
      suffix: the file format that its users expect, where it is not their framework's usual one.
      about: one line for `routes`.
      preprocessing: {variant: what its published checkpoints were evaluated with}, "" for all other variants. Where
        several differ, the usual one comes first, and the fields in which they differ are assumed of a file.
      computed: a function of the Config that returns {path there: numpy array}, the arrays that its code computes and
        stores, such as the index of relative positions. A file's are compared with them, and a target gets them.
    """

    framework: str
    table: str = ""
    conventions: Mapping[str, Any] = MappingProxyType({})
    requires: Mapping[str, Any] = MappingProxyType({})
    extras: tuple[Layer, ...] | Callable[[Any], Iterable[Layer]] = ()
    suffix: str = ""
    about: str = ""
    preprocessing: Mapping[str, tuple[Preprocessing, ...]] = MappingProxyType({})
    computed: Callable[[Any], Mapping[str, Any]] | None = None

    def unused(self, config: Any) -> Iterable[Layer]:
        """Return the layers of `extras` for a Config."""
        return self.extras(config) if callable(self.extras) else self.extras


class Refusal(NamedTuple):
    """A family of files that look like this architecture and are another network.

    Args:
      fragments: the file is refused if each of them occurs in some name.
      reason: completes "FILE: ...".
    """

    fragments: frozenset[str]
    reason: str


class SpecError(ValueError):
    """A page that is not well defined. `problems` are all that is wrong with it, a line each."""

    def __init__(self, message: str, problems: Iterable[str] = ()):
        self.message, self.problems = message, list(problems)
        super().__init__("\n".join([message, *(f"  - {problem}" for problem in self.problems)]))


TINY = "tiny "  # ahead of the name of a small Config
NORMS = {"eps", "momentum"}  # attributes of torch's norms that a page may name
ACTIVATIONS = {  # of torch.nn that a page may name: those inside a network
    "CELU", "ELU", "GELU", "GELU tanh", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink",
    "Softsign", "Tanh", "Tanhshrink", "Threshold",
}  # fmt: skip
ADAPTED = ("classes", "channels")  # fields of every Config, in which a user's model may differ from its variant


def _any_size(config: Any, height: int, width: int) -> None:
    """Accept images of every size. Raises: ValueError for empty ones."""
    if height < 1 or width < 1:
        raise ValueError(f"images of {height}x{width} are empty")


def _nothing(config: Any) -> set[str]:
    return set()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spec:
    """One architecture, free of any framework: `SPEC = Spec(...)` ends its page.

    Args:
      config: frozen dataclass of its sizes and conventions, with `channels` (of the images) and `classes` among them.
      layers: config -> every layer with its kind and sizes, in the order in which the network runs.
      infer: sizes of a checkpoint's arrays -> {Config field: value} that they determine.
      variants: published Configs by name.
      tiny: small Configs by name, which together use every option: tests run them, and names are learnt from them.
      input_shape: config -> (channels, height, width) of an image that the network takes.
      network: name of its class in every port, which is called with a Config.
      ports: {framework: module or file of its port}, files relative to the page; {} for ports.FRAMEWORK.PAGE.
      dialects: how other code bases name and lay out its arrays.
      published: {variant: trained parameters as the original counts them}.
      check_images: raises ValueError for (config, height, width) that the network cannot take.
      feature_maps: modules, beside convolutions, that take or return images (n c h w); "#" stands for a number.
      unshown: Config fields that change what is computed, no array shows and no dialect fixes. A field with a default
        is returned by `infer`, fixed by a dialect, unshown or immaterial: else the page is refused.
      meanings: {Config field that a file may leave open: what it is, and its usual value in upstream's code}.
      immaterial: config -> the fields that change nothing for it.
      readers: {dialect: configuration file of its users, parsed -> {Config field: value}}.
      norms: attributes of torch's norms, "eps" and "momentum" (as the share that is kept) -> the Config field that they
        state, or the number that all norms have: a model that was pickled whole shows them.
      activations: of torch.nn in the network, as in "ReLU", "GELU" or "GELU tanh" -> {Config field: value} that they
        show, {} for none; a model that was pickled whole with another is refused. Without any, none is looked at.
      refused: families of files that look like this architecture and are another network.
      sign: pattern that only names of its arrays contain, some of every twin in every dialect; see specs.likely.
    """

    config: type
    layers: Callable[[Any], Iterable[Layer]]
    infer: Callable[[Sizes], dict[str, Any]]
    variants: Mapping[str, Any]
    tiny: Mapping[str, Any]
    input_shape: Callable[[Any], tuple[int, int, int]]
    network: str
    ports: Mapping[str, str] = field(default_factory=dict)
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    check_images: Callable[[Any, int, int], None] = _any_size
    feature_maps: tuple[str, ...] = ()
    unshown: frozenset[str] = frozenset()
    meanings: Mapping[str, str] = field(default_factory=dict)
    immaterial: Callable[[Any], set[str]] = _nothing
    readers: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    norms: Mapping[str, str | float] = field(default_factory=dict)
    activations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    sign: str = ""

    def __new__(cls, **fields: Any) -> "Spec":
        """Check the fields as a whole. Raises: SpecError that lists everything missing, unknown or wrong."""
        if problems := list(_problems(cls, fields)):
            raise SpecError("Spec(...) is not well defined", problems)
        return super().__new__(cls)

    @property
    def takes_any_image(self) -> bool:
        """Tell whether the page states no sizes of images that the network cannot take."""
        return self.check_images is _any_size

    @property
    def named(self) -> dict[str, Any]:
        """Return every Config that has a name: the variants, and the small ones as "tiny NAME"."""
        return {**self.variants, **{TINY + name: config for name, config in self.tiny.items()}}


def described(error: Exception) -> str:
    """Describe an exception of a page's own code; of a field that a Config lacks, with what every Config needs."""
    if isinstance(error, AttributeError) and is_dataclass(error.obj):
        if error.name in ADAPTED:
            return f"Config: lacks the field {error.name!r} (every Config has {' and '.join(ADAPTED[::-1])})"
        return f"Config: {unknown(str(error.name), [f.name for f in fields(error.obj)])}"
    return _of_argument(error) or f"{type(error).__name__}: {getattr(error, 'msg', None) or error}"


def _of_argument(error: Exception) -> str:
    """Say that a call names an argument that its function does not have: "Config: unknown name 'widht', ..."."""
    said = re.fullmatch(r"(\w+)(?:\.__\w+__)?\(\) got an unexpected keyword argument '(\w+)'.*", str(error))
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if not isinstance(error, TypeError) or not said or step is None:
        return ""
    function = step.tb_frame.f_globals.get(said[1])
    return f"{said[1]}: {one_of(said[2], inspect.signature(function).parameters)}" if callable(function) else ""


def _problems(cls: type[Spec], given: Mapping[str, Any]) -> Iterator[str]:
    """Describe everything that is wrong with the fields that a Spec is made of."""
    known = {f.name: f for f in fields(cls)}
    yield from (unknown(name, known) for name in given if name not in known)
    for name, f in known.items():
        if name not in given and f.default is MISSING and f.default_factory is MISSING:
            yield f"{name} is missing: {_meaning(cls, name)}"
        elif name in given and not FITS[name].test(given[name]):
            yield f"{name} is {_short(given[name])}, not {FITS[name].must_be}"
    yield from _references(given)


def _meaning(cls: type[Spec], name: str) -> str:
    """Quote what the docstring says of a field."""
    match = re.search(rf"^ +{name}: (.+)$", cls.__doc__ or "", re.MULTILINE)
    return match[1] if match else name


def _is_config(value: Any) -> bool:
    frozen = isinstance(value, type) and is_dataclass(value) and value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen and {*ADAPTED} <= {f.name for f in fields(value)}


def _maps_to(kind: Any) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(entry, kind) for key, entry in value.items()
        )

    return fits


def _are(kind: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple | set | frozenset) and all(isinstance(entry, kind) for entry in value)


def _is_preprocessing(value: Any) -> bool:
    return isinstance(value, Preprocessing)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except re.error:
        return False


class Fit(NamedTuple):
    """What the value of a field of Spec must be: a test, and the same in words."""

    test: Callable[[Any], bool]
    must_be: str


_FUNCTION = Fit(callable, "a function")
FITS = {
    "config": Fit(_is_config, "a frozen dataclass with fields channels and classes"),
    "layers": _FUNCTION,
    "infer": _FUNCTION,
    "variants": Fit(_maps_to(object), "a mapping of names to Configs"),
    "tiny": Fit(lambda value: _maps_to(object)(value) and bool(value), "a mapping of names to Configs, at least one"),
    "input_shape": _FUNCTION,
    "network": Fit(lambda value: isinstance(value, str) and value.isidentifier(), "the name of a class"),
    "ports": Fit(_maps_to(str), "a mapping of frameworks to modules or files"),
    "dialects": Fit(_maps_to(Dialect), "a mapping of names to Dialects"),
    "published": Fit(_maps_to(int), "a mapping of variants to numbers"),
    "check_images": _FUNCTION,
    "feature_maps": Fit(_are(str), "a tuple of paths of modules"),
    "unshown": Fit(_are(str), "a set of Config fields"),
    "meanings": Fit(_maps_to(str), "a mapping of Config fields to texts"),
    "immaterial": _FUNCTION,
    "readers": Fit(_maps_to(Callable), "a mapping of dialects to functions"),
    "norms": Fit(lambda value: _maps_to(str | float)(value) and set(value) <= NORMS, "a mapping of eps, momentum"),
    "activations": Fit(_maps_to(Mapping), "a mapping of activations to mappings of Config fields"),
    "refused": Fit(_are(Refusal), "a tuple of Refusals"),
    "sign": Fit(_is_pattern, "a regular expression"),
}
_VALUES = Fit(_maps_to(object), "a mapping, {Config field: value}")
_TEXT = Fit(lambda value: isinstance(value, str), "a text")
FITS_OF_DIALECTS = {
    "framework": _TEXT,
    "table": _TEXT,
    "conventions": _VALUES,
    "requires": _VALUES,
    "extras": Fit(
        lambda value: callable(value) or (isinstance(value, tuple) and _are(Layer)(value)),
        "a tuple of Layers, nor a function of the Config that yields them",
    ),
    "suffix": _TEXT,
    "about": _TEXT,
    "preprocessing": Fit(
        lambda value: (
            _maps_to(tuple)(value) and all(some and all(map(_is_preprocessing, some)) for some in value.values())
        ),
        "a mapping of variants to tuples of Preprocessing",
    ),
    "computed": Fit(lambda value: value is None or callable(value), "a function of the Config"),
}


def _references(given: Mapping[str, Any]) -> Iterator[str]:
    """Describe the names that stand for nothing: of Config fields, variants, dialects and frameworks."""
    fit = {name: value for name, value in given.items() if name in FITS and FITS[name].test(value)}
    config = fit.get("config")
    known_fields = [f.name for f in fields(config)] if config else None
    variants, dialects = fit.get("variants"), fit.get("dialects", {})
    yield from _of_types(config) if config else ()
    for what in ("variants", "tiny"):
        strange = [name for name, made in fit.get(what, {}).items() if config and type(made) is not config]
        yield from (f"{what}: {name!r} is no Config" for name in strange)
    named: list[tuple[str, Iterable[str], Iterable[str] | None]] = [
        ("published", fit.get("published", ()), variants),
        ("ports", fit.get("ports", ()), FRAMEWORKS),
        ("readers", fit.get("readers", ()), dialects),
        ("unshown", fit.get("unshown", ()), known_fields),
        ("meanings", fit.get("meanings", ()), known_fields),
        ("norms", [name for name in fit.get("norms", {}).values() if isinstance(name, str)], known_fields),
        ("activations", itertools.chain.from_iterable(fit.get("activations", {}).values()), known_fields),
        ("activations", fit.get("activations", ()), ACTIVATIONS),
    ]
    stated = [(f"activations: {name!r}", values) for name, values in fit.get("activations", {}).items()]
    for name, dialect in dialects.items():
        wrong = [member for member, fit in FITS_OF_DIALECTS.items() if not fit.test(getattr(dialect, member))]
        yield from _misfits_of_dialect(name, dialect, wrong)
        dialect = dialect._replace(**{member: Dialect._field_defaults.get(member, "torch") for member in wrong})
        named += [
            (f"dialect {name!r}, framework", [dialect.framework], FRAMEWORKS),
            (f"dialect {name!r}, conventions", dialect.conventions, known_fields),
            (f"dialect {name!r}, requires", dialect.requires, known_fields),
            (f"dialect {name!r}, preprocessing", filter(None, dialect.preprocessing), variants),
        ]
        stated += [(f"dialect {name!r}, {what}", getattr(dialect, what)) for what in ("conventions", "requires")]
    for what, names, known in named:
        if known is not None:  # else what they name is itself wrong, and reported
            yield from (f"{what}: {one_of(str(name), known)}" for name in names if name not in known)
    if config and not [*_of_types(config)]:
        for what, values in stated:
            known_ones = {name: value for name, value in values.items() if name in types_of(config)}
            yield from (f"{what}: {problem}" for problem in misfits(config, known_ones))


def _misfits_of_dialect(name: str, dialect: Dialect, wrong: Collection[str]) -> Iterator[str]:
    """Describe what a dialect cannot be.

    Args:
      wrong: its members of another kind than they have to be.
    """
    if name in FRAMEWORKS:
        yield f"dialects: {name!r} is a framework, whose port is a dialect of that name already"
    for member in wrong:
        must_be = FITS_OF_DIALECTS[member].must_be
        yield f"dialect {name!r}: {member} is {_short(getattr(dialect, member))}, not {must_be}"
    if "suffix" not in wrong and dialect.suffix and not dialect.suffix.startswith("."):
        yield f"dialect {name!r}: suffix is {dialect.suffix!r}: it begins with a dot, as in '.{dialect.suffix}'"


def _of_types(config: type) -> Iterator[str]:
    """Describe the fields of a Config whose types no value can be checked against."""
    try:
        hints = types_of(config)
    except Exception as error:  # of the page's own code
        yield f"config: its types cannot be read: {described(error)}"
        return
    may_be = "int, float, bool, Literal[...], a tuple of these, as in tuple[int, ...], or a union"
    for f in fields(config):
        if not is_type(hints[f.name]):
            yield f"config: {f.name} is of type {_type(hints[f.name])}, which no Config field has: {may_be}"


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
