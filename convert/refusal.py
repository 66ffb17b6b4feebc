"""Handle a file that no reading fits as it is: take one of its replicas, or say why none fits and what would.

Few files need this: planning.py imports it for these alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from specs.dialects import HUB, PORTS
from specs.words import in_a_row

from . import folding
from .choosing import Choice, Rejected, Request, attempt, choose
from .errors import ConvertError, OpenFields, PlanError, UsageError, command_or_call, option
from .files.base import Reader, Tensor
from .files.inside import JOIN_ZERO
from .plans import Plan
from .readings import Reading
from .recognise import USUAL, all_dialects, candidates, unknown_page
from .replicas import FirstReplica, replicated, twice, without_replicas

EMPTY = (
    "none of its arrays has an element, as in the files mp_rank_*_model_states.pt of DeepSpeed's ZeRO-3, which stores "
    f"weights in the files of the optimizer: {JOIN_ZERO}"
)


class NotReplicated(UsageError):
    """One replica is to be taken of arrays that have none."""


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
        raise NotReplicated(f"{reader.path}: {unreplicate}: its arrays fit as they are: leave it out")
    error = refusal(request, choice, src, weights)
    if src is not None and (other := _replicas(request, choose(request, candidates(reader, None, hints, weights)))):
        which = command_or_call(_route(other.dialect, request.dst), f"src={other.dialect!r}")
        error.problems.append(f"every array fits as {other.dialect}, replicated: {which} with {unreplicate}")
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


def _transposed(request: Request, rejected: Rejected) -> dict[str, Tensor]:
    """Return the matrices of a reading, transposed, with which all its arrays fit; {} if they do not."""
    unfit = rejected.error.unfit if isinstance(rejected.error, PlanError) else ()
    own = rejected.reading.tensors
    turned = {name: own[name]._replace(shape=own[name].shape[::-1]) for name in unfit if len(own[name].shape) == 2}
    fits = turned and _fits(attempt(request, replace(rejected.reading, tensors={**own, **turned})))
    return turned if fits else {}


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
        from .files.sharded import remedy
        from .parametrized import parametrized

        tensors = choice.rejected[0].reading.tensors if choice.rejected else reader.tensors
        if tensors and not any(tensor.size for tensor in tensors.values()):
            return ConvertError(f"{reader.path}: {EMPTY}")
        if parts := parametrized((tensor.name for tensor in tensors.values()), USUAL.get(reader.format)):
            return ConvertError(f"{reader.path}: {parts}")
        remedies += filter(None, [remedy(reader.path)])
        if turned := next(filter(None, (_transposed(request, rejected) for rejected in choice.rejected)), {}):
            error.problems[:] = _with_transposed(turned, error.problems)
    if src is not None:
        error.fits_as = _dialect(choose(request, candidates(reader, None, hints, weights)))
        if error.fits_as:
            remedies.append(_as_another(error.fits_as, request.dst))
    if src is not None and src not in PORTS and choice.rejected:
        tried = {rejected.reading.architecture for rejected in choice.rejected if rejected.reading.score < 1}
        if tried and (others := [name for name in all_dialects()[src] if name not in tried]):
            also = f"{in_a_row(others)} {'has' if len(others) == 1 else 'have'} a dialect {src} too"
            error.problems.append(also)  # below what does not fit, which is likelier the cause
    if (page := unknown_page(hints)) and page not in error.message:
        remedies.insert(0, f"its record {page}")
    error.problems[:0] = remedies
    return error


def _dialect(choice: Choice) -> str:
    """Return the dialect as which every array fits, also where a Config field is open; "" if there is none."""
    still_open = (one.reading.dialect for one in choice.rejected if isinstance(one.error, OpenFields))
    return choice.plan.src if choice.plan else next(still_open, "")


def _as_another(src: str, dst: str) -> str:
    """Say that the file is of another dialect than was named, and what to do."""
    if src == dst:
        which = command_or_call(f": {src}2{src} changes its format or dtype alone", "")
        return f"it is {src} already: every array fits{which}"
    return f"every array fits as {src}: {command_or_call(_route(src, dst), f'src={src!r}')}"


def _route(src: str, dst: str) -> str:
    """Spell the route from another dialect to the same target."""
    return f"{src}2{'...' if dst in (HUB, src) else dst}"


def _fits(trial: Plan | Rejected) -> bool:
    """Tell whether the arrays fit; a Config field may be open."""
    return isinstance(trial, Plan) or isinstance(trial.error, UsageError)
