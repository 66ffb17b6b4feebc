"""Refuse a file that leaves open a Config field that changes the outputs, with every remedy in one error."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin

from convert.errors import ConvertError, OpenFields, called, command_or_call, is_saving, option
from convert.files import folder_format
from convert.records import record as records
from specs import config as configs
from specs.numbers import exact
from specs.spec import ADAPTED, Spec
from specs.words import in_a_row

from .settings import spelled
from .variants import misfit

CANDIDATES = 50  # entries of a folder that are looked into for a record
SUGGESTED = 3  # records with the same values that an error names


def open_error(
    path: str,
    architecture: str,
    spec: Spec,
    names: Iterable[str],
    defaults: Mapping[str, str],
    shown: Mapping[str, Any],
    remarks: Iterable[str],
) -> OpenFields:
    """Return the error for fields that nobody states, with every remedy.

    Args:
      defaults: what `assume` would take, as text, of those for which there is something.
      shown: Config fields that the file's arrays show.
      remarks: why a record that is there does not help.
    """
    names = list(names)
    hints = configs.types_of(spec.config)
    accepted = defaults.keys() >= set(names)
    first, more = f"{names[0]}=...", " and so on" if len(names) > 1 else ""
    dictionary = f"dict({first}{', ...' if more else ''})"
    without = {f.name for f in fields(spec.config) if f.default is MISSING and f.name in names}
    guess = "" if accepted else f"; {option('assume')} does not help: {_without_default(names, without)}"
    problems = [
        f"with config={dictionary}{guess}"
        if is_saving()
        else command_or_call(
            f"with --set {first}{more}, or in a --config FILE{guess}",
            f"with {first}{more} in ports.load, settings={dictionary} in convert.plan{guess}",
        )
    ]
    if spec.meanings.keys() & set(names):
        what = "what it is, and its usual value" if len(names) == 1 else "what they are, and their usual values"
        page = command_or_call(f"{called('ports')} {architecture}", f"specs.get({architecture!r}).meanings")
        problems.append(f"{what}: {page}")
    if near := records_near(path, architecture, spec, shown):
        problems += _by_value(path, near, names, shown)
    if accepted:
        chosen = ", ".join(f"{name}={exact(defaults[name])}" for name in names)
        default = "the default, which is" if len(names) == 1 else "the defaults, which are"
        problems.append(f"or accept by {option('assume')} {default} then marked as assumed: {chosen}")
    choices = {f.name: (f.default,) for f in fields(spec.config) if f.name in names and f.default is not MISSING}
    choices |= {name: get_args(hints[name]) for name in names if get_origin(hints[name]) is Literal}
    fields_open = {name: _wanted(spec, name, hints[name]) for name in names}
    return OpenFields(path, architecture, fields_open, [*remarks, *problems], choices, shown)


def _wanted(spec: Spec, name: str, hint: Any) -> str:
    """Say what a field holds; of one with several numbers, give those of a variant, as they are typed."""
    values = (getattr(config, name) for config in spec.named.values())
    example = next((value for value in values if isinstance(value, tuple)), None)
    if get_origin(hint) is not tuple or example is None:
        return configs.describe(hint)
    return f"as in {command_or_call(spelled(name, configs.as_hxw(spec.config, name, example)), f'{name}={example}')}"


def _without_default(names: Sequence[str], without: Collection[str]) -> str:
    """Say which fields have no default, all of them or these, and why none can be assumed."""
    lacking = [name for name in names if name in without]
    has, them = ("has", "it") if len(lacking) == 1 else ("have", "them")
    return f"{in_a_row(lacking)} {has} no default, and models with the same arrays differ in {them}"


def _record(name: str) -> records.Record:
    """Read a record in a checkpoint or a .json file, compared with the checkpoint if that is there."""
    own = name.removesuffix(".json")
    return records.of_file(own) if own != name and os.path.isfile(own) else records.at(name)


def _by_value(
    path: str, near: Mapping[str, records.Record], names: Iterable[str], shown: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a line for the files whose records state equal values of these fields.

    Names like the file's own come first, behind them models with other classes, and what was written from this file or
    from another one of these: its values were given then. Values that a record only assumes come last.
    """
    from difflib import SequenceMatcher

    own = os.path.basename(path)
    sources = {own, *(os.path.basename(name.removesuffix(".json")) for name in near)}

    def likeness(name: str) -> tuple[bool, bool, bool, float]:
        doubtful, content = bool(near[name].assumed or near[name].damage), near[name].content
        is_other = any(content["config"].get(field) != shown[field] for field in ADAPTED if field in shown)
        source = content.get("source")
        is_made = isinstance(source, dict) and source.get("file") in sources
        return doubtful, is_other, is_made, -SequenceMatcher(None, own, os.path.basename(name)).ratio()

    def stating_it(name: str) -> str:
        """Spell what takes a record, with the classes of the file where the record is of others."""
        config = near[name].content["config"]
        others = [field for field in ADAPTED if field in shown and config.get(field) != shown[field]]
        return " ".join([option("config", name), *(command_or_call(spelled(f, shown[f]), "") for f in others)]).strip()

    groups: dict[str, list[str]] = {}
    for name in sorted(near, key=likeness):
        record = near[name]
        stated = {n: record.content["config"][n] for n in names if n in record.content["config"]}
        values = [f"{n}={exact(value)}{' (assumed)' if n in record.assumed else ''}" for n, value in stated.items()]
        if values:
            groups.setdefault(", ".join(values), []).append(name)
    for stating, files in groups.items():
        named = list(map(stating_it, files[:SUGGESTED]))
        more = [f"{len(files) - SUGGESTED} more"] if files[SUGGESTED:] else []
        yield f"or take {stating} from a record, if it is of the same model: {' or '.join([*named, *more])}"


def records_near(path: str, architecture: str, spec: Spec, shown: Mapping[str, Any]) -> dict[str, records.Record]:
    """Return {checkpoint or .json file in the folder of a file: its record} of those whose record fits its arrays."""
    folder = os.path.dirname(path.rstrip(os.sep))
    try:
        entries = sorted(os.listdir(folder or "."))
    except OSError:
        return {}
    fitting: dict[str, records.Record] = {}
    candidates = [e for e in entries if e.endswith((".json", ".safetensors")) or folder_format(os.path.join(folder, e))]
    for name in (os.path.join(folder, entry) for entry in candidates[:CANDIDATES]):
        try:
            record = _record(name) if name != path else records.Record()
        except ConvertError:
            continue
        fits = record.content.get("architecture") == architecture and not record.change
        if fits and not misfit(spec, record.content["config"], shown):
            fitting[name] = record
    return fitting
