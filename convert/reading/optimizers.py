"""Find the state of an optimizer in a checkpoint, by the names of its arrays: optax's, torch's or paddle's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from convert.documents import document
from convert.errors import ConvertError, UsageError, saved
from convert.files.base import Reader, Tensor

from .families import MOMENTS
from .masters import PADDLE as MASTERS
from .nesting import training
from .replicas import ONCE, leading

GROUP = re.compile(r"(?:^|(?<=/))param_groups/[^/]+/(?:params|weight_decay)$")
SLOT = r"(?P<slot>moment1|moment2|velocity|beta1_pow_acc|beta2_pow_acc)_\d+"
PADDLE = re.compile(rf"(?P<own>.+)[_/]{SLOT}")
UNIFIED = re.compile(rf"[^/]+/{SLOT}")  # of PaddleNLP's unified checkpoints: behind the name of model.state_dict()
TUPLE = re.compile(r"(?P<entry>[0-9]+/)(?:[0-9]+/)*")  # a place in tuples alone, as of vit_jax's checkpoint_7
PARTITION = "/inner_states/"  # where optax.multi_transform, also called optax.partition, keeps an optimizer a label
VALUE = "/value"  # what nnx stores below each variable


ALONE = f"give the file of a model alone, as {saved('torch')} or {saved('paddle')} writes it"
CHAIN = (
    "A chain that nests its state otherwise, as with a gradient clip, takes the converted state by "
    f"optax.tree_utils.tree_set: {document('training')} shows how"
)
NESTED = f"give a file of its params alone, or no --like. {CHAIN}"


class Found(NamedTuple):
    """Where a file has the state of an optimizer.

    Args:
      root: prefix of the names of its arrays. top: of all that belongs to it.
      others: further prefixes, one for each other label of optax.multi_transform.
    """

    library: str
    root: str
    top: str
    others: tuple[str, ...] = ()

    @property
    def roots(self) -> tuple[str, ...]:
        """Return the prefixes of all its arrays."""
        return self.root, *self.others


def find(reader: Reader) -> Found | None:
    """Find the state of an optimizer by its names. Raises: ConvertError where there are several."""
    locations = {*_torch(reader), *_paddle(reader), *_by_labels({*_optax(reader)})}
    if len(locations) > 1:
        where = ", ".join(sorted(repr(one.root) for one in locations))
        raise ConvertError(
            f"{reader.path}: has the states of several optimizers ({where}), and only one can be converted: "
            "leave --with-optimizer out, or give a file that has one alone: --optimizer FILE"
        )
    return next(iter(locations), None)


def find_any(reader: Reader) -> Found | None:
    """Find the one state of an optimizer in a file; None where there is none, or several."""
    with contextlib.suppress(ConvertError):
        return find(reader)
    return None


def _torch(reader: Reader) -> Iterable[Found]:
    for name in reader.skipped.load():
        if match := GROUP.search(name):
            root = name[: match.start()]
            yield Found("torch", root, root)


def _paddle(reader: Reader) -> Iterable[Found]:
    for name in reader.tensors:
        folder, slash, last = name.rpartition("/")
        if PADDLE.fullmatch(last):
            yield Found("paddle", folder + slash, folder + slash)
        elif UNIFIED.fullmatch(name):
            yield Found("paddle", "", "")


def _optax(reader: Reader) -> Iterable[Found]:
    momentum = MOMENTS["momentum"].optax
    adams = {name[: at.start()] for name in reader.tensors for at in re.finditer(r"(?:^|(?<=/))mu/", name)}
    for name in reader.tensors:
        base = name.removesuffix(VALUE)
        if base == "count" or base.endswith("/count"):
            root = base.removesuffix("count")
            if root in adams:
                yield Found("optax", root, _top(root))
        elif f"/{momentum}/" in f"/{name}":
            head = f"/{name}".partition(f"/{momentum}/")[0]
            root = f"{head[1:]}/" if head else ""
            if training(root) or not root or TUPLE.fullmatch(root):
                yield Found("optax", root, _top(root))


def _by_labels(locations: Iterable[Found]) -> Iterable[Found]:
    """Join the states that optax.multi_transform keeps, one for each label, of disjoint parameters."""
    whole: dict[str, Found] = {}
    for one in sorted(locations):
        head, is_label, _ = one.root.partition(PARTITION)
        place = head if is_label else f"{one.root}alone"
        first = whole.setdefault(place, one)
        whole[place] = first if first is one else first._replace(others=(*first.others, one.root))
    return whole.values()


def _top(root: str) -> str:
    """Return the place of all that belongs to a state of optax: of a tuple of weights, state and step its own entry."""
    nested = TUPLE.fullmatch(root)
    return training(root) or (nested["entry"] if nested else root)


def state_names(reader: Reader, location: Found | None = None) -> frozenset[str]:
    """Name the arrays and plain entries of a file that are the state of an optimizer, and the count beside it.

    Args:
      location: where the state is; None finds it.
    """
    location = location or find(reader)
    if location is None:
        return frozenset()
    if location.top:
        step = _own_step(location)
        is_count = not step.isdecimal() or _is_integer(reader, step)  # a tuple may have another array behind the state
        inside = {name for name in reader.tensors if name.startswith(location.top) or (name == step and is_count)}
    else:
        inside = {name for name in reader.tensors if _is_state(location, name)}
    entries = reader.skipped.values if location.top else ()
    return frozenset([*inside, *(name for name in entries if name.startswith(location.top))])


def state_of(reader: Reader, prefix: str = "") -> str:
    """Return the library of an optimizer whose state is all that a file has below a prefix, else ""."""
    location = find_any(reader)
    names = {name for name in reader.tensors if name.startswith(prefix)}
    return location.library if location and names and state_names(reader, location) >= names else ""


def check_like(reader: Reader) -> None:
    """Check a file that stands for a new model. Raises: UsageError for one with the state of an optimizer."""
    location = find(reader)
    state = state_names(reader, location)
    if location and state:
        what = "contains" if reader.tensors.keys() - state else "is"
        remedy = NESTED if location.library == "optax" else ALONE
        raise UsageError(f"--like {reader.path}: {what} an optimizer's state: {remedy}")


def step_beside(location: Found) -> str:
    """Name the count of steps that a file has beside a state; "" where the state is not in a place of its own.

    In a tuple of params, state and step, as vit_jax's, it is the entry behind the state.
    """
    if location.library == "optax" and TUPLE.fullmatch(location.root):
        return str(int(location.top[:-1]) + 1)
    return _beside(location, "step")


def counts_beside(reader: Reader, location: Found | None) -> list[str]:
    """Name arrays of one number that count epochs, and steps where that is no count of the state's own, beside it."""
    names = [_beside(location, name) for name in ("epoch", "step")] if location else []
    own = _own_step(location) if location else ""
    return [name for name in names if name != own and _is_number(reader, name)]


