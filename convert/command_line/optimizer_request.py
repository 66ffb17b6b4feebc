"""Read what the user asks of the state of an optimizer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convert.config.settings import Settings
from convert.errors import UsageError
from convert.files.inside import look
from convert.records import record

if TYPE_CHECKING:
    from convert.optimizer.plan import Request


def request(arguments: Namespace, settings: Settings | None = None) -> Request | None:
    """Return what the user asks of the optimizer's state; None without --with-optimizer.

    Args:
      settings: of --config, whose record may state hyperparameters.
    """
    if not arguments.with_optimizer:
        given = [name for name in ("optimizer", "hyper") if getattr(arguments, name)]
        given += ["config"] if arguments.config and arguments.table is not None else []
        if given:
            raise UsageError(f"--{given[0]} is of the state of an optimizer: add --with-optimizer")
        return None
    from convert.optimizer.plan import Request
    from convert.optimizer.state import given as hyperparameters

    hyper = hyperparameters(arguments.hyper)
    request = Request(arguments.optimizer, arguments.like, hyper, arguments.dtype, arguments.unreplicate)
    if settings:
        return replace(request, config=(settings.file, settings.optimizer))
    return replace(request, config=_recorded(arguments.config)) if arguments.config else request


def _recorded(file: str) -> tuple[str, Mapping[str, Any]]:
    """Return what a checkpoint's record says of its optimizer. Raises: UsageError where it says nothing."""
    stored = record.at(look(file).path)
    about = stored.optimizer
    if stored.change and stored.place != record.INSIDE:
        raise UsageError(f"--config {file}: {stored.changed}; to take its hyperparameters, --config {stored.place}")
    if not about:
        what = "has no record of an optimizer's state, whose hyperparameters are all that a conversion by a Table takes"
        raise UsageError(f"--config {file}: {what}")
    return file, about
