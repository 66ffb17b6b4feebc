"""Read the record that travels with a converted file: what it is, its source, a hash of every tensor.

new.py builds one, and execute.py writes it.
"""

import json
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from convert import folding
from convert.arrays.counters import is_count
from convert.arrays.dtypes import LOSSES
from convert.errors import option
from convert.files import bounded_json
from convert.files.base import MAX_RECORD, Reader, record_at
from convert.version import __version__
from specs import words
from specs.preprocessing import Known, stated

from . import altered
from .other_file import other_arrays, other_bytes, other_values

INSIDE = "its record"  # the place of a record that the checkpoint itself holds
TOOL = "triptych-ports"  # what wrote a record
TOOL_VERSION = f"{TOOL} {__version__}"
KEY = "triptych"  # of the record in safetensors metadata; beside other formats it is FILE.json
SEAL = "record_sha256"  # of the record's other entries, as its last entry
DEFAULT, DIALECT, OFFICIAL = "default", "dialect ", "official "
SUGGEST = (DIALECT, OFFICIAL)  # how the origins begin that name what suggests a value
SUGGESTED = "origins"  # {Config field that nothing states of the file: "default", "dialect timm" or "official 768/32"}
EARLIER = "supplied by an earlier conversion, and not read from its source"  # of arrays, in notes
PARTLY = "supplied in part by an earlier conversion, and read from its source otherwise"
IN_PART = "supplied_in_part"  # names among those under "supplied"


