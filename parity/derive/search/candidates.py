"""Run both models for the matching: the left one on known weights, the right one as it is called."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from convert.errors import UsageError, command_or_call
from convert.folding import fold as folded
from parity.derive.forms.convolutions import cropped
from parity.derive.forms.joined import with_terms
from parity.derive.forms.mixed import added, mixed
from parity.derive.forms.real_parts import in_real_parts
from parity.derive.forms.routed import passed_over
from parity.derive.limits import LARGE_MODEL
from parity.derive.match.hints import Hint, weights_of
from parity.derive.match.match import Match
from parity.derive.match.symbols import Filled
from parity.derive.trace.caches import trim
from parity.derive.trace.call import Call, as_array, call_of, label
from parity.derive.trace.draws import Drawn, draw, of_one_value
from parity.derive.trace.frames import line_of, message
from parity.derive.trace.inputs import layouts
from parity.derive.trace.outputs import arranging, axes_of, clash, paired
from parity.derive.trace.precomputed import fixed, masks
from parity.derive.trace.program import Program
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sides import Side
from parity.derive.trace.tape import Array, Tape
from parity.given.usage import of_shapes
from specs.applied.arrays import as_arrays, flat
from specs.notation.lines import TableError

T = TypeVar("T")
Weights = str | Mapping[str, Any] | None

SEED = 7
MAX_LAYOUTS = 8  # axis orders of the input that are tried
MAX_DRAWS = 6  # weights of a model that are tried until it passes no parameters over

MISORDERED = 1 << 30  # more than any match has uses


class Left(NamedTuple):
    """The left model, run on known weights.

    Args:
      tape: as it was recorded; the program's has the right tables in place of rounded ones.
      elements: its elements, with these weights.
      checkpoint: the file that they are read from, or a tree of arrays by name; None for random ones.
      drawn: parameters that are random all the same: those of one value in the checkpoint, which would show nothing.
      seed: of random weights.
    """

    side: Side
    tape: Tape
    program: Program
    elements: Filled
    checkpoint: Weights
    drawn: Sequence[str] = ()
    seed: int = SEED

    @property
    def inputs(self) -> dict[str, Any]:
        return self.side.call.arrays()

    def fill(self) -> None:
        """Give the elements again the weights with which the sides were matched."""
        fill(self.side, self.elements, self.checkpoint, self.seed)


class Called(NamedTuple):
    """How the right model is called.

    Args:
      correspondence: how its inputs and outputs go with the left one's, where orders of axes or names differ.
      arranged: whether its outputs are in the order of the left ones. clash: see outputs.
      input_order: of the axes of the left model's single input, in which the right one gets it; () as they are.
      output_order: of the axes of the right model's single output, in which the left one returns it; () as they are.
    """

    call: Call
    correspondence: tuple[str, ...] = ()
    arranged: bool = False
    clash: str = ""
    input_order: tuple[int, ...] = ()
    output_order: tuple[int, ...] = ()


class Candidate(NamedTuple):
    """The right model as it was called, and the match of this call.

    Args:
      tape: of the right side, with its inputs.
      exact: the tape as it is matched: with tables of the left side in place of rounded ones, and convolutions cropped.
      hint: lines that are known.
      programs: those of both sides that were matched; edited where these match deeper.
      correspondence, input_order, output_order: see Called. clash: see outputs.
      left_out: right parameters that an edit leaves out -> how both sides differ in them.
      limit: which limit ended the search for a complete match; "" if all was tried.
    """

    found: Match
    side: Side
    tape: Tape
    exact: Tape
    inputs: list[Any]
    hint: Hint | None
    programs: tuple[Program, Program]
    correspondence: Sequence[str] = ()
    clash: str = ""
    left_out: Mapping[str, OneSided] = MappingProxyType({})
    input_order: tuple[int, ...] = ()
    output_order: tuple[int, ...] = ()
    limit: str = ""

    @property
    def depth(self) -> tuple[bool, int]:
        """Return whether the match is complete, and how far it goes; the last of all where outputs show a wrong order.

        Inputs whose axes are exchanged may make the batch of one model the tokens of the other one.
        """
        complete, uses = not self.found.failure, len(self.found.steps)
        sizes = [sorted(map(np.size, program.outputs)) for program in self.programs]
        if self.input_order and sizes[0] != sizes[1]:
            return False, uses - (MISORDERED // 2 if complete else MISORDERED)
        return complete, uses


def read(a: Side, checkpoint: Weights) -> Left:
    """Run the left side's tape on weights: of random ones those that pass the fewest parameters over, as routers do."""

    def left(k: int) -> tuple[Left, Program]:
        known = _read(a, checkpoint, SEED + k)
        return known, known.program

    large = sum(array.size for array in a.parameters.values()) >= LARGE_MODEL
    return with_rows(left, 1 if large or checkpoint is not None else MAX_DRAWS)


