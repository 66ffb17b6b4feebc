"""Handle a file that no reading fits as it is: take one of its replicas, or say why none fits and what would.

Few files need this: planning.py imports it for these alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from convert import folding
from convert.config.inference import inferred
from convert.config.settings import Settings
from convert.errors import (
    ConvertError,
    OpenFields,
    PlanError,
    UsageError,
    called,
    command_or_call,
    is_saving,
    option,
    saved,
)
from convert.files.base import Reader, Tensor
from convert.files.inside import JOIN_ZERO
from convert.reading.readings import Reading
from convert.reading.recognise import USUAL, all_dialects, candidates, unknown_page
from convert.reading.replicas import FirstReplica, replicated, twice, without_replicas
from specs.dialects import HUB, PORTS
from specs.words import in_a_row

from .choosing import Choice, Rejected, Request, attempt, choose
from .plan import Plan

EMPTY = (
    "none of its arrays has an element, as in the files mp_rank_*_model_states.pt of DeepSpeed's ZeRO-3, which stores "
    f"weights in the files of the optimizer: {JOIN_ZERO}"
)
SINGLES = 8  # matrices of layers that do not fit of which each is tried transposed by itself


class NotReplicated(UsageError):
    """One replica is to be taken of arrays that have none."""

    def __init__(self, path: str):
        asked = option("unreplicate")
        super().__init__(f"{path}: {asked}: its arrays fit as they are: leave out {asked}")


def first_replica(request: Request, src: str | None, weights: str | None) -> Reader:
    """Return the file with one replica of each array.

    Raises: ConvertError where the replicas differ, where the arrays are of another dialect, and where they fit neither
    with the axis of replicas nor without; NotReplicated where they fit as they are.
    """
    reader, hints = request.reader, request.record.hints
    choice = choose(request, candidates(reader, src, hints, weights))
    if replicas := _replicas(request, choice):
        return FirstReplica(reader, replicas.tensors.values())
    unreplicate = option("unreplicate")
    if choice.plan or any(isinstance(rejected.error, OpenFields) for rejected in choice.rejected):
        raise NotReplicated(reader.path)
    error = refusal(request, choice, src, weights)
    if src is not None and (other := _replicas(request, choose(request, candidates(reader, None, hints, weights)))):
        which = command_or_call(_route(other.dialect, request.dst), f"src={other.dialect!r}")
        error.problems.append(f"every array fits as {other.dialect}, replicated: use {which} with {unreplicate}")
    raise error


def _replicas(request: Request, choice: Choice, axes: int = 1) -> Reading | None:
    """Return the reading that fits once so many leading axes of all its arrays are removed."""
    for rejected in choice.rejected:
        single: Reading | None = rejected.reading
        for _ in range(axes):
            single = single and without_replicas(single)
        if single is not None and _fits(attempt(request, single)):
            return rejected.reading
    return None


def _by_transposed(request: Request, rejected: Rejected) -> PlanError | None:
    """Return the error that names matrices with which all arrays fit once they are transposed; None without such."""
    error = _without_contradiction(request, rejected)
    if not isinstance(error, PlanError):
        return None
    own = rejected.reading.tensors
    matrices = [name for name in error.unfit if len(own[name].shape) == 2]
    layers = {_layer(name) for name in error.unfit}  # a matrix off which sizes are read fits, and its bias does not
    sizing = [name for name, t in own.items() if len(t.shape) == 2 and _layer(name) in layers and name not in matrices]
    alone = [[name] for name in [*sizing, *matrices][:SINGLES]]  # others may be sized by it
    for names in [matrices, *(one for one in alone if one != matrices)]:
        turned = {name: own[name]._replace(shape=own[name].shape[::-1]) for name in names}
        if turned and _fits(attempt(request, replace(rejected.reading, tensors={**own, **turned}))):
            error.problems[:] = _with_transposed(turned, error.problems)
            return error
    return None


def _layer(name: str) -> str:
    return re.split(r"[./](?=[^./]*$)", name)[0]


def _without_contradiction(request: Request, rejected: Rejected) -> ConvertError:
    """Return why a reading does not fit without what the user states of sizes that its arrays show.

    A matrix that is stored transposed shows another size, as of classes, which contradicts the one that is stated.
    """
    if not isinstance(rejected.error, UsageError) or not request.settings.values:
        return rejected.error
    shown: Mapping[str, object] = {}
    with suppress(ConvertError, LookupError):
        shown = inferred(request.reader.path, rejected.reading)
    others = {name: value for name, value in request.settings.values.items() if name not in shown}
    trial = attempt(request._replace(settings=request.settings._replace(values=others)), rejected.reading)
    return trial.error if isinstance(trial, Rejected) else rejected.error


def _with_transposed(turned: Mapping[str, Tensor], problems: Sequence[str]) -> list[str]:
    """Return the problems of a file with the matrices that make all its arrays fit once they are transposed."""
    if len(turned) > 1:  # by chance, they may also fit other settings
        return [f"every array fits once these are transposed: {folding.listed(turned)}", *problems]
    # sizes are read off the one matrix, so that the other problems follow
    return [
        f"{name} has shape {list(right.shape[::-1])}: once it is transposed, to {list(right.shape)}, every array fits"
        for name, right in turned.items()
    ]


def refusal(request: Request, choice: Choice, src: str | None, weights: str | None) -> ConvertError:
    """Return the error for a file that no reading fits: that of the first one, with what else is known."""
    reader, hints = request.reader, request.record.hints
    error = choice.problem or choice.rejected[0].error
    if isinstance(error, OpenFields):
        return error
    remedies: list[str] = []
    if not isinstance(error, UsageError):
        if replicas := _replicas(request, choice):
            return replicated(reader.path, replicas)
        if replicas := _replicas(request, choice, axes=2):
            return twice(reader.path, replicas)
        from convert.files.sharded import remedy
        from convert.reading.parametrized import parametrized

        tensors = choice.rejected[0].reading.tensors if choice.rejected else reader.tensors
        if tensors and not any(tensor.size for tensor in tensors.values()):
            return ConvertError(f"{reader.path}: {EMPTY}")
        if parts := parametrized((tensor.name for tensor in tensors.values()), USUAL.get(reader.format)):
            return ConvertError(f"{reader.path}: {parts}")
        remedies += filter(None, [remedy(reader.path)])
    error = next(filter(None, (_by_transposed(request, rejected) for rejected in choice.rejected)), error)
    if src is not None and (fitting := _of_other_dialect(request, src, weights)):
        other, problems = fitting
        fits = _as_another(src, other, request.dst, whole=not problems)
        if choice.problem is None:  # else that one says more, as that the record states the dialect
            error = PlanError(f"{reader.path}: a file of dialect {other}, not of {src}: {fits}", [*remedies, *problems])
            error.fits_as = other * (not problems)
            return error
        error.fits_as = other * (not problems)
        remedies.append(fits)
    if src is not None and src not in PORTS and choice.rejected:
        tried = {rejected.reading.architecture for rejected in choice.rejected if rejected.reading.score < 1}
        if tried and (others := [name for name in all_dialects()[src] if name not in tried]):
            also = f"{in_a_row(others)} {'has' if len(others) == 1 else 'have'} a dialect {src} too"
            error.problems.append(also)  # below what does not fit, which is likelier the cause
    if (page := unknown_page(hints)) and page not in error.message:
        remedies.insert(0, f"its record {page}")
    error.problems[:0] = remedies
    return error


def _of_other_dialect(request: Request, src: str, weights: str | None) -> tuple[str, list[str]] | None:
    """Return the dialect beside `src` in which all arrays of the model fit, also where a Config field is open, or None.

    Returns: also what the file has beside them.
    """
    if request.settings.architecture:  # they are of a checkpoint, which may be another one
        request = request._replace(settings=Settings.of(None))
    choice = choose(request, candidates(request.reader, None, request.record.hints, weights))
    if choice.plan:
        return (choice.plan.src, []) if choice.plan.src != src else None
    for reading, error in choice.rejected:
        if isinstance(error, OpenFields):
            return (reading.dialect, []) if reading.dialect != src else None
        if isinstance(error, PlanError) and error.only_more and reading.dialect != src:
            return reading.dialect, error.problems
    return None


def _as_another(named: str, src: str, dst: str, whole: bool) -> str:
    """Say that the file is of another dialect than was named, and what to do.

    Args:
      named: this dialect. src: that of the file. dst: of the target.
      whole: whether every array is of that dialect.
    """
    fits = "every array fits" if whole else "all but these fit"
    if src == dst:
        known = all_dialects()
        back = f", and {src}2{named} converts it to {named}" * set(known[src]).issubset(known[named])
        which = command_or_call(f"; {src}2{src} changes its format or dtype alone{back}", "")
        return f"it is {src} already, as {fits}{which}"
    if is_saving():
        how = f"save its arrays by {saved(dst)}, which ports.load and {called('convert')} {_route(src, dst)} read"
        return f"{fits} as {src}, and ports.save knows the names of our ports alone: {how}"
    return f"{fits} as {src}: use {command_or_call(_route(src, dst), f'src={src!r}')}"


def _route(src: str, dst: str) -> str:
    """Spell the route from another dialect to the same target."""
    return f"{src}2{'...' if dst in (HUB, src) else dst}"


def _fits(trial: Plan | Rejected) -> bool:
    """Tell whether the arrays fit; a Config field may be open."""
    return isinstance(trial, Plan) or isinstance(trial.error, OpenFields)
