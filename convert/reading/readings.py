"""Find where in a file a model lies: the prefixes of its names under which a dialect knows what follows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import specs
from convert.errors import UsageError, option
from convert.files.base import Tensor
from specs.notation.paths import normal
from specs.spec import Spec

from .nesting import (
    LEAST,
    LIVE,
    LONGEST,
    MAX_ARRAYS,
    MOST,
    PROFILED,
    RANDOM,
    TRAINING,
    chosen,
    cuts,
    is_training,
    label,
    prefix,
    rank,
    several,
    statistics_of,
    training,
    unwrapped,
)

Which = tuple[str, str]  # (architecture, dialect)


def is_known(name: str, spelled: Collection[str]) -> bool:
    """Tell whether a dialect knows a name, with its wrappers or without them."""
    form = normal(name)
    return form in spelled or unwrapped(form) in spelled


@dataclass(frozen=True, eq=False)  # equal to itself alone: what is read off it is cached
class Reading:
    """A file read as a checkpoint of an architecture in a dialect, as far as names show.

    Args:
      place: prefix of the names of the model's arrays in the file: "", "state_dict/" or "params/".
      tensors: names below the place -> tensors; a copy of the model and training state are left out.
      known: the names in the file, of those tensors, that the dialect knows.
    """

    architecture: str
    dialect: str
    place: str
    tensors: Mapping[str, Tensor]
    known: frozenset[str]

    @property
    def which(self) -> Which:
        return self.architecture, self.dialect

    @property
    def spec(self) -> Spec:
        return specs.get(self.architecture)

    @property
    def prefix(self) -> str:
        """Return the place as messages and --weights write it."""
        return label(self.place)

    @property
    def score(self) -> float:
        """Share of the arrays whose names the dialect knows."""
        return len(self.known) / len(self.tensors)

    @property
    def strength(self) -> tuple[int, float]:
        return len(self.known), self.score


SEQUENTIAL = re.compile(r"(#[./])+\w+")  # forms of names without a word but the last: "#.weight", "#.#.bias"


class Names:
    """The names in a file, grouped by their form, so that each form is looked up once.

    Args:
      tensors: of the file.
      weights: the place that the user chose: only what lies under it counts.

    Attributes:
      roots: the places that `weights` may mean, more than one where it does not tell them apart.
    """

    def __init__(self, tensors: Mapping[str, Tensor], weights: str | None = None):
        self.file, self.roots = tensors, chosen(tensors, weights)
        self.root = self.roots[0]
        self.forms: dict[str, list[str]] = {}
        places = _with_statistics(self.root)
        for name in tensors:
            if len(name) <= LONGEST and name.startswith(places):
                self.forms.setdefault(normal(name), []).append(name)

    def readings(self, spelled: Mapping[Which, Mapping[str, str]]) -> list[Reading]:
        """Return every reading that knows a name. `spelled` maps each dialect's forms of names to their usual ones."""
        known = frozenset().union(*spelled.values())
        sections = {place: Section(self.below(place, known)) for place in self.places(known)}
        return [
            reading
            for which, names in spelled.items()
            for reading in _without_copies(
                which, {place: s.known(names) for place, s in sections.items()}, sections, names
            )
        ]

    def places(self, known: frozenset[str]) -> list[str]:
        """Return the usual places, and those under which many names are known."""
        hits: Counter[str] = Counter()
        for form, names in self.forms.items():
            for depth, cut in enumerate(cuts(form)):
                if is_known(form[cut:], known):
                    hits.update(prefix(name, depth) for name in names)
        usual = [place for place in self._usual if place.startswith(self.root)]
        voted = [place for place, count in hits.most_common()[:MOST] if count >= LEAST and not is_training(place)]
        voted = [place for place in voted if place.startswith(self.root)]
        places = list(dict.fromkeys([self.root, *usual, *voted]))
        return [place for place in places if not any(_wraps(inner, place, hits) for inner in places)]

    @cached_property
    def _usual(self) -> list[str]:
        tops = {name[: at + 1] for name in self.file if (at := name.find("/")) > 0}
        return [f"{nest}/" for nest in LIVE if nest and nest.partition("/")[0] + "/" in tops]

    def below(self, place: str, known: Collection[str] = ()) -> dict[str, Tensor]:
        """Return {name below a place, without wrappers: tensor}, training state left out.

        Params, as in ema_params/, have their running statistics beside them, as in ema_batch_stats/.

        Names that differ in their wrappers alone keep them, so that no array takes the place of another; so do names
        whose form is in `known`: a dialect may have a module of such a name.
        """
        places = _with_statistics(place)
        inner = {
            rest: tensor
            for name, tensor in self.file.items()
            if (within := next((one for one in places if name.startswith(one)), None)) is not None
            and not ((rest := name[len(within) :]).partition("/")[0] in TRAINING and training(rest))
            and RANDOM not in name
            and not name.endswith(PROFILED)
        }
        if len(inner) > MAX_ARRAYS:  # no model
            return inner
        plain = {rest: unwrapped(rest) for rest in inner}
        plain |= {rest: rest for rest, short in plain.items() if short != rest and normal(rest) in known}
        times = Counter(plain.values())
        return {plain[rest] if times[plain[rest]] == 1 else rest: tensor for rest, tensor in inner.items()}


def _with_statistics(place: str) -> tuple[str, ...]:
    """Return a place, and where its running statistics lie, if that is another one."""
    return place, *filter(None, [statistics_of(place)])


