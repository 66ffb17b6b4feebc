"""Recognise arrays that are stored once for each device, as pmap leaves them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .errors import ConvertError, UsageError
from .recognise import Match


def refuse_replicas(path: str, groups: Iterable[list[Match]], attempt: Callable[[Match], Any]) -> None:
    """Explain a misfit that one leading axis of the same length on every array causes.

    Args:
      attempt: plans a match. Raises: ConvertError where its arrays do not fit.
    Raises: ConvertError where every array fits once that axis is removed.
    """
    for match in _all(groups):
        lengths = {tensor.shape[:1] for tensor in match.tensors.values()}
        if len(lengths) > 1 or () in lengths:
            continue
        one = {name: tensor._replace(shape=tensor.shape[1:]) for name, tensor in match.tensors.items()}
        try:
            attempt(match._replace(tensors=one))
        except UsageError:
            pass  # a Config field is open, with or without the axis
        except ConvertError:
            continue
        (count,) = lengths.pop()
        problem = f"every array has a leading axis of {count}, as pmap adds for {count} devices"
        rest = f"behind it they are those of {match.architecture} ({match.dialect})"
        raise ConvertError(f"{path}: {problem}; {rest}: save one replica, e.g. flax.jax_utils.unreplicate(state)")


def _all(groups: Iterable[list[Match]]) -> Iterator[Match]:
    """Every match, until recognition finds no more."""
    with contextlib.suppress(ConvertError):
        for group in groups:
            yield from group
