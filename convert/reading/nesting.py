"""Tell what the levels of a file's names mean: where scripts nest weights, copies, training state, wrappers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise

from convert.errors import UsageError, option
from convert.files.base import Tensor, shown
from specs.kinds import COLLECTIONS
from specs.words import count, first_few

ROOT = "/"  # what --weights calls the whole file
# Where training scripts nest the weights that they train, best guess first.
LIVE = (
    "", "params", "state_dict", "model", "0", "0/params", "params/params", "app/model", "opt/target",
    "optimizer/target", "target/params", "opt/target/params", "optimizer/target/params", "model_state_dict", "net",
    "module", "train_state", "train_state/params",
)  # fmt: skip
AVERAGES = {"ema", "averaged", "average", "avg", "swa", "shadow", "polyak"}  # words in the name of an average
COPIES = AVERAGES | {"old", "previous", "prev", "backup"}  # in that of any copy: never taken while others are there
# Containers of training state; what an optimizer stores for each array has the array's own name.
TRAINING = {
    "opt_state", "opt_states", "opt", "optimizer", "optimizers", "optimizer_state", "optimizer_states",
    "optimizer_state_dict", "optim", "step", "epoch", "lr_scheduler", "scaler", "amp_scaler", "rng", "rngs", "extra",
    "n_averaged", "train_state", "mu", "nu", "exp_avg", "exp_avg_sq", "momentum", "trace", "amp", "grad_scaler",
    "schedulers", "lr_schedulers", "master_weights", *(f"optimizer_{number}" for number in range(8)),
}  # fmt: skip
# The one of them that contains only what lies in it directly, as a step: a TrainState in it has weights as well.
WHOLE = "train_state"
# Those of them that are single arrays; an array with another of these names, as "extra" or "mu", may be a parameter.
SINGLE = {"step", "epoch", "n_averaged", "rng", "rngs"}
SCALER = {"fin_steps", "scale"}  # what flax's DynamicScale stores: steps since the last change, and the loss scale
PROFILED = ("total_ops", "total_params")  # buffers that thop's profile adds to every module
RANDOM = "/rngs/"  # where each layer of an nnx module has the state of its random numbers
DEPTH, LEAST, MOST = 8, 8, 100  # places looked at: segments deep, arrays with known names, number of places
MAX_ARRAYS = 10_000  # of a model: ten times the largest known here
SHOWN = 8  # places that an error names, names of one container that a note lists
LONGEST = 512  # characters in a name of a model

SEPARATOR = re.compile(r"[/.]")
LEVEL = re.compile(r"/|\.(?=[^/]*$)")  # ends a level: a dot before a slash is one of a container's name, as ema_0.999/
WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"

# What torch.compile, activation checkpointing, FSDP, DataParallel and Lightning's strategies put before the names of a
# module's parts: of the whole module or of one inside, of all its parts or of some.
WRAPPERS = r"(?:^|(?<=[/.]))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module|module)\."


def unwrapped(name: str) -> str:
    """Remove the wrappers in a name: "_orig_mod.blocks.0._orig_mod.norm" -> "blocks.0.norm"."""
    if "mod" not in name:  # as most do not
        return name
    while (plain := re.sub(WRAPPERS, "", name)) != name:  # what was behind a wrapper may be another
        name = plain
    return name


def has_word(text: str, words: Collection[str] = COPIES) -> bool:
    """Tell whether a place, or a level of one, has one of these words in its name: "ema_params", "modelEMA"."""
    lower = text.lower()
    is_inside = any(word in lower for word in words)  # before a closer look, which costs more
    return is_inside and any(word.lower() in words for word in re.findall(WORD, text))


def label(place: str) -> str:
    """Return a place as messages and --weights write it: "params/" -> "params", "state_dict/module." stays."""
    return place.removesuffix("/")


def cuts(name: str) -> Iterator[int]:
    """Yield positions at which the name of a model's array may begin: 0 and after each of the first separators."""
    yield 0
    for number, separator in enumerate(LEVEL.finditer(name), 1):
        if number > DEPTH:
            return
        yield separator.end()


def chosen(tensors: Mapping[str, Tensor], weights: str | None) -> list[str]:
    """Return the prefixes of names that `weights` may mean: "ema", "ema/" and "state_dict/module." are such.

    That is a whole place, or the end of one. Where it is neither, what it would be as a whole place.
    """
    if not weights or weights == ROOT:
        return [""]
    spellings = [weights] if weights[-1] in "/." else [f"{weights}/", f"{weights}."]
    whole = [spelling for spelling in spellings if any(name.startswith(spelling) for name in tensors)]
    inner = (cut for spelling in spellings for name in tensors for cut in _ends(name, spelling))
    return whole or list(dict.fromkeys(islice(inner, MOST * MAX_ARRAYS))) or spellings[:1]


