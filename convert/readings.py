"""Find where in a file a model lies: the prefixes of its names under which a dialect knows what follows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import specs
from specs.paths import normal
from specs.spec import Spec

from .errors import UsageError, option
from .files.base import Tensor, shown

# Where training scripts nest the weights that they train, best guess first.
LIVE = (
    "", "params", "state_dict", "model", "0", "0/params", "params/params", "app/model", "opt/target",
    "optimizer/target", "target/params", "opt/target/params", "optimizer/target/params", "model_state_dict", "net",
    "module",
)  # fmt: skip
# Words in the name of a copy of the weights: never taken while others are there.
COPIES = {"ema", "averaged", "average", "avg", "swa", "shadow", "polyak", "old", "previous", "prev", "backup"}
# Containers of training state; what an optimizer stores for each array has the array's own name.
TRAINING = {
    "opt_state", "opt_states", "opt", "optimizer", "optimizers", "optimizer_state", "optimizer_states",
    "optimizer_state_dict", "optim", "step", "epoch", "lr_scheduler", "scaler", "amp_scaler", "rng", "rngs", "extra",
    "n_averaged", "train_state", "mu", "nu", "exp_avg", "exp_avg_sq", "momentum", "trace", "amp", "grad_scaler",
    "schedulers", "lr_schedulers", "master_weights", *(f"optimizer_{number}" for number in range(8)),
}  # fmt: skip
PROFILED = ("total_ops", "total_params")  # buffers that thop's profile adds to every module
RANDOM = "/rngs/"  # where each layer of an nnx module has the state of its random numbers
DEPTH, LEAST, MOST = 8, 8, 100  # places looked at: segments deep, arrays with known names, number of places
MAX_ARRAYS = 10_000  # of a model: ten times the largest known here
SHOWN = 8  # places that an error names
LONGEST = 512  # characters in a name of a model

SEPARATOR = re.compile(r"[/.]")
WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"

# What torch.compile, activation checkpointing, FSDP, DataParallel and Lightning's strategies put before the names of a
# module's parts: of the whole module or of one inside, of all its parts or of some.
WRAPPERS = r"(?:^|(?<=[/.]))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module|module)\."

Which = tuple[str, str]  # (architecture, dialect)


def unwrapped(name: str) -> str:
    """Remove the wrappers in a name: "_orig_mod.blocks.0._orig_mod.norm" -> "blocks.0.norm"."""
    if "mod" not in name:  # as most do not
        return name
    while (plain := re.sub(WRAPPERS, "", name)) != name:  # what was behind a wrapper may be another
        name = plain
    return name


def is_known(name: str, spelled: Collection[str]) -> bool:
    """Tell whether a dialect knows a name, with its wrappers or without them."""
    form = normal(name)
    return form in spelled or unwrapped(form) in spelled


def label(place: str) -> str:
    """Return a place as messages and --weights write it: "params/" -> "params", "state_dict/module." stays."""
    return place.removesuffix("/")


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
        """The place as messages and --weights write it."""
        return label(self.place)

    @property
    def score(self) -> float:
        """Share of the arrays whose names the dialect knows."""
        return len(self.known) / len(self.tensors)

    @property
    def strength(self) -> tuple[int, float]:
        return len(self.known), self.score


def cuts(name: str) -> Iterator[int]:
    """Return positions at which the name of a model's array may begin: 0 and after each of the first separators."""
    yield 0
    for count, separator in enumerate(SEPARATOR.finditer(name), 1):
        if count > DEPTH:
            return
        yield separator.end()


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
        for name in tensors:
            if len(name) <= LONGEST and name.startswith(self.root):
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
                    hits.update(_prefix(name, depth) for name in names)
        usual = [place for place in self._usual if place.startswith(self.root)]
        voted = [place for place, count in hits.most_common(MOST) if count >= LEAST and not _is_training(place)]
        voted = [place for place in voted if place.startswith(self.root)]
        places = list(dict.fromkeys([self.root, *usual, *voted]))
        return [place for place in places if not any(_wraps(inner, place, hits) for inner in places)]

    @cached_property
    def _usual(self) -> list[str]:
        tops = {name[: at + 1] for name in self.file if (at := name.find("/")) > 0}
        return [f"{nest}/" for nest in LIVE if nest and nest.partition("/")[0] + "/" in tops]

    def below(self, place: str, known: Collection[str] = ()) -> dict[str, Tensor]:
        """Return {name below a place, without wrappers: tensor}, training state left out.

        Names that differ in their wrappers alone keep them, so that no array takes the place of another; so do names
        whose form is in `known`: a dialect may have a module of such a name.
        """
        inner = {
            rest: tensor
            for name, tensor in self.file.items()
            if name.startswith(place)
            and (rest := name[len(place) :]).partition("/")[0] not in TRAINING
            and RANDOM not in name
            and not name.endswith(PROFILED)
        }
        if len(inner) > MAX_ARRAYS:  # no model
            return inner
        plain = {rest: unwrapped(rest) for rest in inner}
        plain |= {rest: rest for rest, short in plain.items() if short != rest and normal(rest) in known}
        times = Counter(plain.values())
        return {plain[rest] if times[plain[rest]] == 1 else rest: tensor for rest, tensor in inner.items()}


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
        """Return names in the file of the arrays that a dialect knows."""
        return [name for form, names in self.forms.items() if form in spelled for name in names]


