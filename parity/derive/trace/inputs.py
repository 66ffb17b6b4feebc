"""Draw new inputs for both sides, check those that are given, and lay an array out in other orders of its axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convert.errors import UsageError
from parity.derive.limits import HIDING, HUGE

from .call import WIDE, label
from .program import Program
from .reason import Reason
from .still import even
from .tape import Array

BFLOAT16 = 2**-8  # relative difference of a number that bfloat16 rounds
ONE_VALUE = "each has one value alone, so that no other one was tested: give random numbers"
ONE_TOKEN = (
    "each has one value alone, so that neither other tokens and their order were tested, nor what a mask hides: give "
    "random tokens, rng.integers(0, vocabulary, (2, 5)), or a mask of both values"
)
ONE_KIND = (
    "each has one value alone, so that no other one was tested, such as a place that a mask hides or another type of "
    "token: give both values"
)
MASK = "its two values are taken for a mask"
KEY = "its integers of 32 bits are taken for a key of random numbers: derive again with another key"
POSITIONS = "its evenly spaced integers are taken for positions"
PLAIN = "plain numbers are not drawn: give arrays of one element to vary them"
ONE_STEP = "equal only for sequences of one step, with which no output depends on"
SEVERAL_STEPS = "give inputs of several steps, such as 5 tokens; then derive again"
ALIKE = Reason(
    "equal only with inputs of one value each, by which a wrong order of positions would not show",
    "give inputs of several values, such as random tokens; then derive again",
)
Ties = dict[str, list[tuple[str, tuple[int, ...]]]]  # left input: right ones, and the order of its axes; see related
ROWS = 4  # rows of tokens from which on each column is shuffled for itself


def fresh(
    left: Mapping[str, Array], right: Mapping[str, Array], seed: int | None, tokens: bool = True
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draw other inputs for both sides: new numbers of the same spread, and the same tokens in other rows.

    An input that no axis order relates to one of the other side keeps its values, as do masks, those of floats and
    floats of one value beside other inputs. So do tokens where other ones are without such an order, since these may be
    made from them.

    Args:
      seed: None keeps the left values, and gives the right side the same ones, free of its rounding.
      tokens: whether tokens and lone numbers are drawn as well; else they keep their values.
    """
    rng = np.random.default_rng(seed)
    new_left, every = dict(left), related(left, right)
    lone, tokens = tokens, tokens and not lone_tokens(left, right)
    for name, array in left.items():
        if seed is None or not every[name] or (len(left) > 1 and of_mask(array)):
            continue
        if array.dtype.kind in WIDE and (lone or array.size > 1):
            new_left[name] = _drawn(rng, array, alone=len(left) == 1)
        elif tokens and _tokens(array):
            new_left[name] = _shuffled(rng, array)
    return new_left, carried(new_left, right, every)


def related(left: Mapping[str, Array], right: Mapping[str, Array]) -> Ties:
    """Return for each left input the right ones that have its elements, with the order of its axes in which they do."""
    every = _of_equal_values(left, right)
    # One array may be given for several inputs, as queries, keys and values: each goes with that of its own name.
    own = {name for name, pairs in every.items() if name in dict(pairs)}
    # All zeros or ones are no evidence that an input of another name is the same one.
    by_name = {name for name in own if left[name].size and set(np.unique(left[name])) in ({0}, {1})}
    return {
        name: [(other, order) for other, order in pairs if other == name or (other not in own and name not in by_name)]
        for name, pairs in every.items()
    }


