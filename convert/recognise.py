"""What a checkpoint is, read off its names: which part holds the model, which architecture, in whose dialect."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from typing import Any, NamedTuple

import specs
from specs.layer import KINDS, Dialect, Parameter

from .errors import ConvertError, UsageError
from .formats.base import Reader, Tensor, shown
from .kinds import FRAMEWORKS, PORTS, extra, template
from .notation import Axes, Path

# Where training scripts nest a model's weights, best guess first. The part taken is always reported.
WRAPPERS = (
    "", "params", "state_dict", "model", "0", "0/params", "params/params", "app/model", "target", "opt/target",
    "optimizer/target", "target/params", "opt/target/params", "optimizer/target/params", "model_state_dict", "net",
    "module", "state", "state_dict_ema", "model_ema", "ema", "ema_params",
)  # fmt: skip
PREFIXES = ("module", "_orig_mod", "model", "net", "network", "_layers")  # what wrapping a model puts before its names
WRAPPED = 4  # times that it does, at most
DEPTH, LEAST, MOST = 3, 8, 100  # other nestings looked into: how deep, with how many tensors, how many of them
MAX_ARRAYS = 10_000  # of a model: ten times the largest known here
LONGEST = 512  # characters in a name of a model
TRAINING = {
    "opt_state", "opt", "optimizer", "step", "epoch", "lr_scheduler", "scaler", "amp_scaler", "rng", "extra",
    "n_averaged",
}  # fmt: skip


class Match(NamedTuple):
    """A reading of a file: under `prefix` lies a model of `architecture`, named as in `dialect`.

    Args:
      tensors: inner name -> tensor in the file.
      aside: tensors of the training state beside the model.
      score: share of the names that fit.
    """

    architecture: str
    dialect: str
    prefix: str
    tensors: Mapping[str, Tensor]
    aside: tuple[str, ...]
    score: float

    @property
    def which(self) -> tuple[str, str]:
        return self.architecture, self.dialect

    @property
    def spec(self) -> Any:
        return specs.get(self.architecture)


def dialects(architecture: str) -> dict[str, Dialect]:
    """Every dialect of an architecture: the ports' own, then the foreign ones."""
    return {**PORTS, **specs.get(architecture).DIALECTS}


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
    """The best readings of a file by its names, in groups: what its record says, or else its format's usual framework
    and after that the others. Frameworks may name arrays alike: shapes tell then, so the caller has to try. Where no
    shape can, all are one group.

    Args:
      dialect: restrict to it; None tries all.
      hints: "architecture" and "dialect" out of our own metadata.
      weights: the nesting that holds the model, e.g. "state_dict_ema", where the user says so.
    Raises: ConvertError where nothing fits, or where the record says that it is another dialect.
    """
    if dialect is not None and hints.get("dialect", dialect) != dialect:
        problem = f"its record says that it holds {shown(str(hints['dialect']))} arrays, not {dialect} ones"
        raise ConvertError(f"{reader.path}: {problem}: name that dialect, or remove the record if it is wrong")
    held = _containers(reader)
    parts = list(_parts(reader, _nestings(held, weights)))
    tried: set[tuple[str, str]] = set()
    guess = hints.get("architecture", specs.likely(reader.tensors))
    if guess in specs.names():  # most files need no other spec: none is imported
        best, groups = _ranked(reader, parts, _candidates([guess], dialect), hints)
        for group in groups if best == 1 else ():
            tried.update(match.which for match in group)
            yield group
    refuse_known_misfits(reader)
    candidates = _candidates(specs.names(), dialect)
    best, groups = _ranked(reader, parts, candidates, hints)
    if best < 0.5:
        scores: dict[str, float] = {}
        for part in _parts(reader, _deeper(held, weights)):
            best_here = max((score for *_, score in _scores(part, candidates)), default=0.0)
            scores[part.nesting] = max(scores.get(part.nesting, 0.0), best_here)
        if (deepest := max(scores.values(), default=0.0)) > best:
            best, groups = _ranked(reader, list(_parts(reader, [_only(reader, scores, deepest)])), candidates, hints)
    if not parts and len(reader.tensors) > MAX_ARRAYS:
        problem = f"holds {len(reader.tensors):,} arrays: no model known here has over {MAX_ARRAYS:,}"
        raise ConvertError(f"{reader.path}: {problem}")
    if best < 0.5:
        raise ConvertError(_nothing_fits(reader, parts, dialect, weights))
    for group in groups:
        yield [match for match in group if match.which not in tried]


