"""Parse settings: what the user states of a model, on the command line and in configuration files."""

import codecs
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, NamedTuple

from convert.errors import ConvertError, MissingFile, UsageError, command_or_call, option
from convert.files import FORMATS, bounded_json, folder_format, suffixes
from convert.files.inside import look
from convert.records import record as records
from convert.records.altered import WARNING
from specs import config as configs
from specs import paddlevit
from specs.numbers import exact
from specs.preprocessing import UNKNOWN, Known
from specs.preprocessing import stated as stated_preprocessing
from specs.spec import Spec, described

from .pixels import from_timm

IGNORED = "ignored, as no part of the model"  # sections of a configuration file
ASKED = "was asked for"  # of a Config field that the user states
MAX_NODES = 100_000  # values in a configuration file
MAX_BASES = 8  # files that a configuration file builds on, at each level, and levels
PREPROCESSING = "preprocessing"  # a name beside Config fields: {"preprocessing": {"crop": 0.875}}
MAX_JSON, MAX_YAML = 8 << 20, 64 << 10  # characters: a record may be long, and YAML takes seconds


class Settings(NamedTuple):
    """What the user states of a model.

    Args:
      values: Config fields, or what a dialect's own users write (see configure).
      assumed: names of values that come from a record which marks them as assumed.
      suggested: what suggests the values that nobody stated, as that record says; see record.SUGGESTED.
      architecture: of that record; "" where the values come from no record.
      notes: what the user should know of that record. of_record: {what that record's own `notes` say: the note on it}.
      file: the configuration file, or the checkpoint, that the values come from; "" where there is none.
      chosen: names of values that the user states one by one, above those of the file.
      others: names of values that another file states -> that file.
      preprocessing: of images; see specs.preprocessing.
      optimizer: what that record says of an optimizer's state.
    """

    values: Mapping[str, Any] = MappingProxyType({})
    assumed: frozenset[str] = frozenset()
    architecture: str = ""
    notes: tuple[str, ...] = ()
    file: str = ""
    chosen: frozenset[str] = frozenset()
    others: Mapping[str, str] = MappingProxyType({})
    preprocessing: Known = UNKNOWN
    suggested: Mapping[str, str] = MappingProxyType({})
    optimizer: Mapping[str, Any] = MappingProxyType({})
    of_record: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, values: "Stated") -> "Settings":
        """Return what was given as Settings; a path is read. Raises: ConvertError."""
        if isinstance(values, str | os.PathLike):
            return read_config(os.fspath(values))
        if isinstance(values, Settings):
            return values
        own, of_images = _fields_and_preprocessing(values or {})
        return cls(own, preprocessing=of_images)

    def above(self, chosen: Mapping[str, Any]) -> "Settings":
        """Put values that were chosen one by one above these, which come from a file.

        Raises: UsageError for preprocessing that does not fit.
        """
        own, of_images = _fields_and_preprocessing(chosen)
        return self._replace(
            values={**self.values, **own}, assumed=self.assumed - own.keys(), chosen=self.chosen | own.keys(),
            preprocessing=of_images.above(self.preprocessing),
            suggested={name: origin for name, origin in self.suggested.items() if name not in own},
        )  # fmt: skip

    def origin(self, name: str) -> str:
        """Name what states a Config field: "--set", "--config FILE", or another checkpoint."""
        if name in self.others:
            return self.others[name]
        if self.of_file(name):
            return option("config", self.file)
        return command_or_call("--set", "settings")

    def how(self, name: str) -> str:
        """Say how a Config field is stated, as what follows its value in a sentence."""
        origin = self.origin(name)
        if name in self.others:
            return f"is of {origin}"
        return f"{ASKED} by {origin}" if self.of_file(name) else ASKED

    def of_file(self, name: str) -> bool:
        """Tell whether a Config field comes from the file, and was not stated by itself."""
        return bool(self.file) and name not in self.chosen and name not in self.others


def _fields_and_preprocessing(values: Mapping[str, Any]) -> tuple[dict[str, Any], Known]:
    """Part Config fields from preprocessing. Raises: UsageError for preprocessing that does not fit."""
    nested, prefix = values.get(PREPROCESSING, {}), f"{PREPROCESSING}."
    if not isinstance(nested, Mapping):
        raise UsageError(f"{PREPROCESSING}: it is a mapping of its fields, as in {{'crop': 0.875}}")
    dotted = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    own = {name: v for name, v in values.items() if name != PREPROCESSING and not name.startswith(prefix)}
    return own, preprocessing({**nested, **dotted})


def preprocessing(values: Mapping[str, Any]) -> Known:
    """Return preprocessing as the user states it. Raises: UsageError that lists what does not fit."""
    try:
        return stated_preprocessing(values)
    except ValueError as error:
        raise UsageError(f"{PREPROCESSING}: {error}") from None