def _is_number(reader: Reader, name: str) -> bool:
    """Tell whether an entry of a file is an array of one number; an epoch may be half done."""
    tensor = reader.tensors.get(name)
    return _is_integer(reader, name) or (
        tensor is not None and tensor.size == 1 and tensor.dtype in ("float32", "float64")
    )


def _is_integer(reader: Reader, name: str) -> bool:
    """Tell whether an entry of a file is an array of one integer."""
    tensor = reader.tensors.get(name)
    return tensor is not None and tensor.size == 1 and re.match("u?int", tensor.dtype) is not None


def _own_step(location: Found) -> str:
    """Name the count of steps beside a state that is the state's own: of optax, whose TrainState has it."""
    return step_beside(location) if location.library == "optax" else ""


def _beside(location: Found, name: str) -> str:
    """Name an entry in the container of the state; "" where the state is not in a place of its own."""
    outer = location.top[:-1].rpartition("/")[0]
    return f"{outer}/{name}".lstrip("/") if location.top else ""


def _is_state(location: Found, name: str) -> bool:
    if location.library == "paddle":
        return PADDLE.fullmatch(name) is not None or name.startswith(f"{MASTERS}/")
    tops = ("state/", "param_groups/") if location.library == "torch" else ("count", "mu/", "nu/", "trace/")
    return name.startswith(tops)


def replicated(reader: Reader, location: Found, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the arrays of a state that pmap has stored once for each device, all of them; [] where it has not.

    A count shows that, which has no axis of its own; a state without counts has the shapes of its parameters.
    Raises: ConvertError where they are stored so twice, for hosts and for devices.
    """
    arrays = [reader.tensors[name] for name in state_names(reader, location) if name in reader.tensors]
    if location.library != "optax" or not leading(arrays):
        return []
    counts = [t for t in arrays if t.name.removesuffix(VALUE).rpartition("/")[2] in ("count", "step")]
    shapes = [tensor.shape[1:] for tensor in arrays]
    if counts and {len(t.shape) for t in counts} == {2} and len({t.shape[:2] for t in arrays}) == 1:
        axes = " and ".join(map(str, counts[0].shape))
        problem = f"every array of its optimizer's state has two leading axes, of {axes}, as of hosts and devices"
        raise ConvertError(f"{reader.path}: {problem}: {ONCE}")
    same = sorted(shapes) == sorted(tensor.shape for tensor in parameters.values())
    return arrays if (all(len(t.shape) == 1 for t in counts) if counts else same) else []