def _ranked(
    reader: Reader, parts: list[Part], candidates: list[tuple[str, str]], hints: Mapping[str, Any]
) -> tuple[float, Iterator[list[Match]]]:
    """The best score of these candidates, and the readings that have it, in groups."""
    hinted, usual = (hints.get("architecture"), hints.get("dialect")), _USUAL.get(reader.format)
    likely = [c for c in candidates if c == hinted or _framework(*c) == usual]
    others = [c for c in candidates if c not in likely]
    readings = list(_readings(parts, likely))
    best = max((reading.score for reading in readings), default=0.0)
    square = _square(reader)
    if best < 1 or square:  # else none of the others would be preferred: they wait until these turn out not to fit
        readings += _readings(parts, others)
        best = max((reading.score for reading in readings), default=0.0)
        others = []

    def groups() -> Iterator[list[Match]]:
        alike = _alike(readings, best)
        if hinted in alike:
            yield [alike[hinted]]
            return
        first = {which: r for which, r in alike.items() if _framework(*which) == usual and not square}
        rest = {which: reading for which, reading in alike.items() if which not in first}
        yield list((first or rest).values())
        if first:
            yield list((rest or _alike(_readings(parts, others), best)).values())

    return best, groups()


def _square(reader: Reader) -> bool:
    """Whether transposing its matrices would change no shape of a file."""
    return all(len(set(tensor.shape)) == 1 for tensor in reader.tensors.values() if len(tensor.shape) == 2)


def _alike(readings: Iterable[Match], score: float) -> dict[tuple[str, str], Match]:
    """One reading of each architecture and dialect with that score: the first nesting in the order of WRAPPERS."""
    found: dict[tuple[str, str], Match] = {}
    for reading in readings:
        if reading.score == score:
            found.setdefault(reading.which, reading)
    return found


_USUAL = {"msgpack": "flax", "npz": "flax", "orbax": "flax", "torch": "torch", "dcp": "torch", "safetensors": "torch",
          "pdparams": "paddle"}  # fmt: skip


def _framework(architecture: str, dialect: str) -> str:
    return dialects(architecture)[dialect].framework


class Part:
    """Of a file, what may be a model: the tensors under a prefix, which begins with where it is nested."""

    def __init__(self, nesting: str, prefix: str, tensors: Mapping[str, Tensor], file: Mapping[str, Tensor]):
        self.nesting, self.prefix, self.tensors, self.file = nesting, prefix, tensors, file

    @cached_property
    def names(self) -> frozenset[str]:
        """Numbers aside, but for those of names that no model has."""
        return frozenset(normal(name) if len(name) <= LONGEST else name for name in self.tensors)

    @cached_property
    def aside(self) -> tuple[str, ...]:
        """All other tensors of the file."""
        held = {tensor.name for tensor in self.tensors.values()}
        return tuple(name for name in self.file if name not in held)


def _nestings(held: Counter[str], weights: str | None) -> list[str]:
    """Where in a file a model is looked for, best guess first."""
    if weights is not None:
        return [weights]
    return [nesting for nesting in WRAPPERS if nesting in held]


def _deeper(held: Counter[str], weights: str | None) -> list[str]:
    """Every other place where a model may lie, but for what an optimizer keeps of each array, under the same names."""
    known = _nestings(held, weights)
    deeper = [c for c, size in held.items() if c not in known and size >= LEAST and not TRAINING & set(c.split("/"))]
    return [c for c in deeper if weights is None or c.startswith(f"{weights}/")][:MOST]


def _only(reader: Reader, scores: Mapping[str, float], best: float) -> str:
    """The one nesting with that score. Raises: UsageError where there are several: nothing tells which is meant."""
    first, *others = (nesting for nesting, score in scores.items() if score == best)
    if others:
        names = ", ".join(shown(nesting) for nesting in (first, *others))
        raise UsageError(f"{reader.path}: holds a model under each of {names}: say which, as in --weights {first}")
    return first


def _containers(reader: Reader) -> Counter[str]:
    """{"", "opt", "opt/target", ...: tensors within}, to a depth of DEPTH."""
    found: Counter[str] = Counter()
    for name in reader.tensors:
        keys = name.split("/", DEPTH)[:-1]
        found.update("/".join(keys[:depth]) for depth in range(len(keys) + 1))
    return found


def _parts(reader: Reader, nestings: list[str]) -> Iterator[Part]:
    for nesting, whole in _nested(reader, nestings).items():
        kept = {name: t for name, t in whole.items() if name.partition("/")[0] not in TRAINING}
        for prefix, tensors in _unprefixed(kept) if 0 < len(kept) <= MAX_ARRAYS else ():
            yield Part(nesting, "/".join(filter(None, [nesting, prefix])), tensors, reader.tensors)


