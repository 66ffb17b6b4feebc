"""Write what `inspect` has found as lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import specs
from convert.errors import OpenFields
from convert.files import format_called
from convert.folding import cut, fold
from convert.reading.nesting import ROOT
from convert.reading.readings import normal
from convert.records.altered import WARNING
from convert.records.record import DIALECT, suggested_by
from convert.terminal import table
from specs import config as configs
from specs.numbers import exact
from specs.words import count, in_a_row, with_article

BY_TABLE = "written by a Table"  # begins what the record of such a conversion says
HEADS = ("dtype", "shape", "name")  # of the list of arrays
REASONS = 5  # printed of why the nearest architecture does not fit


def lines(about: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the description as text: names with numbers folded."""
    if about["record"]:
        yield f"{'record:':14}{'; '.join(about['record'])}"
    yield from _facts(about, path)
    yield from _nearest(about["nearest"]) if about["nearest"] else ()
    yield from _config(about)
    yield from _pixels(dict(about["preprocessing"]))
    yield from _optimizer(about["optimizer"])
    yield from _state(about["state"]) if about["state"] else ()
    yield from _open(about, path) if about["open"] else ()
    for note in about["notes"]:
        yield f"{WARNING if note.startswith(WARNING) else 'note:':14}{note.removeprefix(WARNING)}"
    yield from _tensors(about)
    yield from _aside(about)


def _facts(about: dict[str, Any], path: str) -> Iterator[str]:
    """Yield what the file is, a line a key, and how many elements it has."""
    by_table = any(line.startswith(BY_TABLE) for line in about["record"])
    unknown = () if about["architecture"] else ("dialect", "variant", "part", *["architecture"] * by_table)
    unknown = ("architecture", "dialect", "variant") if about["state"] else unknown
    for key in ("format", "dialect", "architecture", "variant", "part", "parameters", "dtype", "sha256"):
        if key in about and key not in unknown and not (key == "part" and about[key] == ROOT):
            label = "elements" if key == "parameters" and not about["named"] else key
            yield f"{label + ':':14}{_stated(about, key, path)}"
        if key == "parameters":
            yield from (f"{'':14}and {count(number, 'element')} of {what}" for number, what in _beside(about) if number)


def _nearest(near: dict[str, Any]) -> Iterator[str]:
    """Name the nearest architecture, and why it does not fit."""
    fits = f"which {'may fit' if near['open'] else 'does not fit'}:"
    yield f"{'nearest:':14}{near['architecture']} ({near['dialect']}), {fits}"
    yield from (f"  - {reason}" for reason in near["reasons"][:REASONS])
    if more := len(near["reasons"][REASONS:]):
        yield f"  - and {count(more, 'more reason')}"


def _config(about: dict[str, Any]) -> Iterator[str]:
    """Yield the fields of the Config, and what suggests those that the file does not state."""
    stated = [name for name, value in about["config"].items() if value is not None or name not in about["origins"]]
    if about["config"]:
        own = specs.get(about["architecture"]).config
        config = {name: exact(configs.as_hxw(own, name, about["config"][name])) for name in stated}
        yield f"{'config:':14}{' '.join(f'{name}={value}' for name, value in config.items())}"
        if absent := [name for name in about["config"] if name not in stated]:
            yield f"{'':14}not stated: {', '.join(absent)}"
    origins = {name: origin for name, origin in about["origins"].items() if name in stated}
    yield from (f"{'':14}{line}" for line in _suggested(origins, about["dialect"], about["record"]))


def _pixels(known: dict[str, Any]) -> Iterator[str]:
    """Say with which pixels the model is fed, as far as that is known, but for an assumed size that the Config has."""
    if known and not (known.keys() == {"image", "assumed"} and known["assumed"]):
        assumed = known.pop("assumed")
        if "image" in known:
            known["image"] = "x".join(map(str, configs.pair(known["image"])))  # as the Config is written
        yield f"{'pixels:':14}{' '.join(f'{k}={exact(v)}' for k, v in known.items())}"
        which = "all of these" if {*assumed} >= {*known} else ", ".join(assumed)
        yield from ([f"{'':14}assumed, not stated: {which}"] if assumed else [])


def _optimizer(known: dict[str, Any]) -> Iterator[str]:
    """Say which optimizer's state the record of a file describes, with its steps, hyperparameters and averages."""
    from convert.optimizer.state import KIND, recorded

    hyper = recorded(known)
    if kind := hyper.pop("kind", ""):
        steps = [f"after {count(known['step'], 'step')}"] if type(known.get("step")) is int else []
        settings = [f"{name}={exact(value)}" for name, value in hyper.items()]
        listed = known.get("assumed")
        is_assumed = isinstance(listed, list) and KIND in listed
        assumed = " (its kind was stated by --hyper: no state shows it)" * is_assumed
        yield f"{'optimizer:':14}{' '.join([kind, *steps, *settings])}, as its record says{assumed}"
    averages = known.get("averages")
    for one in averages if isinstance(averages, list) else ():
        if isinstance(one, dict) and isinstance(one.get("to"), str) and type(one.get("averaged")) is int:
            yield f"{'averages:':14}{one['to'][:80]}, of {count(one['averaged'], 'average')}, as its record says"


def summarised_state(state: dict[str, Any]) -> str:
    """Say what training state a part is, and how many steps it counts; "" where it shows neither."""
    *others, last = state["steps"] or [None]
    steps = [f"after {in_a_row([*(f'{step:,}' for step in others), count(last, 'step')])}"] if last is not None else []
    return ", ".join([*filter(None, [state["keeps"]]), *steps])


