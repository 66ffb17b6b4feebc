"""Read from --like, a new model of the target saved by its framework, what the target's names and their order are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import specs
from convert import folding
from convert.arrays.steps import sources_of
from convert.documents import document
from convert.errors import SAVED, ConvertError, UsageError, saved
from convert.files import open_checkpoint
from convert.files.base import Reader
from convert.plans.plan import Plan
from convert.reading import optimizers
from convert.reading.families import lost_names
from convert.reading.nesting import label
from convert.reading.recognise import dialects
from convert.reading.weights_alone import partly_read, weights_of
from convert.records import record
from specs.kinds import FRAMEWORKS
from specs.words import with_article

if TYPE_CHECKING:
    from convert.table.plan import TablePlan

NEW = "new"  # how messages call the file of a new model

NAMELESS = (
    "has no names of paddle's own (linear_0.w_0), as of NumPy arrays: save the tensors of a new model by "
    f"{saved('paddle', NEW)}"
)


def keeps_order(reader: Reader) -> bool:
    """Tell whether a file stores arrays in the order of model.parameters(): one that torch.save wrote does."""
    return reader.format == "torch" and not reader.path.endswith(".json")


class Names(NamedTuple):
    """What a new model of the target shows of its names.

    Args:
      ordered: all names, in its framework's order. own: paddle's own names of them. tied: {name: one it is tied to}.
      notes: which part of the file was read, where it has others.
    """

    ordered: list[str]
    own: dict[str, str]
    tied: dict[str, str]
    notes: tuple[str, ...] = ()


def names(plan: Plan | TablePlan, like: str | None, library: str) -> Names:
    """Return the target's names, which `like` shows where they are not known.

    Args:
      library: of the target; "" where it counts no parameters.
    Raises: UsageError where torch's order is not known; ConvertError where `like` is no file of this model.
    """
    if like is not None:
        return _read(like, plan, library)
    if missing := order_wanted(plan, like, library):
        raise UsageError(f"{plan.reader.path}: {missing}")
    return Names([tensor.name for tensor, _ in plan.steps], _same_names(plan) if library == "paddle" else {}, {})


def order_wanted(plan: Plan | TablePlan, like: str | None, library: str) -> str:
    """Say that torch's order of parameters is not known without --like, and how that is made; "" where it is."""
    if like is not None or library != "torch" or (isinstance(plan, Plan) and is_port_of_ours(plan, plan.dst)):
        return ""
    return (
        "torch numbers parameters in the order of the code of the target's model, which is not known here: save a new "
        f"one by {saved('torch', NEW)} and give --like {NEW}.pt"
    )


def is_port_of_ours(plan: Plan, dialect: str) -> bool:
    """Tell whether the code of a dialect is known: the tests compare its order with that of the page."""
    return dialect in FRAMEWORKS and specs.folder(plan.architecture) is None


def with_names(plan: Plan, like: str) -> tuple[Plan, tuple[str, ...]]:
    """Return the same plan of a model's weights, which paddle's own names of `like` go along with, and notes on these.

    Raises: UsageError for another target than paddle's; ConvertError where `like` is no file of this model.
    """
    if dialects(plan.architecture)[plan.dst].framework != "paddle":
        raise UsageError(
            "--like states paddle's own names of parameters, or is of the state of an optimizer: add --with-optimizer"
        )
    known = names(plan, like, "paddle")
    return replace(plan, own_names=known.own, beside=(like,)), known.notes


def _wanted(plan: Plan | TablePlan, library: str) -> str:
    """Say of which model a file of --like has to be, and how it is saved."""
    what = f"{with_article(plan.architecture)} of the dialect {plan.dst}" if isinstance(plan, Plan) else "the target's"
    how = f", saved by {saved(library, NEW)}" if library in SAVED else ""
    return f"give a new model, {what}{how}"


def _read(like: str, plan: Plan | TablePlan, library: str) -> Names:
    """Return what `names` does, of the file of --like: of a training checkpoint, the weights in it."""
    shapes = {tensor.name: tensor.shape for tensor, _ in plan.steps}
    with open_checkpoint(like) as reader:
        if library == "torch" and not keeps_order(reader):
            what = f"{with_article(reader.called)} does not keep the order in which torch counts parameters"
            raise UsageError(f"--like {like}: {what}: give what {saved('torch', NEW)} writes")
        stored = record.read(reader)
        if library == "torch" and stored.content and not (stored.change or stored.damage or stored.optimizer):
            what = "is written by a conversion, in an order that need not be torch's"
            raise UsageError(f"--like {like}: {what}: {_wanted(plan, library)}")
        part = weights_of(reader, shapes.keys()) if library in SAVED or not isinstance(plan, Plan) else None
        if part is None and reader.tensors.keys() != shapes.keys():
            optimizers.check_like(reader)
        place, inside = part or ("", {name: name for name in reader.tensors})
        theirs = {name: reader.tensors[key].shape for name, key in inside.items()}
        own = {name: reader.parameter_names[key] for name, key in inside.items() if key in reader.parameter_names}
        aliases = dict(reader.ties({name: reader.tensors[key] for name, key in inside.items()}))
        notes = partly_read(reader, place, inside.values())
        if library == "torch" and label(place) == "state_dict":
            how = f"{document('training')}, Back to timm, shows how they are renamed"
            notes.append(f"--like {like}: has its weights under 'state_dict', the target has them under 'model': {how}")
    if theirs.keys() != shapes.keys():
        lacking, beside = sorted(shapes.keys() - theirs.keys()), sorted(theirs.keys() - shapes.keys())
        sides = [f"it lacks {folding.listed(lacking)} of the target"] if lacking else []
        sides += [f"it has {folding.listed(beside)} beside"] if beside else []
        raise ConvertError(f"--like {like}: is of another model than the target: {_wanted(plan, library)}", sides)
    misfits = [
        (name, f"has shape {list(theirs[name])}, and {list(shape)} in the target")
        for name, shape in shapes.items()
        if theirs[name] != shape
    ]
    if misfits:
        turned = all(theirs[name] == shapes[name][::-1] for name, _ in misfits)
        transposed = "has arrays of the target transposed, as another framework stores them"
        what = transposed if turned else "is of a model of another size than the target"
        raise ConvertError(f"--like {like}: {what}: {_wanted(plan, library)}", folding.misfits(misfits))
    if lost := lost_names(own) or (NAMELESS if library == "paddle" and not own else ""):
        raise UsageError(f"--like {like}: {lost}")
    first: dict[str, str] = {}
    aliases |= {name: first[key] for name, key in own.items() if first.setdefault(key, name) != name}
    return Names(list(theirs), own, aliases, tuple(notes))


def _same_names(plan: Plan | TablePlan) -> dict[str, str]:
    """Return paddle's own names that the source has, where the target is the same code's model: they stay."""
    if not isinstance(plan, Plan) or plan.src != plan.dst:
        return {}
    own = plan.reader.parameter_names
    sources = {tensor.name: sources_of(filling) for tensor, filling in plan.steps}
    stored = {name: plan.sources[each[0]].name for name, each in sources.items() if len(each) == 1}
    return {name: own[source] for name, source in stored.items() if source in own}
