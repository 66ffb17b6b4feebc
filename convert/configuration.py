"""Config fields from the command line and from files."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from specs import config as configs

from .errors import ConvertError, UsageError
from .formats import bounded_json

MAX_NODES = 100_000  # values in a configuration file
MAX_JSON, MAX_YAML = 8 << 20, 64 << 10  # characters: a record may be long, and YAML takes seconds


def setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text}: write KEY=VALUE")
    return key, configs.parse(value)


def told(arguments: Namespace) -> dict[str, Any]:
    """Config fields of --set, above those of --config. Raises: ConvertError."""
    settings = dict(map(setting, arguments.set))
    return (read_config(arguments.config) if arguments.config else {}) | settings


def read_config(path: str) -> dict[str, Any]:
    """What a JSON or YAML file says: Config fields, or what a dialect's own users write (see configure)."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path}: cannot be read: {error}") from None
    if len(text) > (MAX_JSON if path.endswith(".json") else MAX_YAML):
        raise ConvertError(f"{path}: is too long: give the model's configuration alone")
    values = _parse_config(path, text)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConvertError(f"{path}: holds no mapping of names to values")
    if _is_large(values):
        raise ConvertError(f"{path}: holds over {MAX_NODES:,} values: give the model's configuration alone")
    if "config" in values and "architecture" in values:  # the .json beside a converted file
        values = values["config"]
    try:
        return {key: configs.tuples(value) for key, value in values.items()}
    except RecursionError:
        raise ConvertError(f"{path}: is nested too deeply") from None


def _is_large(value: Any) -> bool:
    """Whether it holds over MAX_NODES values: YAML's references can make billions of a few, or a ring."""
    stack = [value]
    for _ in range(MAX_NODES):
        if not stack:
            return False
        inner = stack.pop()
        stack += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
    return True


def _parse_config(path: str, text: str) -> Any:
    if path.endswith(".json"):
        try:
            return bounded_json.loads(text)
        except ValueError as error:
            raise ConvertError(f"{path}: cannot be read as JSON: {error}") from None
    from .formats import bounded_yaml  # that few commands need

    try:
        return bounded_yaml.loads(text)
    except ValueError as error:
        raise ConvertError(f"{path}: is no YAML: {error}") from None
