"""Parse YAML of a stranger's file. A merge (<<) of references copies what they stand for: what it makes is counted."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_ENTRIES = 100_000  # of all mappings, what is merged into them included
MAX_BITS = 1024  # of an integer; longer ones can be written, but not be told


class _Loader(yaml.SafeLoader):
    """Like its base, within bounds. A mapping is flattened each time before it is merged into another."""

    entries = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self.entries += len(node.value)
        if self.entries > MAX_ENTRIES:
            raise ValueError(f"it merges over {MAX_ENTRIES:,} values")

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > MAX_BITS:
            raise ValueError(f"it holds an integer of over {MAX_BITS} bits")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
# A number with an exponent is one without a dot too: YAML 1.2 and JSON say so, and PyYAML's 1.1 reads 1e-6 as a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def loads(text: str) -> Any:
    """Parse as yaml.safe_load does, and 1e-6 as a number.

    Raises: ValueError where it is no YAML, or makes too much of few characters.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (AttributeError, LookupError):  # a value that is not what its tag says
        raise ValueError("it holds a value of another type than it says") from None