def _nested(reader: Reader, nestings: list[str]) -> dict[str, dict[str, Tensor]]:
    """{nesting: {name within: tensor}}, of one look at each name."""
    found: dict[str, dict[str, Tensor]] = {nesting: {} for nesting in nestings}
    if "" in found:
        found[""] = dict(reader.tensors)
    deepest = max((nesting.count("/") + 1 for nesting in nestings if nesting), default=0)
    for name, tensor in reader.tensors.items():
        at = -1
        for _ in range(deepest):
            if (at := name.find("/", at + 1)) < 0:
                break
            if at and (inner := found.get(name[:at])) is not None:
                inner[name[at + 1 :]] = tensor
    return found


def _unprefixed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """(prefix, the same without it): none, and as long as all names begin with one, what wrapping a model adds."""
    prefix = ""
    yield prefix, tensors
    for _ in range(WRAPPED):
        start = next(iter(tensors)).partition(".")[0] + "."
        if start[:-1] not in PREFIXES or not all(name.startswith(start) for name in tensors):
            return
        prefix, tensors = prefix + start, {name[len(start) :]: tensor for name, tensor in tensors.items()}
        yield prefix, tensors


def _scores(part: Part, candidates: list[tuple[str, str]]) -> Iterator[tuple[str, str, float]]:
    """(architecture, dialect, share of the names that fit)."""
    for architecture, name in candidates:
        yield architecture, name, len(part.names & spellings(architecture, name)) / len(part.names)


def _readings(parts: list[Part], candidates: list[tuple[str, str]]) -> Iterator[Match]:
    for part in parts:
        for architecture, name, score in _scores(part, candidates):
            if score:
                yield Match(architecture, name, part.prefix, part.tensors, part.aside, score)


def _candidates(architectures: list[str], dialect: str | None) -> list[tuple[str, str]]:
    """(architecture, dialect) that a file may be of."""
    return [(a, name) for a in architectures for name in dialects(a) if dialect in (None, name)]


def refuse_known_misfits(reader: Reader) -> None:
    """Raises: ConvertError for families of files that look like a known one and are not."""
    for architecture in specs.names():
        for fragments, reason in getattr(specs.get(architecture), "REFUSED", ()):
            if all(any(fragment in name for name in reader.tensors) for fragment in fragments):
                raise ConvertError(f"{reader.path}: {reason}")


def _nothing_fits(reader: Reader, parts: list[Part], dialect: str | None, weights: str | None) -> str:
    names = list(reader.tensors)[:3]
    if weights is not None:
        tops = sorted({name.split("/")[0] for name in reader.tensors if "/" in name})
        return f"{reader.path}: nothing known lies under {weights!r} (it holds {', '.join(tops) or 'no nesting'})"
    others = list(_readings(parts, _candidates(specs.names(), None))) if dialect else []
    best = max(others, key=lambda r: r.score, default=None)
    if best and best.score >= 0.5:
        found = f"{best.dialect} ({best.architecture}): {best.dialect}2..."
        return f"{reader.path}: holds no {dialect} names, but those of {found}"
    what = f"no {dialect} checkpoint" if dialect else "no architecture known here (python -m ports lists them)"
    return f"{reader.path}: {what}; its first names are {', '.join(names) or 'none at all'}"


def normal(name: str) -> str:
    """Numbers aside: "blocks.3.norm1.weight" -> "blocks.#.norm#.weight"."""
    return DIGITS.sub("#", name)


DIGITS = re.compile(r"\d+")


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
    for parameter in examples(architecture):
        placed = template(parameter, table, dialect in FRAMEWORKS)
        if placed and placed[0].axes:
            rule, hub = placed[0], tuple(KINDS[parameter.layer.kind][parameter.leaf].split())
            line = Line(rule.ours, rule.theirs, placed[0].axes, hub)
            index.setdefault(normal(Path.HOLE.sub("0", rule.theirs.text)), []).append(line)
    return index


@cache
def examples(architecture: str) -> tuple[Parameter, ...]:
    """One parameter for each name and kind, numbers aside."""
    spec = specs.get(architecture)
    layers = {
        (re.sub(r"(?<=\.)\d+(?=\.|$)", "#", layer.path), layer.kind, layer.bias): layer
        for config in spec.TINY.values()
        for layer in spec.layers(config)
    }
    found = {(path, kind, p.leaf): p for (path, kind, _), layer in layers.items() for p in layer.parameters()}
    return tuple(found.values())


@cache
def spellings(architecture: str, dialect: str) -> frozenset[str]:
    """Every name that a dialect's file may hold, numbers aside."""
    table = dialects(architecture)[dialect]
    return frozenset(lines(architecture, dialect)) | {
        normal(n) for layer in table.extras for n, _ in extra(layer, table)
    }