def _state(state: dict[str, Any]) -> Iterator[str]:
    """Say what training state a part is, how many steps it counts, and what plain values it has."""
    if known := summarised_state(state):
        yield f"{'state:':14}{known}"
    if values := state["values"]:
        yield f"{'values:':14}{len(values):,}"
        yield from table(("value", "name"), [(cut(exact(value)), name) for name, value in values.items()])


def _open(about: dict[str, Any], path: str) -> Iterator[str]:
    """Say which fields the file leaves open, and how to state them."""
    wanted = about["open"].wanted() if isinstance(about["open"], OpenFields) else about["open"]
    first, *remedies = str(wanted).removeprefix(f"{path}: ").split("\n")
    if near := about["nearest"]:
        first = f"if it is {with_article(near['architecture'])}, {first}"
    yield from (f"{'open:':14}{first}", *(f"{'':14}{remedy.strip()}" for remedy in remedies))


def _tensors(about: dict[str, Any]) -> Iterator[str]:
    """Yield the arrays, but for those that are set aside."""
    aside = {entry["name"] for entry in about["aside"]}
    containers = tuple(name for name in aside if name.endswith(("/", ".")))
    shown = {n: one for n, one in about["tensors"].items() if n not in aside and not n.startswith(containers)}
    shown = shown or about["tensors"]  # of a file that has nothing else
    hidden = len(about["tensors"]) - len(shown)
    parts = f", of which {len(shown):,} are listed here, and {hidden:,} set aside" if hidden else ""
    yield f"{'arrays:':14}{len(about['tensors']):,}{parts}"
    yield from _listed({name: (tensor["dtype"], str(tensor["shape"])) for name, tensor in shown.items()})


def _aside(about: dict[str, Any]) -> Iterator[str]:
    """Yield what a conversion sets aside, each with the reason."""
    if about["aside"]:
        yield f"{'set aside:':14}{count(sum(entry['arrays'] for entry in about['aside']), 'array')}"
    for entry in about["aside"]:
        yield f"  {entry['name']}: {entry['detail'] or count(entry['arrays'], 'array')} ({entry['reason']})"
    yield from (f"{'set aside:':14}{line}" for line in about["skipped"])


def _suggested(origins: dict[str, str], dialect: str, record: list[str]) -> Iterator[str]:
    """Say of each Config field that the file does not state what suggests its value.

    Args:
      dialect: of the file; a record names that of the file from which it was converted. record: what is said of it.
    """
    for origin in dict.fromkeys(origins.values()):
        by_record = origin.startswith(DIALECT) and (record or origin != f"{DIALECT}{dialect}")
        names = ", ".join(name for name in origins if origins[name] == origin)
        yield f"{'by its record, ' * bool(by_record)}assumed{suggested_by(origin)}: {names}"


def _beside(about: dict[str, Any]) -> list[tuple[int, str]]:
    """Return how many elements of a model are no parameters, and what they are."""
    statistics = about["statistics"] - about["buffers"]
    return [
        (statistics, "running statistics and counters"),
        (about["buffers"], "integer buffers"),
        (about["masks"], "masks, of bool"),
    ]


def _stated(about: dict[str, Any], key: str, path: str) -> str:
    """Return what is known of a file under one key, as people read it."""
    if about[key] is None:
        return "no official variant" if key == "variant" and about["architecture"] else "unknown"
    if key == "format":
        return format_called(about[key], path)
    return f"{about[key]:,}" if key == "parameters" else str(about[key])


def _listed(tensors: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Yield arrays with dtype and shape; fold numbers of modules that have the same arrays.

    Names, which may be long, stand last, so that no row breaks the columns.

    A norm and a dense layer, whose biases are alike, stay apart: their other arrays are not.
    """
    tensors = _numbered(tensors)
    modules: dict[str, set[tuple[str, tuple[str, str]]]] = {}
    for name, what in tensors.items():
        modules.setdefault(_module(name), set()).add((name.removeprefix(_module(name)), what))
    kinds = {module: frozenset(arrays) for module, arrays in modules.items()}
    groups: dict[tuple[str, tuple[str, str], frozenset[tuple[str, tuple[str, str]]]], list[str]] = {}
    for name, what in tensors.items():
        groups.setdefault((normal(name), what, kinds[_module(name)]), []).append(name)
    rows = [(*tensors[names[0]], name) for names in groups.values() for name in fold(names)]
    order = {module: n for n, module in reversed([*enumerate(_module(row[-1]) for row in rows)])}
    rows.sort(key=lambda row: order[_module(row[-1])])  # the arrays of a module stand together
    yield from table(HEADS, rows) if rows else ()


def _numbered(tensors: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Sort numbers in names as numbers where a file's order is alphabetical in each dtype, as of safetensors and flax.

    Another order is that of the model, and stays.
    """
    by_dtype: dict[str, list[str]] = {}
    for name, (dtype, _) in tensors.items():
        by_dtype.setdefault(dtype, []).append(name)
    if any(names != sorted(names) for names in by_dtype.values()):
        return tensors
    pieces = {name: re.split(r"(\d+)", name) for name in tensors}  # text and numbers in turn
    keys = {name: [(int(p), "") if k % 2 else (0, p) for k, p in enumerate(its)] for name, its in pieces.items()}
    return {name: tensors[name] for name in sorted(tensors, key=keys.__getitem__)}


def _module(name: str) -> str:
    """Return what stands before the last level of a name: "blocks.0.norm" of "blocks.0.norm.bias"."""
    return name[: max(name.rfind("."), name.rfind("/"), 0)]
