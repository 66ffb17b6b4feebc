"""Apply the moves of the weights to the moments: a moment has the shape of its parameter.

A moment by its name, as "exp_avg", is a slot, as TensorFlow and paddle say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convert import folding
from convert.arrays.dtypes import FLOATS
from convert.arrays.steps import ConstantFilling, Copied, Filling, Promise, Step, Sum, has_constants, sources_of
from convert.errors import ConvertError, option
from convert.files.base import Tensor
from convert.plans.plan import Plan
from convert.reading.families import FAMILIES, MOMENTS
from specs.applied.moves import Fill, Move
from specs.words import in_a_row

from . import like, parameters, writing
from .state import State

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

FARTHER = "as each term takes a step of its own, a sum moves farther than one parameter: leave --with-optimizer out"
SUM = f"the sum of parameters of the source: {FARTHER}"
TERM = f"a term of a sum that is one parameter in the source: {FARTHER}"

FREEZE = {  # how users of a library exempt parameters from training, of which no file says anything
    "optax": "to keep them so, chain optax.masked(optax.set_to_zero(), ...) behind the optimizer",
    "paddle": "to keep them so, set their stop_gradient=True, or leave them out of the optimizer's parameters=",
}


def model(
    plan: Plan | TablePlan,
    trained: Mapping[str, Tensor],
    state: State,
    as_dtype: str | None,
    new: str | None,
    library: str,
    prefix: str,
    numbered: bool,
) -> tuple[writing.Model, dict[str, Tensor]]:
    """Return the target's weights with what fills their moments, and all sources.

    Args:
      trained: see parameters.trained_arrays.
      as_dtype, new: `dtype` and `like` of Request.
      prefix: of the moments' names in the file. numbered: whether a torch target numbers parameters.
    """
    path, sources = plan.reader.path, {**plan.sources, **_sources_of_moments(state, prefix)}
    moments: dict[str, dict[str, Filling]] = {slot: {} for slot in FAMILIES[state.family]}
    dtypes: dict[tuple[str, str], str] = {}
    ordered, own, tied, notes = like.names(plan, new, library if numbered else "")
    shown = parameters.shown(library, ordered, own)
    zeroed = () if isinstance(plan, Plan) else plan.layout.zeroed
    for tensor, filling in plan.steps:
        is_trained = shown.get(tensor.name)
        if is_trained is not False and tensor.name in zeroed:
            raise ConvertError(f"{path}: {tensor.name} is {TERM}")
        if is_trained is None:
            is_trained = parameters.is_trained(tensor, filling, trained, path, isinstance(plan, Plan))
        if not is_trained:
            continue
        for slot, fills in moments.items():
            moved, dtype = _moved_slot(tensor, filling, slot, state.moments[slot], sources, path)
            dtypes[slot, tensor.name] = as_dtype if as_dtype and dtype in FLOATS else dtype
            if moved is not None and tensor.name not in tied:
                fills[tensor.name] = moved
    trained_names = {name for _, name in dtypes}
    own_order = [name for name in ordered if name in trained_names and name not in tied]
    steps = _moved_steps(plan.steps, state, own_order, path)
    behind, ties = _without_place(plan, state, moments, sources)
    weights = _sorted(plan.steps, ordered)
    notes = notes if isinstance(plan, Plan) else ()  # a plan by a Table reads the file itself, and says so
    made = writing.Model(path, weights, own_order, moments, steps, dtypes, own, behind=behind, ties=ties, notes=notes)
    return made, sources


def _sources_of_moments(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the stored moments by slot and parameter, each with its name in the file."""
    return {
        f"{slot}: {name}": tensor._replace(name=prefix + tensor.name)
        for slot, arrays in state.moments.items()
        for name, tensor in arrays.items()
    }