Stated = Mapping[str, Any] | Settings | str | os.PathLike[str] | None  # what users state, or a file that states it


def spelled(name: str, value: Any) -> str:
    """Spell a value for a shell as `setting` reads it: "--set dyrelu_coefs=1.0,0.5"."""
    import shlex

    flat = isinstance(value, list | tuple) and len(value) > 1 and not any(isinstance(v, list | tuple) for v in value)
    text = ",".join(map(exact, value)) if flat else exact(value)
    return f"--set {shlex.quote(f'{name}={text}')}"


def setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text}: write KEY=VALUE")
    return key, configs.parse(value)


def stated_settings(arguments: Namespace) -> Settings:
    """Read --set and --config; what --set states goes above the file. Raises: ConvertError."""
    chosen: dict[str, Any] = {}
    for name, value in map(setting, arguments.set):
        if chosen.setdefault(name, value) != value:
            raise UsageError(f"--set {name}: given twice, as {chosen[name]} and as {value}")
    if image := getattr(arguments, "image", None):
        name, size = f"{PREPROCESSING}.image", configs.parse(image)
        if chosen.setdefault(name, size) != size:
            raise UsageError(f"--image {image}: --set {name}={chosen[name]} says another size")
    base = read_config(arguments.config) if arguments.config else Settings()
    both = [name for name, value in chosen.items() if base.values.get(name, value) != value]
    origin = f"--config {arguments.config}"
    notes = [f"--set {k}={exact(chosen[k])} is used in place of {k}={exact(base.values[k])} of {origin}" for k in both]
    return base.above(chosen)._replace(notes=(*base.notes, *notes))


def read_config(path: str) -> Settings:
    """Return the configuration in a JSON or YAML file, in the record of a checkpoint, or in the .json beside one."""
    path = look(path).path
    name = path.rstrip(os.sep).lower()
    if folder_format(path) or (name.endswith(suffixes(FORMATS)) and os.path.lexists(path)) or _is_binary(path):
        return _recorded(path, records.at(path))
    values = _mapping(path)
    if "config" in values and "architecture" in values:
        return _recorded(path, records.at(path))
    if "pretrained_cfg" in values:
        return _of_timm(path, values)
    values, notes = _of_model(path, _with_bases(path, values))
    try:
        stated = {key: configs.tuples(value) for key, value in values.items()}
    except RecursionError:
        raise ConvertError(f"{path}: is nested too deeply") from None
    own, of_images = _fields_and_preprocessing(stated)
    of_images = of_images.above(preprocessing(paddlevit.preprocessing(values)))
    return Settings(own, notes=tuple(notes), file=path, preprocessing=of_images)


def _is_binary(path: str) -> bool:
    """Tell whether a file is no text, as a checkpoint under a name of its own: model.pth.tar."""
    if not os.path.isfile(path):  # a pipe can be read once
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:  # said where it is read as text
        return False
    return not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and (b"\0" in head or head[:1] == b"\x80")


def in_our_terms(spec: Spec, values: Mapping[str, Any], dialect: str = "") -> dict[str, Any]:
    """Return Config fields, also from a configuration file of a dialect's users, whose sections are in capitals.

    Args:
      dialect: of the file that is read; "" where there is none, and for the ports' own.
    Raises: LookupError where no such files are known; ValueError where one does not fit.
    """
    own = {field.name for field in fields(spec.config)}  # in capitals, they are misspelt: misfits names them
    foreign = {name: value for name, value in values.items() if name.isupper() and name.lower() not in own}
    if not foreign:
        return dict(values)
    readers = list(spec.readers.values()) if not dialect else [spec.readers[dialect]] if dialect in spec.readers else []
    if not readers:
        names = ", ".join(field.name for field in fields(spec.config))
        whose = f" of {dialect}" if dialect else ""
        raise LookupError(f"no configuration files{whose} are known: give Config fields ({names})")
    return {**_read_by(readers[0], foreign), **{name: value for name, value in values.items() if name not in foreign}}