class Record(NamedTuple):
    """What a checkpoint's record says, and how far it can be trusted.

    Args:
      place: where it lies: "its record", or the path of a .json; "" where there is none.
      content: the record; {} where there is none, or none that can be parsed.
      damage: why its text is not what this converter wrote; "" if it is.
      change: how the checkpoint differs from the one that the record describes; "" if it does not, so far as checked.
      sample: how few of its arrays' values were compared with their hashes; "" if all were.
    """

    place: str = ""
    content: Mapping[str, Any] = MappingProxyType({})
    damage: str = ""
    change: str = ""
    sample: str = ""

    def file(self, path: str) -> str:
        """Return the file in which it lies: the checkpoint itself, or the .json beside it."""
        return path if self.place == INSIDE else self.place

    @property
    def hints(self) -> dict[str, Any]:
        """Return what recognition may rely on: a record of other bytes says nothing of this file's names."""
        kept = ("architecture",) if self.change else ("architecture", "dialect")
        return {key: self.content[key] for key in kept if key in self.content}

    @property
    def carried(self) -> dict[str, int]:
        """Return batch counters of this file that no array of it stores; {} if the record is of other bytes."""
        counters = {} if self.change else self.content.get("carried", {})
        return {name: int(count) for name, count in counters.items() if is_count(count)}

    @property
    def assumed(self) -> frozenset[str]:
        """List the Config fields that the record marks as assumed, not known."""
        return frozenset(name for name in self.content.get("assumed", ()) if isinstance(name, str))

    @property
    def suggested(self) -> dict[str, str]:
        """Return {Config field that neither arrays nor anybody stated: what suggests its value}; see SUGGESTED."""
        origins = self.content.get(SUGGESTED, {})
        return {n: o for n, o in origins.items() if isinstance(o, str) and (o == DEFAULT or o.startswith(SUGGEST))}

    @property
    def nested(self) -> dict[str, str]:
        """Return {dialect of a file that these weights come from: the part of it that had them}, if it had one."""
        nested = self.content.get("nested", {})
        return {n: part for n, part in nested.items() if isinstance(part, str)} if isinstance(nested, dict) else {}

    @property
    def optimizer(self) -> dict[str, Any]:
        """Return what the record says of the optimizer's state in this file; {} if the record is of other bytes."""
        return {} if self.change or self.damage else self.content.get("optimizer", {})

    @property
    def earlier_optimizer(self) -> dict[str, Any]:
        """Return what the record says of the optimizer's state in other bytes, as before a training; else {}."""
        return self.content.get("optimizer", {}) if self.change and not self.damage else {}

    @property
    def supplied(self) -> frozenset[str]:
        """List arrays of this file that a conversion filled and did not read; none if the record is of other bytes."""
        names = [] if self.change else self.content.get("supplied", [])
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def supplied_in_part(self) -> frozenset[str]:
        """List those of `supplied` of which other elements were read."""
        names = self.content.get(IN_PART, [])
        return self.supplied & {name for name in names if isinstance(name, str)}

    def earlier(self, names: Iterable[str]) -> list[str]:
        """Report which of a file's arrays an earlier conversion supplied."""
        names = [name for name in names if name in self.supplied]
        groups = {
            what: [n for n in names if (n in self.supplied_in_part) == (what == PARTLY)] for what in (EARLIER, PARTLY)
        }
        return [f"{what} ({len(some):,}): {folding.summarised(some)}" for what, some in groups.items() if some]

    @property
    def preprocessing(self) -> tuple[Known, list[str]]:
        """Return what the record says of the preprocessing of images, and why it is not used, if it cannot be."""
        content = {**self.content.get("preprocessing", {})}
        assumed = content.pop("assumed", [])
        try:
            known = stated(content)
        except ValueError as error:
            return Known(), [f"it is not used: {error}"]
        names = known.values if not isinstance(assumed, list) else known.values.keys() & set(map(str, assumed))
        return Known(known.values, frozenset(names)), []

    @property
    def lossy(self) -> list[dict[str, Any]]:
        """Return what earlier conversions lost by changes of dtype."""
        entries = self.content.get("lossy", [])
        known = {"dtype": str, "tensors": int, **dict.fromkeys(LOSSES, int)}
        listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        whole = [{**dict.fromkeys(LOSSES, 0), **entry} for entry in listed]  # older ones lack a kind
        return [
            {key: entry[key] for key in known}
            for entry in whole
            if all(isinstance(entry.get(key), kind) for key, kind in known.items())
        ]

    @property
    def changed(self) -> str:
        """Return the warning that the file is no longer what the record describes."""
        return f"{altered.WARNING}{self.place} no longer fits the file, {self.change}: {altered.SINCE}"

    def notes(self, named: bool = False) -> list[str]:
        """Return what the user should know of the record: whether it is damaged or of other bytes, and what it lost.

        Args:
          named: whether the user names it by --config, and so takes what it says of an optimizer too.
        """
        return [
            *self._doubts(named),
            *altered.notes(self.place, self.content),
            *self.losses(),
            *self._no_counts(),
        ]

    def losses(self) -> list[str]:
        """Report what earlier conversions lost by changes of dtype."""
        return [
            f"{self.place} says that a conversion to {lost['dtype']} lost values in "
            f"{words.count(lost['tensors'], 'array')}: "
            + ", ".join(f"{lost[kind]:,} {became}" for kind, became in LOSSES.items() if lost[kind])
            for lost in self.lossy
        ]

    def _no_counts(self) -> list[str]:
        """Report batch counters of the record that are no counts."""
        counters = {} if self.change else self.content.get("carried", {})
        odd = [(name, f"is {str(count)[:40]}, no count: left out") for name, count in counters.items()
               if not is_count(count)]  # fmt: skip
        return [f"{self.place}: the batch counter {line}" for line in folding.misfits(odd)]

    def _doubts(self, named: bool) -> list[str]:
        if self.place and not self.content:
            return [f"{self.place} {self.damage}: it is ignored"]
        damage = f"{self.place} {self.damage}: its configuration is used, and may be wrong"
        used = "only its configuration is used"
        if self.content.get("optimizer"):
            config = option("config", self.file("FILE"))
            without = f"{used}; {config} also uses what it says of the optimizer"
            used = "only its configuration and what it says of the optimizer are used" if named else without
        change = f"{self.changed}; {used}"
        sample = f"{self.place} {self.sample}"
        doubts = ((damage, self.damage), (change, self.change), (sample, self.sample and not self.change))
        return [note for note, problem in doubts if problem]