def lone_tokens(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Tell whether one side alone is given some tokens, as those of a decoder that are the others, moved by a place."""
    every = related(left, right)
    known = {name for pairs in every.values() for name, _ in pairs}
    alone = [*(right[name] for name in right.keys() - known), *(left[name] for name in left if not every[name])]
    return any(map(token_ids, alone))


def ties(left: Mapping[str, Array], right: Mapping[str, Array]) -> list[Ties]:
    """Return the ways in which inputs of both sides may go together, the likeliest first; see related.

    Inputs of one name go together, and the others by their values. Where inputs of one side alone have such values,
    several ways are possible: they may be none of the other side's inputs, or the same as one that has a partner.
    """
    every = _of_equal_values(left, right)
    own = {name for name, pairs in every.items() if name in dict(pairs)}
    others = {name: [pair for pair in pairs if pair[0] not in own] for name, pairs in every.items()}
    apart = {name: [pair for pair in every[name] if pair[0] == name] if name in own else others[name] for name in every}
    paired = {other for pairs in apart.values() for other, _ in pairs}
    together = {
        name: [pair for pair in pairs if pair in apart[name] or not apart[name] or pair[0] not in paired]
        for name, pairs in every.items()
    }
    ways = [apart, together]
    lone = [name for name, pairs in apart.items() if pairs and name not in own]
    rights = {other for name in lone for other, _ in apart[name]}
    if len(lone) == 1:  # the right side has several inputs of these values: one of them alone
        ways += [{**apart, lone[0]: [pair]} for pair in apart[lone[0]]]
    elif len(rights) == 1:
        ways += [{**apart, **{other: [] for other in lone if other != name}} for name in lone]
    return [way for k, way in enumerate(ways) if way not in ways[:k]]


def _of_equal_values(left: Mapping[str, Array], right: Mapping[str, Array]) -> Ties:
    """Return for each left input all right ones that have its elements; see related."""
    return {name: [(other, order) for other, b in right.items() for order in _orders(a, b)] for name, a in left.items()}


def carried(left: Mapping[str, Array], right: Mapping[str, Array], every: Ties) -> dict[str, Array]:
    """Return the right inputs with the values of other left ones, as far as these are given.

    Args:
      every: see related.
    """
    new = dict(right)
    for name, array in left.items():
        for other, order in reversed(every[name]):
            new[other] = array.transpose(order).reshape(right[other].shape).astype(right[other].dtype)
    return new


def undrawn(given: Mapping[str, Array], drawn: Mapping[str, Array]) -> dict[str, str]:
    """Return the inputs of `fresh` that kept their values, by argument, with why; "" where others may be drawn."""
    kept = {name: array for name, array in given.items() if array.size and np.array_equal(drawn[name], array)}
    varied = any(map(token_ids, given.values()))
    return {label(name): _reason(array, varied) for name, array in kept.items()}


def _reason(array: Array, varied: bool) -> str:
    """Say why an input kept its values. Args: varied: whether another one is of several tokens."""
    if array.dtype == np.uint32 and array.shape[-1:] == (2,) and not token_ids(array):  # jax.random.PRNGKey
        return KEY
    if (array == array.flat[0]).all():
        is_kind = array.dtype.kind == "b" or (varied and array.flat[0] in (0, 1))
        return ONE_VALUE if array.dtype.kind not in "iub" else ONE_KIND if is_kind else ONE_TOKEN
    if (array.dtype.kind not in "iub" or token_ids(array)) and not of_mask(array):
        return ""
    return POSITIONS if even(array) and len(np.unique(array)) > 2 else MASK


def only_one_step(*sides: Program) -> bool:
    """Tell whether sequences have one step: tokens (n, 1), or vectors (n, 1, width), of which attention sees one.

    Where a convolution reads vectors (n, channels, steps), as of a sound of one channel, steps are the last axis.
    """
    steps = list[int]()
    for program in sides:
        for number, array in program.inputs.items():
            if array.dtype.kind in "iu" and array.ndim > 1:
                steps.append(array.shape[-1])
            elif array.dtype.kind == "f" and array.ndim == 3:
                readers = program.reading(number)
                steps.append(array.shape[2 if any(node.window for node in readers) else 1])
    return bool(steps) and all(step == 1 for step in steps)


def only_one_value(inputs: Sequence[Array]) -> bool:
    """Tell whether inputs have many elements, all alike: tokens of zeros, of which every place is as every other."""
    several = [array for array in inputs if array.size > 1]
    return bool(several) and all((array == array.flat[0]).all() for array in several)


def check_numbers(given: Mapping[str, Array]) -> None:
    """Check that no input has NaN, with which values of two models are never equal. Raises: UsageError."""
    for path, array in given.items():
        if array.dtype.kind in WIDE and (count := int(np.isnan(array).sum())):
            places = f"in {count:,} of its {array.size:,} places" if count < array.size else "everywhere"
            raise UsageError(
                f"{label(path)} of shape {list(array.shape)} is NaN {places}: give inputs that are numbers"
            )


def check_inputs(left: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    """Check that both sides give the same numbers and the same tokens, in any order of axes.

    Only the clear case counts: as many arrays of floats on each side, or as many of tokens, of which not one is the
    other side's, be it laid out otherwise, split into patches or rounded to a lower precision. Tokens may be counted
    from another number, and masks and positions be written in several ways.

    Raises: UsageError.
    """
    for a, b in _of_one_kind([*left.values()], [*right.values()]):
        if not a or len(a) != len(b) or any(_same_values(one, other) for one in a for other in b):
            continue
        shapes = [" ".join(str(list(array.shape)) for array in side) for side in (a, b)]
        what = (
            f"of shapes {shapes[0]} and {shapes[1]}" if shapes[0] != shapes[1] else f"other values of shape {shapes[0]}"
        )
        raise UsageError(
            f"the two sides give different inputs, {what}: leave out the right's, or give both the same values, as by "
            "a fixed seed"
        )


def _of_one_kind(left: Sequence[Array], right: Sequence[Array]) -> Iterator[tuple[Sequence[Array], Sequence[Array]]]:
    """Yield the inputs of both sides that have to be the same: floats, then token ids.

    Beside other inputs, floats of at most two values may be masks.
    """
    if all(array.dtype.kind == "f" for array in (*left, *right)):
        yield left, right
        return
    for is_kind in (_various, token_ids):
        yield [*filter(is_kind, left)], [*filter(is_kind, right)]


def _various(array: Array) -> bool:
    return array.dtype.kind == "f" and len(np.unique(array)) > 2


def token_ids(array: Array) -> bool:
    """Tell whether an input is token ids: integers that are no mask, which has two values, and no positions."""
    return _tokens(array) and not even(array)


def _tokens(array: Array) -> bool:
    return array.dtype.kind in "iu" and len(np.unique(array)) > 2


def of_mask(array: Array) -> bool:
    """Tell whether floats are those of a mask: ones and zeros, or zeros and what hides values to which it is added."""
    values = np.unique(array) if array.dtype.kind == "f" and array.size > 2 else np.empty(0)
    return len(values) == 2 and bool(set(values) == {0, 1} or (values[1] == 0 and values[0] <= HIDING))


def _drawn(rng: np.random.Generator, array: Array, alone: bool) -> Array:
    """Return numbers of the same spread; of a lone one, as a time between 0 and 1, a share of at least one half.

    Args:
      alone: whether the model has no other input: then numbers that are all the same are spread too.
    """
    if array.size == 1:
        return array * rng.uniform(0.5, 1)
    noise = rng.standard_normal(array.shape)
    if array.dtype.kind == "c":
        noise = (noise + 1j * rng.standard_normal(array.shape)) / np.sqrt(2)
    return np.asarray(array.mean() + (array.std() or float(alone)) * noise)


def _shuffled(rng: np.random.Generator, tokens: Array) -> Array:
    """Return tokens in another order: each in its own column if there are many rows: columns may read other tables.

    A token that each row has, such as the one that ends a text, stays in each as often. Rows that are all alike are
    turned by one place more each, so that they are told apart.
    """
    if len(tokens) > 1 and (tokens == tokens[:1]).all():
        return np.stack([np.roll(row, k + 1) for k, row in enumerate(tokens)])
    if len(tokens) >= ROWS:
        shuffled = rng.permuted(tokens, axis=0)
        lacking = _lacking(tokens, shuffled)
        shuffled[lacking] = tokens[lacking]
    else:
        rows = tokens.reshape(len(tokens) if tokens.ndim > 1 else 1, -1)
        shuffled = rng.permutation(rng.permuted(rows, axis=1)).reshape(tokens.shape)
    if np.array_equal(shuffled, tokens):  # another order in any case
        return np.roll(tokens, 1, axis=0 if len(tokens) > 1 else -1)
    return shuffled


def _lacking(tokens: Array, shuffled: Array) -> Array:
    """Tell which rows of shuffled tokens have one, which each row had, less or more often than any row did."""
    rows, others = tokens.reshape(len(tokens), -1), shuffled.reshape(len(tokens), -1)
    lacking = np.zeros(len(tokens), bool)
    for token in np.intersect1d(rows[0], rows[-1]):
        before, now = ((side == token).sum(1) for side in (rows, others))
        if before.min():
            lacking |= (now < before.min()) | (now > before.max())
    return lacking


def _same_values(a: Array, b: Array) -> bool:
    """Tell whether arrays have the same values in some order: floats up to bfloat16, tokens up to an offset."""
    if a.size != b.size:
        return False
    first, second = (np.sort(array, axis=None).astype(float) for array in (a, b))
    if a.dtype.kind in "iu":
        return len(np.unique(second - first)) <= 1
    return bool((np.abs(first - second) <= BFLOAT16 * np.abs(first).max(initial=0)).all())


def _orders(a: Array, b: Array) -> Iterator[tuple[int, ...]]:
    """Yield the axis order in which a has b's elements, up to rounding to float32: one that gives b's shape, if any.

    Of an input whose elements are all alike, each order has them.
    """
    if a.size != b.size or a.ndim > 6 or (a.dtype.kind == "f") != (b.dtype.kind == "f"):
        return
    slack = _slack(a) if a.dtype.kind in WIDE else np.zeros(a.shape)
    wide = np.result_type(a, b, np.float64)
    orders = itertools.permutations(range(a.ndim))
    for order in sorted(orders, key=lambda order: tuple(a.shape[axis] for axis in order) != b.shape):
        one, other = a.transpose(order).ravel().astype(wide), b.ravel().astype(wide)
        if ((one == other) | (np.abs(one - other) <= slack.transpose(order).ravel())).all():
            yield order
            return


def _slack(array: Array) -> Array:
    """Return what rounding to float32 may change in each element; beside huge ones, as of a mask, that is little."""
    size = np.abs(array)
    usual = size < HUGE
    return 1e-6 * np.where(usual, size[usual].max(initial=0), np.where(np.isfinite(size), size, 0))


def layouts(array: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield each order of axes and the array in it: the written one first, then channels last and channels first."""
    axes = tuple(range(array.ndim))
    likely = [axes, (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])] if array.ndim > 2 else [axes]
    every = [*likely, *itertools.permutations(axes)]
    seen = set[tuple[int, ...]]()
    for order in every:
        if order not in seen:
            seen.add(order)
            yield order, np.ascontiguousarray(array.transpose(order))


def misordered(inputs: Mapping[str, Array], left: Sequence[tuple[int, ...]], right: Sequence[tuple[int, ...]]) -> str:
    """Say that the right model may take its inputs in another order; "" if the shapes do not look so.

    They do where one output has on each side the length of another input in the same axis.

    Args:
      inputs: of the left model. left, right: shapes of the outputs.
    """
    shapes = {label(path): array.shape for path, array in inputs.items()}
    for one, other in zip(left, right, strict=False):
        axes = [axis for axis, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
        if len(one) != len(other) or len(axes) != 1:
            continue
        owners = [[name for name, shape in shapes.items() if shape[axes[0] : axes[0] + 1] == (of[axes[0]],)]
                  for of in (one, other)]  # fmt: skip
        if all(len(names) == 1 for names in owners):
            return f"outputs are as long as {owners[0][0]} on the left, {one}, as {owners[1][0]} on the right, {other}"
    return ""