def chosen(tensors: Mapping[str, Tensor], weights: str | None) -> list[str]:
    """Return the prefixes of names that `weights` may mean: "ema", "ema/" and "state_dict/module." are such.

    That is a whole place, or the end of one. Where it is neither, what it would be as a whole place.
    """
    if not weights or weights == "/":
        return [""]
    spellings = [weights] if weights[-1] in "/." else [f"{weights}/", f"{weights}."]
    whole = [spelling for spelling in spellings if any(name.startswith(spelling) for name in tensors)]
    inner = (cut for spelling in spellings for name in tensors for cut in _ends(name, spelling))
    return whole or list(dict.fromkeys(islice(inner, MOST * MAX_ARRAYS))) or spellings[:1]


def unclear(path: str, weights: str, roots: Iterable[str]) -> UsageError:
    """Return the error for a choice of weights that may mean several places."""
    places = [label(root) for root in roots]
    names = ", ".join(map(shown, places[:SHOWN])) + (f" and {len(places) - SHOWN} more" if places[SHOWN:] else "")
    given, remedy = option("weights", weights), option("weights", places[0])
    return UsageError(f"{path}: {given} may mean each of {names}: give one of them whole, as in {remedy}")


def _ends(name: str, spelling: str) -> Iterator[str]:
    """Yield the place in a name that ends with `spelling`, after a separator."""
    for separator in "/.":
        if (at := name.find(separator + spelling, 0, LONGEST)) >= 0:
            yield name[: at + 1 + len(spelling)]


def _prefix(name: str, depth: int) -> str:
    """Return the first `depth` segments of a name, with their separators."""
    if not depth:
        return ""
    for count, separator in enumerate(SEPARATOR.finditer(name), 1):
        if count == depth:
            return name[: separator.end()]
    raise AssertionError(name)


def _without_copies(
    which: Which, known: Mapping[str, list[str]], sections: Mapping[str, Section], spelled: Mapping[str, str]
) -> Iterator[Reading]:
    """Return a dialect's readings without what is a copy in a container beside a model."""
    for place, names in known.items():
        if not names:
            continue
        tensors, own = sections[place].tensors, frozenset(names)
        if len(own) < len(tensors):
            enough = max(LEAST, len(own) / 2)
            inner = {_container(place, p) for p, n in known.items() if p != place and len(n) >= enough}
            inner.update(copies_without_collection(own, tensors))
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


def training(name: str) -> str:
    """Return the outermost container of training state in which an array or a place lies, with its slash.

    The array itself if it is one; "" outside of any.
    """
    segments = name.split("/")
    depth = next((depth for depth, segment in enumerate(segments) if segment in TRAINING), None)
    if depth is None:
        return ""
    return "/".join(segments[: depth + 1]) + ("/" if depth + 1 < len(segments) else "")


def rank(place: str) -> tuple[bool, int, bool]:
    """Return a key to sort places: trained weights before copies of them, usual places first, outer ones first."""
    nest = place.rpartition("/")[0]
    live = max((n for n in LIVE if n == nest or (n and nest.startswith(f"{n}/"))), key=len, default=None)
    beyond = place[len(live) :].strip("/") if live is not None else place
    is_copy = any(word.lower() in COPIES for word in re.findall(WORD, place))
    return is_copy, LIVE.index(live) if live is not None else len(LIVE), bool(beyond)


def _is_training(place: str) -> bool:
    """Tell whether a place is inside a container of TRAINING, without counting a prefix that LIVE lists."""
    nest = max((f"{n}/" for n in LIVE if n and place.startswith(f"{n}/")), key=len, default="")
    return not TRAINING.isdisjoint(place[len(nest) :].split("/"))


class Ambiguous(UsageError):
    """Several parts of a file contain a model and nothing shows which is meant."""

    def __init__(self, path: str, places: list[str]):
        self.places = [label(place) for place in places]
        names = ", ".join(map(shown, self.places))
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
    ranks = [rank(cluster[0].place) for cluster in clusters]
    if ranks.count(min(ranks)) > 1:
        return Ambiguous(path, [c[0].place for c, r in zip(clusters, ranks, strict=True) if r == min(ranks)])
    return clusters[ranks.index(min(ranks))]