def suggested_by(origin: str) -> str:
    """Say what suggests a value, as what follows "assumed"; see SUGGESTED. "dialects a and b" may both suggest it."""
    kind, _, dialects = origin.partition(" ")
    if kind in ("dialect", "dialects"):
        return f" as {dialects}'s own code computes"
    return " by default" if origin == DEFAULT else likely(origin)


def marked_by(origin: str) -> str:
    """Say what suggests a value, in brackets behind it: "assumed: official's own code", "default"; see SUGGESTED."""
    return f"assumed: {origin.removeprefix(DIALECT)}'s own code" if origin.startswith(DIALECT) else origin


def likely(origin: str) -> str:
    """Say that sizes alone suggest a value, as what follows "assumed"; "" of any other origin; see SUGGESTED."""
    return f" as in the {origin}" if origin.startswith(OFFICIAL) else ""


def read(reader: Reader) -> Record:
    """Return a checkpoint's record: the one inside it, else the one in the .json beside it."""
    if text := reader.metadata.get(KEY, ""):
        content = _parsed(text)
        return _compared(reader, Record(INSIDE, content, _damage(text, content)))
    if not reader.on_disk or os.path.isdir(reader.path):
        return Record()
    record = of_file(reader.path)
    return record if record.change or not record.content else _compared(reader, record)


def _compared(reader: Reader, record: Record) -> Record:
    """Compare a file with its record: names, shapes and dtypes of all arrays, and the values of a sample."""
    if change := other_arrays(reader, record.content):
        return record._replace(change=change)
    change, sample = other_values(reader, record.content)
    return record._replace(change=change, sample=sample)


def of_file(path: str) -> Record:
    """Return the record in the .json beside a file, as far as it can be checked without opening the file."""
    place = path + ".json"
    if not os.path.isfile(place):
        return Record()
    text = record_at(place)
    content = _parsed(text)
    return Record(place, content, _damage(text, content), other_bytes(path, content) if content else "")


def at(path: str) -> Record:
    """Read the record in a .json file alone, or of a checkpoint. Raises: FormatError for one that cannot be read."""
    if path.endswith(".json") and not path.endswith(".index.json"):
        text = record_at(path)
        content = _parsed(text)
        return Record(path, content, _damage(text, content))
    from convert.files import open_checkpoint

    with open_checkpoint(path) as reader:
        return read(reader)


def _damage(text: str, content: dict[str, Any]) -> str:
    """Return why a record's text is not what this converter wrote; "" if it is."""
    if not content:
        return "cannot be read as a record of this converter"
    if SEAL not in content:
        return "has no hash of itself: it was changed, or written by an older version"
    written = dumps(content, 1 if "\n" in text.rstrip() else None) == text.rstrip(" \n")
    return "" if written and sealed(content)[SEAL] == content[SEAL] else "is not as it was written"


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the hash of its other entries, which comes last."""
    import hashlib

    body = {key: value for key, value in content.items() if key != SEAL}
    return {**body, SEAL: hashlib.sha256(json.dumps(body).encode()).hexdigest()}


def dumps(content: dict[str, Any], indent: int | None = None) -> str:
    """Return a record's text."""
    return json.dumps(content, indent=indent)


def is_record(path: str) -> bool:
    """Tell whether a file is a record of ours, of whatever checkpoint."""
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    content = _parsed(record_at(path))
    return str(content.get("tool", "")).startswith(TOOL) and "tensors" in content


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = bounded_json.loads(text) if len(text) <= MAX_RECORD else None
    except ValueError:
        return {}
    kinds = {"architecture": str, "dialect": str, "config": dict, "carried": dict, "tensors": dict, "assumed": list,
             "supplied": list, "preprocessing": dict, SUGGESTED: dict, "optimizer": dict}  # fmt: skip
    if not isinstance(content, dict) or not ({"architecture", "config"} <= content.keys() or "table" in content):
        return {}
    fits = all(isinstance(content.get(key, kind()), kind) for key, kind in kinds.items())
    return content if fits and all(map(_is_line, content.get("tensors", {}).values())) else {}


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("shape"), list) and isinstance(line.get("dtype"), str)