def _wraps(inner: str, place: str, hits: Mapping[str, int]) -> bool:
    """Tell whether a place is another one and wrappers, with as many known names: the whole model is wrapped."""
    wrapper = inner.removeprefix(place)
    return bool(wrapper) and inner.startswith(place) and not unwrapped(wrapper) and hits[inner] == hits[place]


class Section:
    """What lies under one place: names by their form."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors if len(tensors) <= MAX_ARRAYS else {}
        self.forms: dict[str, list[str]] = {}
        for name in self.tensors:
            self.forms.setdefault(normal(name) if len(name) <= LONGEST else name, []).append(tensors[name].name)

    def known(self, spelled: Collection[str]) -> list[str]:
        """Return names in the file of the arrays that a dialect knows.

        Those of any nn.Sequential ("0.weight") alone are no evidence of a dialect that has other names too.
        """
        forms = [form for form in self.forms if form in spelled]
        if all(map(SEQUENTIAL.fullmatch, forms)) and not all(map(SEQUENTIAL.fullmatch, spelled)):
            return []
        return [name for form in forms for name in self.forms[form]]


def _without_copies(
    which: Which, known: Mapping[str, list[str]], sections: Mapping[str, Section], spelled: Mapping[str, str]
) -> Iterator[Reading]:
    """Yield a dialect's readings without what is a copy in a container beside a model."""
    for place, names in known.items():
        if not names:
            continue
        tensors, own = sections[place].tensors, frozenset(names)
        if len(own) < len(tensors):
            enough = max(LEAST, len(own) / 2)
            inner = {_container(place, p) for p, n in known.items() if p != place and len(n) >= enough}
            inner.update(copies_without_collection(own, tensors))
            inner.update([statistics_of(container) for container in inner])
            copies = tuple(c for c in inner if c and not any(name.startswith(place + c) for name in own))
            if copies:
                tensors = {name: t for name, t in tensors.items() if not name.startswith(copies)}
        yield Reading(*which, place, _as_usual(tensors, spelled), own)


def _as_usual(tensors: Mapping[str, Tensor], spelled: Mapping[str, str]) -> Mapping[str, Tensor]:
    """Return arrays by the names that a dialect's table has for them; a name that is taken stays as it is."""
    if all(form == usual for form, usual in spelled.items()):  # the dialect has one name for each array
        return tensors
    names = {name: _usual(name, spelled) for name in tensors}
    times = Counter(names.values())
    return {usual if times[usual := names[name]] == 1 else name: tensor for name, tensor in tensors.items()}


def _usual(name: str, spelled: Mapping[str, str]) -> str:
    form = normal(name) if len(name) <= LONGEST else name
    usual = spelled.get(form, form)
    if usual == form:
        return name
    numbers = re.findall(r"\d+", name)
    if usual.count("#") != len(numbers):  # the name itself contains a #
        return name
    texts = usual.split("#")
    return texts[0] + "".join(number + text for number, text in zip(numbers, texts[1:], strict=True))


def copies_without_collection(own: Iterable[str], others: Iterable[str]) -> set[str]:
    """Return containers that copy the arrays of a linen collection: "ema/a/kernel" beside "params/a/kernel"."""
    bare = {normal(name.partition("/")[2]) for name in own} - {""}
    hits = Counter(name.partition("/")[0] for name in others if normal(name.partition("/")[2]) in bare)
    return {f"{top}/" for top, count in hits.items() if count >= max(LEAST, len(bare) / 2)}


def _container(outer: str, inner: str) -> str:
    """Return the outermost container of a place, below another place; "" where it lies elsewhere."""
    if not inner.startswith(outer):
        return ""
    rest = inner[len(outer) :]
    return rest[: rest.index("/") + 1] if "/" in rest else rest


class Ambiguous(UsageError):
    """Several parts of a file contain a model and nothing shows which is meant."""

    def __init__(self, path: str, places: list[str]):
        self.places = [label(place) for place in places]
        names = several(self.places)
        which = option("weights", self.places[0])
        super().__init__(f"{path}: holds arrays with a model's names under each of {names}: say which, as in {which}")


def strongest(path: str, readings: Iterable[Reading]) -> list[Reading] | Ambiguous:
    """Return the strongest readings of the part that ranks first; an error where different arrays rank alike.

    Readings of the same arrays compete by how many they know; different arrays by where they lie.
    """
    clusters: list[list[Reading]] = []
    listed = sorted(readings, key=lambda r: (*(-s for s in r.strength), rank(r.place)))
    for reading in (r for r in listed if 2 * len(r.known) >= len(listed[0].known)):
        home = next((c for c in clusters if not c[0].known.isdisjoint(reading.known)), None)
        if home is None:
            clusters.append([reading])
        elif reading.strength == home[0].strength:
            home.append(reading)
    clusters = [cluster for cluster in clusters if cluster[0].score >= 0.5]
    if not clusters:
        return []
    places = (re.sub(r"^\d+(?=/)", "0", cluster[0].place) for cluster in clusters)  # a list ranks all its models alike
    ranks = [rank(place) for place in places]
    if ranks.count(min(ranks)) > 1:
        return Ambiguous(path, [c[0].place for c, r in zip(clusters, ranks, strict=True) if r == min(ranks)])
    return clusters[ranks.index(min(ranks))]