def _read_by(reader: Callable[[Mapping[str, Any]], dict[str, Any]], foreign: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Config fields that a page reads off a parsed configuration file. Raises: ValueError."""
    try:
        return dict(reader(foreign))
    except ValueError:
        raise
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]} in it") from error
    except Exception as error:  # of the page's own code
        raise ValueError(f"the page's reader of such files fails: {described(error)}") from error


def _with_bases(path: str, values: dict[str, Any], outer: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merge the files that BASE names into one that builds on them, as PaddleViT does. Raises: ConvertError."""
    bases = values.pop("BASE", None)
    names = [bases] if isinstance(bases, str) else bases or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConvertError(f"{path}: BASE={bases!r}: it is a list of names of files")
    merged: dict[str, Any] = {}
    for name in filter(None, names):
        base = os.path.join(os.path.dirname(path), name)
        chain = (*outer, os.path.realpath(path))
        if os.path.isabs(name) or os.path.realpath(base) in chain or len(chain) > MAX_BASES or len(names) > MAX_BASES:
            what = f"BASE names {name!r}: give files beside this one, {MAX_BASES} at most, that do not name each other"
            raise ConvertError(f"{path}: {what}")
        merged = _merged(merged, _with_bases(base, _mapping(base), chain))
    return _merged(merged, values)


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, section by section."""
    both = {
        key: _merged(lower[key], value) if isinstance(value, dict) and isinstance(lower.get(key), dict) else value
        for key, value in upper.items()
    }
    return {**lower, **both}


def _of_model(path: str, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Tell what a file of sections in capitals says of a model, and a note on the sections that nobody knows."""
    if not any(name.isupper() for name in values) or "MODEL" not in values:
        return values, []
    known = {name: value for name, value in values.items() if not name.isupper() or name in paddlevit.SECTIONS}
    ignored = [name for name in values if name not in known]
    what = f"{option('config', path)}: {IGNORED}: {', '.join(ignored)}"
    return known, [what] if ignored else []


def _of_timm(path: str, values: Mapping[str, Any]) -> Settings:
    """Read the preprocessing in a config.json of timm's. Raises: ConvertError for what does not fit."""
    try:
        pixels, remarks = from_timm(values)
    except ValueError as error:
        raise ConvertError(f"{path}: {PREPROCESSING}: {error}") from None
    ignored = ", ".join(name for name in values if name != "pretrained_cfg")
    remarks += [f"only its preprocessing is used; ignored: {ignored}"] if ignored else []
    notes = tuple(f"{option('config', path)}: {line}" for line in remarks)
    return Settings(notes=notes, file=path, preprocessing=pixels)


def _recorded(path: str, record: records.Record) -> Settings:
    """Return the configuration of a record. Raises: ConvertError where there is none."""
    if not record.content:
        why = f"{record.place} {record.damage}" if record.place else "it has no record of this converter"
        raise ConvertError(f"{option('config', path)}: {why}: give a file that this converter wrote, or JSON or YAML")
    content = record.content
    try:
        values = {key: configs.tuples(value) for key, value in content.get("config", {}).items()}
    except RecursionError:
        raise ConvertError(f"{path}: is nested too deeply") from None
    known, problems = record.preprocessing
    doubts = [*record._replace(sample="").notes(named=True), *(f"{PREPROCESSING}: {what}" for what in problems)]
    assumed = record.assumed & values.keys()
    notes = {note: f"{option('config', path)}: {note.removeprefix(WARNING)}" for note in doubts}
    known = known.all_assumed() if record.damage else known
    return Settings(
        values, assumed, content.get("architecture", ""), tuple(notes.values()), path, preprocessing=known,
        suggested=record.suggested, of_record=notes,
        optimizer={} if record.damage else content.get("optimizer", {}),  # also of earlier bytes, as the user names it
    )  # fmt: skip


def _mapping(path: str) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file. Raises: ConvertError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
    except FileNotFoundError:
        raise MissingFile(path) from None
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConvertError(f"{path}: cannot be read: {error}") from None
    if len(text) > (MAX_JSON if path.endswith(".json") else MAX_YAML):
        raise ConvertError(f"{path}: is too long: give the model's configuration alone")
    values = _parse_config(path, text)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConvertError(f"{path}: holds no mapping of names to values")
    if _is_large(values):
        raise ConvertError(f"{path}: holds over {MAX_NODES:,} values: give the model's configuration alone")
    return values


def _is_large(value: Any) -> bool:
    """Tell whether it holds over MAX_NODES values: YAML's references can make billions of a few, or a ring."""
    stack = [value]
    for _ in range(MAX_NODES):
        if not stack:
            return False
        inner = stack.pop()
        stack += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
    return True


def _parse_config(path: str, text: str) -> Any:
    lines = (line.strip() for line in text.splitlines())
    if next((line for line in lines if line and not line.startswith("#")), "").startswith("table 1"):
        raise ConvertError(f"{path}: is a Table, which {option('table', path)} takes, and states no settings")
    if path.endswith(".json"):
        try:
            return bounded_json.loads(text)
        except ValueError as error:
            raise ConvertError(f"{path}: cannot be read as JSON: {error}") from None
    from convert.files import bounded_yaml  # that few commands need

    try:
        return bounded_yaml.loads(text)
    except ValueError as error:
        raise ConvertError(f"{path}: cannot be read as YAML: {error}") from None