def _without_place(
    plan: Plan | TablePlan,
    state: State,
    moments: Mapping[str, Mapping[str, Filling]],
    sources: Mapping[str, Tensor],
) -> tuple[list[str], list[Promise]]:
    """Return parameters whose moments stay behind as their weights do, and what has to hold of those of tied ones.

    The target has one parameter for weights that are equal: their moments have to be equal as well.
    Raises: ConvertError where the weights go along and the moments would not.
    """
    taken = {sources[name].name for fills in moments.values() for f in fills.values() for name in sources_of(f)}
    stored = next(iter(state.moments))
    lost = [name for name in state.moments[stored] if sources[f"{stored}: {name}"].name not in taken]
    used = {name for _, filling in plan.steps for name in sources_of(filling)}
    used |= {name for check in plan.checks if check.other for name in (check.name, check.other)}
    with_place = state.moments[stored].keys() - set(lost)
    ties = {name: check for name in lost if (check := _tie(plan, state, name, with_place, sources))}
    if joined := [name for name in lost if name in used and name not in ties]:
        what = f"no parameter of the target takes the moments of {folding.listed(joined)}"
        why = "the weights are tied to others with moments of their own, or are no parameters there"
        raise ConvertError(f"{plan.reader.path}: {what}: {why}: leave --with-optimizer out")
    promises = [_of_moments(check, slot) for check in ties.values() for slot in state.moments]
    return [name for name in lost if name not in ties], promises


def _tie(
    plan: Plan | TablePlan, state: State, name: str, with_place: Collection[str], sources: Mapping[str, Tensor]
) -> Promise | None:
    """Return what says that a whole parameter equals one whose moments have a place, with the same step and group."""
    for check in plan.checks:
        other, moves = (check.other, check.parts) if name == check.name else (check.name, check.others)
        if name not in (check.name, check.other) or other not in with_place or len(moves) != 1:
            continue
        axes = zip(moves[0].select, moves[0].source_atoms, strict=True)
        whole = all(isinstance(one, slice) and len(range(*one.indices(size))) == size for one, size in axes)
        alike = all(sources[f"{slot}: {name}"].dtype == sources[f"{slot}: {other}"].dtype for slot in state.moments)
        groups = [group for group in state.groups if {name, other} & set(group.parameters)]
        if whole and alike and len(groups) < 2 and state.steps.get(name) == state.steps.get(other):
            return check
    return None


def _of_moments(check: Promise, slot: str) -> Promise:
    """Return what has to hold of two weights, of one of their moments."""
    parts, others = (
        [move._replace(source=f"{slot}: {move.source}") for move in moves] for moves in (check.parts, check.others)
    )
    name, other = f"{slot}: {check.name}", f"{slot}: {check.other}"
    return check._replace(name=name, parts=parts, other=other, others=others, remedy="leave --with-optimizer out")


def _moved_steps(steps: Sequence[Step], state: State, trained: Sequence[str], path: str) -> dict[str, int]:
    """Return the updates of each weight with a state, where they differ; {} where they do not.

    Raises: ConvertError for one that joins parameters that were updated differently often.
    """
    fillings = {tensor.name: filling for tensor, filling in steps} if state.steps else {}
    counts: dict[str, int] = {}
    for weight in trained if state.steps else ():
        numbers = {state.steps[name] for name in sources_of(fillings[weight]) if name in state.steps}
        if len(numbers) > 1:
            times = " and ".join(map(str, sorted(numbers)))
            raise ConvertError(f"{path}: {weight} joins parameters that were updated {times} times: it has one count")
        if numbers:
            counts[weight] = numbers.pop()
    return counts


def _sorted(steps: Sequence[Step], names: list[str]) -> list[Step]:
    by_name = {step[0].name: step for step in steps}
    return [by_name[name] for name in names]