def with_rows(draw: Callable[[int], tuple[T, Program]], times: int = MAX_DRAWS) -> T:
    """Return the first draw of weights that passes no parameters over, or the one that passes the fewest over.

    Args:
      draw: returns a draw by its number, and the program that ran on it.
    """
    drawn, program = draw(0)
    fewest = passed_over(program) if times > 1 else 0
    for k in range(1, times if fewest else 1):
        other, program = draw(k)
        if (count := passed_over(program)) < fewest:
            drawn, fewest = other, count
        if not fewest:
            break
    return drawn


def _read(a: Side, checkpoint: Weights, seed: int) -> Left:
    elements = Filled(a.parameters)
    given, drawn = a.call.arrays(), list[str]()
    if checkpoint is None and len(elements) >= LARGE_MODEL:  # without the elements' own values beside it: bounds memory
        tape = recorded(a, Drawn(a, seed), given, "left")
        fill(a, elements, checkpoint, seed)
    else:
        drawn = fill(a, elements, checkpoint, seed)
        tape = recorded(a, elements.arrays, given, "left")
    program = program_of(tape, elements.arrays, list(given.values()))
    return Left(a, program.tape, program, elements, checkpoint, drawn, seed)


def fill(a: Side, elements: Filled, checkpoint: Weights, seed: int) -> list[str]:
    """Give the left side's elements the values with which it is matched.

    Returns: parameters of one value in the checkpoint, as those of new norms; these keep random ones.
    Raises: UsageError for NaN, which equals nothing on the right; ConvertError for names or shapes that differ.
    """
    draw(a, seed, elements.arrays)
    if checkpoint is None:
        return []
    own = _given(checkpoint, a) if isinstance(checkpoint, Mapping) else weights_of(checkpoint, a)
    if broken := [name for name, array in own.items() if np.isnan(array).any()]:
        what = "left_weights" if isinstance(checkpoint, Mapping) else checkpoint
        raise UsageError(f"{what}: has NaN: give weights of numbers, or none, for random ones", folded(broken))
    drawn = [name for name, array in own.items() if array.size > 1 and of_one_value(array)]
    for name, array in own.items():
        if name not in drawn:
            elements.arrays[name][...] = array
    return drawn


def _given(tree: Mapping[str, Any], side: Side) -> dict[str, Any]:
    """Return the left model's parameters from a tree of arrays. Raises: UsageError for names or shapes that differ."""
    try:
        arrays = as_arrays(flat(tree))
    except TableError as error:
        raise UsageError(f"left_weights: {error}") from None
    problems = [f"missing {name}" for name in side.parameters if name not in arrays]
    for name, array in side.parameters.items():
        if name in arrays and arrays[name].shape != array.shape:
            problems.append(f"{name} has shape {list(arrays[name].shape)}, the model {list(array.shape)}")
    if problems:
        raise UsageError("left_weights: are not of the left model", problems)
    return {name: arrays[name].astype(np.float64) for name in side.parameters}


def program_of(tape: Tape, parameters: Any, inputs: list[Any]) -> Program:
    """Run a tape; convolutions compute what is read of them, columns of one number are terms, and means are mixed."""
    program = Program(tape, parameters, inputs)
    for form in (cropped, with_terms, mixed):
        other = form(program)
        program = program if other is program.tape else Program(other, parameters, inputs)
    return program


def fix(side: Side, other: Tape) -> bool:
    """Set aside parameters that hold what the other side computes: they keep their values. Tell whether there are."""
    names = fixed(side.parameters, other)
    side.fix(names)
    return bool(names)


def fix_masks(side: Side, other: Side) -> bool:
    """Set aside masks that the other side has no array for, or has with the same ones. Tell whether there are."""
    own, others = masks(side.parameters), [other.parameters[name] for name in masks(other.parameters)]
    names = [name for name in own if not others or _same_ones(side.parameters[name], others)]
    side.fix(names)
    return bool(names)


