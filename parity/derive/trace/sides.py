"""Hide the framework of a model behind one interface, and draw the values that are tried on it."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from convert.errors import UsageError

from .call import Call, label
from .cotangents import Take
from .outputs import Outputs
from .still import even
from .tape import Array, Tape

LARGE = 1 << 20  # elements from which on a new draw is uniform, of float32: a fifth of the time, half of the memory
ROUNDED = 2**-8  # relative difference of a number that bfloat16 rounds
ROWS = 4  # rows of tokens from which on each column is shuffled for itself


class Side(Protocol):
    """A model and how it is called.

    Args:
      framework: torch, linen, nnx, jax or paddle.
      output_axis: the axis of a matrix that usually is the output.
      parameters: the model's own arrays of floats by name; others: the rest of a checkpoint; ties: {name: name it
        shares}.
      buffers: names of parameters that the framework knows as buffers, which no optimizer trains: statistics, tables.
    """

    framework: str
    output_axis: int
    call: Call
    parameters: dict[str, Array]
    others: dict[str, Array]
    ties: dict[str, str]
    buffers: Collection[str]

    def fix(self, names: Sequence[str]) -> None:
        """Take parameters as arrays that are none: they keep the model's own values."""

    def release(self) -> None:
        """Drop the large arrays that the last run left in the model."""

    def run(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]: ...

    def gradients(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array], take: Take) -> Outputs:
        """Return the outputs; give `take` the gradient of their sum, weighted by `cotangents`, by each parameter.

        Casts to lower precision are void where the framework can do that. Parameters that have no gradient are left
        out. Each gradient may be freed before the next one is computed.
        """

    def record(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> Tape: ...


MODELS = (
    "a torch module, a paddle layer, an nnx module, a bound linen module, (linen module, variables) or (function of "
    "parameters and inputs, parameters)"
)
CLASSES = {"torch.nn": "Module", "paddle.nn": "Layer", "flax.nnx": "Module", "flax.linen": "Module"}


def library_of(model: Any) -> str:
    """Return the library of a module: a key of CLASSES, or "" for any other object."""
    classes = {name: getattr(sys.modules.get(name), base, None) for name, base in CLASSES.items()}
    return next((name for name, cls in classes.items() if cls is not None and isinstance(model, cls)), "")


def without_variables(model: Any) -> bool:
    """Tell whether this is a linen module alone, which has no parameters until it is bound to its variables."""
    return library_of(model) == "flax.linen" and model.scope is None


def is_model(model: Any) -> bool:
    """Tell whether `side` takes this as a model."""
    if isinstance(model, tuple) and len(model) == 2:
        first, second = model
        if without_variables(first):
            return isinstance(second, Mapping)
        return callable(first) and not library_of(first)
    return bool(library_of(model)) and not without_variables(model)


def side(model: Any, call: Call) -> Side:
    """Return the side of a torch module, paddle layer, nnx module, (linen module, variables) or (function, parameters).

    Raises: UsageError for anything else, and for a parameter without elements, of which no value tells anything.
    """
    found = _side(model, call)
    if empty := [name for name, array in found.parameters.items() if not array.size]:
        raise UsageError(f"{', '.join(empty)}: no elements: build the {found.framework} model with lengths above 0")
    return found


def _side(model: Any, call: Call) -> Side:
    if without_variables(model):
        name = type(model).__name__
        raise UsageError(f"{name} is a linen module without its variables: give (module, variables)")
    if not is_model(model):
        swapped = isinstance(model, tuple) and not library_of(model) and not any(map(callable, model))
        remedy = "; inputs come after both models" if swapped else ""
        raise UsageError(f"{type(model).__name__} is no model: give {MODELS}{remedy}")
    library = library_of(model)
    if library == "torch.nn":
        from .torch_tape import TorchSide

        return TorchSide(model, call)
    if library == "paddle.nn":
        from .paddle_tape import PaddleSide

        return PaddleSide(model, call)
    from .jax_tape import function_side, linen_side, nnx_side

    if library == "flax.nnx":
        return nnx_side(model, call)
    first, second = model.unbind() if library == "flax.linen" else model
    return linen_side(first, second, call) if library_of(first) == "flax.linen" else function_side(first, second, call)


def draw(of: Side, seed: int, into: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Return random values for every parameter: of one sign where the model has them so (scales, variances).

    Args:
      into: arrays that get the values; else new ones.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, array in of.parameters.items():
        drawn[name] = np.empty(array.shape) if into is None else into[name]
        _draw(rng, array, of.output_axis, drawn[name])
    return drawn


def _draw(rng: np.random.Generator, like: Array, output_axis: int, out: Array, normal: bool = True) -> None:
    if like.ndim < 3 and like.size and (like > 0).all():  # of two axes: stacked over layers
        out[...] = rng.uniform(0.5, 1.5, like.shape)
        return
    if normal or like.size < LARGE:
        rng.standard_normal(out=out, dtype=out.dtype)
    else:  # of the same variance
        rng.random(out=out, dtype=out.dtype)
        out -= 0.5
        out *= math.sqrt(12)
    if like.ndim >= 2:
        out /= np.sqrt(min(max(1, like.size // like.shape[output_axis]), 4096))
    else:
        out *= 0.3


class Drawn(Mapping[str, Array]):
    """Random values for every parameter, of the same spread as those of draw(), drawn when read: bounds memory.

    Those of large ones are of float32: models get them as float64.

    Args:
      factor: by which matrices and kernels are smaller.
    """

    def __init__(self, of: Side, seed: int, factor: float = 1.0):
        self._of, self._seed, self._factor = of, seed, factor
        self._places = {name: k for k, name in enumerate(of.parameters)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Array:
        like = self._of.parameters[name]
        out = np.empty(like.shape, np.float64 if like.size < LARGE else np.float32)
        rng = np.random.default_rng((self._seed, self._places[name]))
        _draw(rng, like, self._of.output_axis, out, normal=False)
        if out.ndim >= 2 and self._factor != 1:
            out *= self._factor
        return out


def fresh(
    left: Mapping[str, Array], right: Mapping[str, Array], seed: int | None, tokens: bool = True
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draw other inputs for both sides: new numbers of the same spread, and the same tokens in other rows.

    An input that no axis order relates to one of the other side keeps its values; so do tokens where other ones are
    such an input, since these may be made from them.

    Args:
      seed: None keeps the left values, and gives the right side the same ones, free of its rounding.
      tokens: whether tokens are drawn as well; else they keep their values.
    """
    rng = np.random.default_rng(seed)
    new_left, new_right = dict(left), dict(right)
    every = {
        name: [(other, order) for other, b in right.items() for order in _orders(a, b)] for name, a in left.items()
    }
    known = {name for related in every.values() for name, _ in related}
    alone = [*(right[name] for name in right.keys() - known), *(left[name] for name in left if not every[name])]
    tokens = tokens and not any(_tokens(array) and not even(array) for array in alone)
    for name, array in left.items():
        if not (related := every[name]):
            continue
        if seed is not None and array.dtype.kind == "f":
            new_left[name] = array.mean() + array.std() * rng.standard_normal(array.shape)
        elif seed is not None and tokens and _tokens(array):
            new_left[name] = _shuffled(rng, array)
        for other, order in reversed(related):
            moved = new_left[name].transpose(order).reshape(right[other].shape)
            new_right[other] = moved.astype(right[other].dtype)
    return new_left, new_right


def undrawn(given: Mapping[str, Array], drawn: Mapping[str, Array]) -> list[str]:
    """Name the inputs of `fresh` that kept their values, by argument: masks and positions, which always do, apart."""
    kept = [name for name, array in given.items() if drawn[name] is array]
    drawable = [
        name for name in kept if given[name].dtype.kind == "f" or (_tokens(given[name]) and not even(given[name]))
    ]
    return [label(name) for name in drawable]


def check_inputs(left: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    """Check that arrays of floats on both sides have the same values in some order.

    Only the clear case counts: as many arrays on each side, all of floats, of which not one is the other side's, be it
    laid out otherwise, split into patches or rounded to a lower precision.

    Raises: UsageError.
    """
    arrays = [*left.values(), *right.values()]
    if not left or len(left) != len(right) or any(array.dtype.kind != "f" for array in arrays):
        return
    if any(_same_values(a, b) for a in left.values() for b in right.values()):
        return
    shapes = [" ".join(str(tuple(array.shape)) for array in side.values()) for side in (left, right)]
    what = f"of shapes {shapes[0]} and {shapes[1]}" if shapes[0] != shapes[1] else f"other values of shape {shapes[0]}"
    raise UsageError(
        f"the two sides give different inputs, {what}: leave out the right's, or give both the same values, as by a "
        "fixed seed"
    )


def _tokens(array: Array) -> bool:
    return array.dtype.kind in "iu" and len(np.unique(array)) > 2


def _shuffled(rng: np.random.Generator, tokens: Array) -> Array:
    """Return tokens in another order: each in its own column if there are many rows: columns may read other tables."""
    if len(tokens) >= ROWS:
        return rng.permuted(tokens, axis=0)
    return rng.permutation(tokens.ravel()).reshape(tokens.shape)


def _same_values(a: Array, b: Array) -> bool:
    """Tell whether arrays have the same values in some order, up to rounding to bfloat16."""
    if a.size != b.size:
        return False
    ours, theirs = (np.sort(array, axis=None).astype(float) for array in (a, b))
    return bool((np.abs(ours - theirs) <= ROUNDED * np.abs(ours).max(initial=0)).all())


def _orders(a: Array, b: Array) -> Iterator[tuple[int, ...]]:
    """Return axis orders in which a has b's elements, up to rounding to float32."""
    if a.size != b.size or a.ndim > 6 or (a.dtype.kind == "f") != (b.dtype.kind == "f"):
        return
    slack = 1e-6 * np.abs(a).max(initial=0) if a.dtype.kind == "f" else 0
    for order in itertools.permutations(range(a.ndim)):
        if (np.abs(a.transpose(order).ravel().astype(float) - b.ravel().astype(float)) <= slack).all():
            yield order
            return


def layouts(array: Array) -> Iterator[Array]:
    """Return the array in every order of its axes: the written one first, then channels last and channels first."""
    axes = tuple(range(array.ndim))
    likely = [axes, (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])] if array.ndim > 2 else [axes]
    every = [*likely, *itertools.permutations(axes)]
    seen = set[tuple[int, ...]]()
    for order in every:
        if order not in seen:
            seen.add(order)
            yield np.ascontiguousarray(array.transpose(order))