def _moved_slot(
    tensor: Tensor, filling: Filling, slot: str, arrays: Mapping[str, Tensor], sources: Mapping[str, Tensor], path: str
) -> tuple[Filling | None, str]:
    """Return the moves of a weight applied to one of its moments, None where it has none, and the moment's dtype."""
    if isinstance(filling, Sum):
        raise ConvertError(f"{path}: {tensor.name} is {SUM}")
    names = sources_of(filling)
    kept = {name for name in names if name in arrays}
    if isinstance(filling, ConstantFilling | Copied) or not kept:
        return None, tensor.dtype
    if kept != set(names):
        lacking = ", ".join(sorted(set(names) - kept))
        raise ConvertError(f"{path}: {tensor.name} joins parameters, and the optimizer has no state of {lacking}")
    dtypes = {sources[f"{slot}: {name}"].dtype for name in names}
    if len(dtypes) > 1:
        raise ConvertError(
            f"{path}: {tensor.name} joins moments of {' and '.join(sorted(dtypes))}: make them alike first"
        )
    parts: list[Move | Fill] = [
        part._replace(source=f"{slot}: {part.source}") if isinstance(part, Move) else part._replace(value=0.0)
        for part in filling
    ]
    return parts, dtypes.pop()


def cast(state: State, averaged: Iterable[Tensor], dtype: str | None) -> list[str]:
    """Report what --dtype casts beside the weights.

    Args:
      averaged: the arrays of the average that goes along.
    """
    kinds = {
        MOMENTS[slot].of(state.library): {tensor.dtype for tensor in arrays.values()}
        for slot, arrays in state.moments.items()
    }
    kinds |= {"the average of the weights": {tensor.dtype for tensor in averaged}}
    names = [name for name, dtypes in kinds.items() if dtypes & set(FLOATS) - {dtype}]
    why = "a training in mixed precision keeps them in float32" if dtype in ("bfloat16", "float16") else ""
    cast = f"cast to {dtype} like the weights, by {option('dtype', str(dtype))}: {in_a_row(names)}"
    return [f"{cast}{f'; {why}' if why else ''}"] if dtype and names else []


def remarks(plan: Plan | TablePlan, model: writing.Model, state: State, library: str) -> list[str]:
    """Report what is taken to be no parameter, and why; parameters with the same moments, and moments without one."""
    slot = next(iter(model.moments))
    stored = {f"{slot}: {name}": tensor for name, tensor in state.moments[slot].items()}
    what = "get the same moments, as they are one parameter of the source"
    after = "training parts them unless the target ties them"
    lines = [
        f"{', '.join(folding.fold(names))} {what}: {after}" for names in _one_of_source(model.moments[slot], stored)
    ]
    fillings = {tensor.name: filling for tensor, filling in plan.steps}
    in_part = [name for name in model.moments[slot] if has_constants(fillings[name])]
    zeros = "moments of zeros, at the step of the others, where the table supplies a part"
    lines += [f"{zeros}: {', '.join(folding.fold(in_part))}"] if in_part else []
    copied = [tensor.name for tensor, filling in plan.steps if isinstance(filling, Copied) and tensor.dtype in FLOATS]
    names = set(model.trained)
    copied = [name for name in copied if name not in names]
    taken = "taken to be buffers, which no optimizer trains"
    lines += [f"{taken}: {', '.join(folding.fold(copied))}"] if copied else []
    trained = {name for tensor, filling in plan.steps if tensor.name in names for name in sources_of(filling)}
    lines += _frozen(plan, model, state, library)
    buffers = sorted(state.buffers - trained)
    if buffers and not isinstance(plan, Plan):
        what = f"no parameters, {parameters.SHOWN[state.library]}"
        lines.append(f"{what}: not in {library}'s optimizer either: {', '.join(folding.fold(buffers))}")
    if state.unclear:
        what = "taken to be parameters without a state, though the source does not show that they are no buffers"
        lines.append(f"{what}: {', '.join(folding.fold(state.unclear))}")
    if model.ties:
        tied = sorted({name.partition(": ")[2] for tie in model.ties for name in (tie.name, tie.other)})
        what = "one parameter of the target, their moments compared before anything is written"
        lines.append(f"{what}: {folding.listed(tied)}")
    checked = {check.name for check in plan.checks if not check.other}
    cut = checked if isinstance(plan, Plan) else checked.union(plan.layout.cut)
    left = {
        "moments stay behind, of parameters that the target has not": model.behind,
        "moments stay behind in part, of parameters that the target has in part": cut.difference(model.behind),
    }
    behind = {what: [name for name in state.moments[slot] if name in names] for what, names in left.items()}
    return [*lines, *(f"{what}: {', '.join(folding.fold(names))}" for what, names in behind.items() if names)]