def _same_ones(mask: np.ndarray, others: list[np.ndarray]) -> bool:
    return bool(mask.max() == 1) and any(np.array_equal(mask, other) for other in others)


def recorded(side: Side, parameters: Any, inputs: Any, which: str) -> Tape:
    """Record a model.

    Raises: UsageError for whatever its code raises, and for one that returns no arrays, or what cannot be compared.
    """
    try:
        tape = in_real_parts(side.record(parameters, inputs).live(), parameters, list(inputs.values()))
        tape = added(tape)
        side.release()
        trim()
    except UsageError as error:
        raise UsageError(f"the {which} model {error.message}") from None
    except Exception as error:  # the user's code may raise anything
        where = ": ".join(filter(None, [line_of(error), message(error)]))
        named = {label(path): f"{list(np.shape(array))} {np.asarray(array).dtype}" for path, array in inputs.items()}
        shapes = ", ".join(
            text + f" ({name})" * (len(named) > 1 or name in side.call.kwargs) for name, text in named.items()
        )
        listed = all(path.startswith("0/0/") for path in inputs)  # inside the only argument
        hint = "; a list of inputs is one argument: several are a tuple, as in return model, (x,)" if listed else ""
        hint += _axes_hint(side, inputs) if which == "left" and of_shapes(error) else ""
        raise UsageError(f"the {which} model cannot be run with inputs of shape {shapes}: {where}{hint}") from error
    if not tape.outputs:
        raise UsageError(f"the {which} model returns no arrays of numbers: what its function returns is compared")
    return tape


def _axes_hint(side: Side, inputs: Mapping[str, Any]) -> str:
    """Say that the left model gets images as they are given, and how the other order is made; "" without images."""
    if not any(np.ndim(array) == 4 and np.asarray(array).dtype.kind != "b" for array in inputs.values()):
        return ""
    own, order = ("first", (0, 3, 1, 2)) if side.framework in ("torch", "paddle") else ("last", (0, 2, 3, 1))
    other = command_or_call("return (model, inputs) on the right", "right_inputs=...")
    what = f"inputs are taken as they are on the left, and images in {side.framework} have channels {own}"
    given = f"x.transpose{order} if they are given the other way round"
    return f"; {what}: {given}; {other} gives the right model another order"


def calls(call: Call, right_inputs: Any) -> Iterator[Called]:
    """Yield how the right side may be called, if the left one is called so."""
    if right_inputs is not None:
        yield Called(call_of(right_inputs))
    elif len(call.args) == 1 and not call.kwargs and hasattr(call.args[0], "shape"):
        for order, array in itertools.islice(layouts(as_array(call.args[0])), MAX_LAYOUTS):
            shapes = f"{list(np.shape(call.args[0]))} on the left is {list(array.shape)} on the right"
            moved = f"the right input is the left one with its axes in the order {order}: {shapes}"
            turned = Call(array, method=call.method, output=call.output)
            yield Called(turned) if list(order) == sorted(order) else Called(turned, (moved,), input_order=order)
    else:
        yield Called(call)


def arranged(called: Called, left: Side, right: Side, outputs: Sequence[Array], others: Sequence[Array]) -> Called:
    """Return how the right side is called so that its outputs are in the order of the left ones, and of their shapes.

    Args:
      outputs, others: of the left and of the right side.
    """
    if called.arranged or len(outputs) != len(others):
        return called
    order = paired(left.named, right.named)
    axes = axes_of(outputs, [others[at] for at in order])
    said, several = list(called.correspondence), len(others) > 1
    for k, at in enumerate(order):
        one, other = left.named.arrays[k], right.named.arrays[at]
        if several and one != other:
            said.append(f"output {_shown(one)} of the left model is compared with {_shown(other)} of the right one")
        if k in axes:
            which = f"output {_shown(other)}" if several else "the output"
            said.append(f"{which} of the right model is compared with its axes in the order {axes[k]}")
    call = called.call
    if axes or order != sorted(order):
        call = Call(*call.args, method=call.method, output=arranging(call.output, order, axes), **call.kwargs)
    turned = () if several else axes.get(0, ())
    return Called(call, tuple(said), True, clash(left.named, right.named), called.input_order, turned)


def _shown(path: str) -> str:
    """Name an output by its path; those of a tuple count from 1."""
    return str(int(path) + 1) if path.isdigit() else path