def unclear(path: str, weights: str, roots: Iterable[str]) -> UsageError:
    """Return the error for a choice of weights that may mean several places."""
    places = [label(root) for root in roots]
    names = several(places)
    given, remedy = option("weights", weights), option("weights", places[0])
    return UsageError(f"{path}: {given} may mean each of {names}: give one of them whole, as in {remedy}")


def several(places: Sequence[str]) -> str:
    """Return the first of several places in one line, and how many more there are."""
    return first_few([shown(place) for place in places], SHOWN)


def _ends(name: str, spelling: str) -> Iterator[str]:
    """Yield the place in a name that ends with `spelling`, after a separator."""
    for separator in "/.":
        if (at := name.find(separator + spelling, 0, LONGEST)) >= 0:
            yield name[: at + 1 + len(spelling)]


def prefix(name: str, depth: int) -> str:
    """Return the first `depth` segments of a name, with their separators."""
    if not depth:
        return ""
    for number, separator in enumerate(LEVEL.finditer(name), 1):
        if number == depth:
            return name[: separator.end()]
    raise AssertionError(name)


def statistics_of(place: str) -> str:
    """Return where the running statistics of params lie in linen: "ema_params/" -> "ema_batch_stats/"; or ""."""
    outer, slash, level = label(place).rpartition("/")
    trained, statistics = COLLECTIONS
    return f"{outer}{slash}{level.replace(trained, statistics)}/" if trained in level else ""


def training(name: str) -> str:
    """Return the outermost container of training state in which an array or a place lies, with its slash.

    The array itself if it is one; "" outside of any.
    """
    segments = name.split("/")
    last = len(segments) - 1
    depth = next(
        (d for d, level in enumerate(segments) if level in TRAINING and (level != WHOLE or d + 1 == last)), None
    )
    if depth is None or (len(segments) == 1 and name not in SINGLE):
        return ""
    return "/".join(segments[: depth + 1]) + ("/" if depth + 1 < len(segments) else "")


def training_state(names: Collection[str]) -> dict[str, str]:
    """Return {name: its container} of the names that are training state: see training, and flax's DynamicScale.

    A user's state has the latter by any name.
    """
    places = {name.removesuffix("fin_steps") for name in names if name.endswith("/fin_steps")}
    inside = {place: [name for name in names if name.startswith(place)] for place in places}
    scalers = (place for place, own in inside.items() if {name.removeprefix(place) for name in own} == SCALER)
    scaled = {name: place for place in scalers for name in inside[place]}
    return {name: container for name in names if (container := training(name) or scaled.get(name, ""))}


def copied_place(name: str, words: Collection[str] = COPIES) -> str:
    """Return the place in a name up to the first level with one of these words; "" where none has one."""
    name = name[:LONGEST]
    places = (name[:start] for before, start in pairwise(cuts(name)) if has_word(name[before:start], words))
    return next(places, "") if has_word(name, words) else ""


def by_container(names: Iterable[str]) -> list[str]:
    """Return names, for those of training state, of copies, and of a top level with many, their containers.

    As in "opt/ (88 arrays)".
    """
    every = list(names)
    tops = Counter(name.partition("/")[0] for name in every if "/" in name)
    many = {f"{top}/" for top, number in tops.items() if number > SHOWN}

    def container(name: str) -> str:
        top = f"{name.partition('/')[0]}/"
        return training(name) or copied_place(name) or (top if top in many else name)

    counts = Counter(map(container, every))
    counted = {name: f"{name} ({count(number, 'array')})" for name, number in counts.items()}
    return [text if name[-1] in "/." else name for name, text in counted.items()]


def within(names: Iterable[str], others: Iterable[str]) -> set[str]:
    """Return those names that lie in a container of training state in which others lie."""
    containers = {training(name) for name in others} - {""}
    return {name for name in names if training(name) in containers}


def rank(place: str) -> tuple[bool, int, bool]:
    """Return a key to sort places: trained weights before copies of them, usual places first, outer ones first."""
    nest = place.rpartition("/")[0]
    live = max((n for n in LIVE if n == nest or (n and nest.startswith(f"{n}/"))), key=len, default=None)
    beyond = place[len(live) :].strip("/") if live is not None else place
    return has_word(place), LIVE.index(live) if live is not None else len(LIVE), bool(beyond)


def is_training(place: str) -> bool:
    """Tell whether a place is inside a container of TRAINING, without counting a prefix that LIVE lists."""
    nest = max((f"{n}/" for n in LIVE if n and place.startswith(f"{n}/")), key=len, default="")
    return not TRAINING.isdisjoint(place[len(nest) :].split("/"))