def _frozen(plan: Plan | TablePlan, model: writing.Model, state: State, library: str) -> list[str]:
    """Report parameters that are frozen in the source, or may be, and how to keep them so in the target."""
    thawed = unlisted(plan, model, state)
    stateless = [name for name in model.without if name not in thawed] if state.library != library in FREEZE else []
    kept = {
        "in no group of the source's optimizer, as frozen parameters": thawed,
        "if they are frozen in the source, where they have no state": stateless,
    }
    lines = [f"{what}: {FREEZE.get(library, '')}: {folding.listed(names)}" for what, names in kept.items() if names]
    if isinstance(plan, Plan):
        frozen = [tensor.name for tensor, filling in plan.steps if state.buffers.intersection(sources_of(filling))]
        whose = "torch's optimizer before, as the record says" if state.frozen else "the source's optimizer"
        what = f"in no group of {whose}, as frozen parameters, and in none of the target's"
        lines += [f"{what}: build it over the others alone: {folding.listed(frozen)}"] if frozen else []
    return lines


def unlisted(plan: Plan | TablePlan, model: writing.Model, state: State) -> list[str]:
    """List what the source's optimizer does not train, and the target's does unless its user freezes it again."""
    sources = {tensor.name: sources_of(filling) for tensor, filling in plan.steps}
    return [name for name in model.trained if state.unlisted.intersection(sources[name])]


def _one_of_source(fillings: Mapping[str, Filling], sources: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the target's parameters that take the same elements of a source array, in whatever order of axes."""
    import numpy as np

    takers: dict[str, dict[str, list[Move]]] = {}
    for name, filling in fillings.items():
        for part in filling if isinstance(filling, list) else []:
            if isinstance(part, Move):
                takers.setdefault(sources[part.source].name, {}).setdefault(name, []).append(part)
    sizes = {tensor.name: tensor.size for tensor in sources.values()}
    groups: dict[tuple[str, ...], None] = {}
    for source, moves in takers.items():
        if len(moves) == 1:
            continue
        taken_by = np.zeros(sizes[source], np.int32)  # number of the last parameter that takes an element; 0: none
        joined = {number: {number} for number in range(1, len(moves) + 1)}
        for number, part in ((number, part) for number, parts in enumerate(moves.values(), 1) for part in parts):
            atoms, place = taken_by.reshape(part.source_atoms), _index(part)
            for other in np.flatnonzero(np.bincount(np.ravel(atoms[place]))).tolist():
                if other:
                    both = joined[other] | joined[number]
                    joined.update(dict.fromkeys(both, both))
            atoms[place] = number
        names = list(moves)
        several = [both for both in joined.values() if len(both) > 1]
        groups |= dict.fromkeys(tuple(names[number - 1] for number in sorted(both)) for both in several)
    return [list(names) for names in groups]


def check_real(path: str, state: State, library: str) -> None:
    """Check that no second moment is of a complex parameter, if it moves to another library. Raises: ConvertError."""
    moments = state.moments.get("second", {}) if state.library != library else {}
    if names := [name for name, moment in moments.items() if moment.dtype.startswith("complex")]:
        why = "torch squares real and imaginary parts of a gradient each, and optax its absolute value"
        raise ConvertError(f"{path}: {folding.listed(names)}: complex parameters: {why}: leave --with-optimizer out")


def _index(move: Move) -> tuple[Any, ...]:
    """Return what a move selects as an index of numpy's."""
    import numpy as np

    if not any(isinstance(entry, tuple) for entry in move.select):
        return move.select
    pairs = zip(move.select, move.source_atoms, strict=True)
    return np.ix_(*(np.arange(size)[entry if isinstance(entry, slice) else np.ravel(entry)] for entry, size in pairs))
