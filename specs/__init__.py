"""One page an architecture, free of any framework: Config, VARIANTS, TINY, layers, infer, input_shape, DIALECTS."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any

# What specs are written in; every other module is an architecture.
_RECORDS = {
    "layer", "config", "init", "resize", "paddlevit", "notation", "arrays", "signature", "parsing", "table", "matching",
    "sizes", "layout", "compose",
}  # fmt: skip


# A glance at a checkpoint's names: which architecture to try before all others, whose specs then need not be imported.
_SIGNS = {
    "dynamixer": r"reweight",
    "mobile_former": r"to_?former",
    "raft_mlp": r"levels[._]\d",  # before mlp_mixer: some of its blocks have a token_mix too
    "mlp_mixer": r"(?i)token_?mix|mlp_tokens",
    "convmixer": r"(?i)depth_?wise|\d\.fn\.\d",
}
_GLANCE = 500  # names


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _RECORDS))


def names() -> list[str]:
    """Every architecture."""
    return list(_names())


def likely(names: Iterable[str]) -> str | None:
    """The architecture that these names of arrays seem to be of, in whatever dialect; None where they are strange."""
    some = list(islice(names, _GLANCE))
    return next((name for name, sign in _SIGNS.items() if any(map(re.compile(sign).search, some))), None)


def get(name: str) -> Any:
    """The spec of an architecture. Raises: ValueError with the nearest name."""
    if name not in names():
        from .config import unknown

        raise ValueError(f"{unknown(name, names())} (architectures: {', '.join(names())})")
    return importlib.import_module(f"{__name__}.{name}")
