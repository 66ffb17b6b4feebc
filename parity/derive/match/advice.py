"""Say what to compare by hand where nothing fits a use of a parameter, by the kind of the operation that reads it."""

from __future__ import annotations

from typing import NamedTuple

from parity.derive.trace.program import Program
from parity.derive.trace.sites import listed

from .symbols import Use

OPERATIONS = {"product": "product", "add": "sum", "mul": "multiplication", "place": "reading"}
CONVOLUTION = "padding, stride, dilation, groups, a resize (nearest, bilinear), the axes and the scale of its input"
BEFORE = "compare what both models compute before it"
FEEDS = {  # what differs most often between two models, by the kind of a use
    "product": "number of heads, masks, scales (of attention: 1 / sqrt(d)), activations, which token is taken (or a "
    "mean of them), the terms of a sum before it (positions), the order in which axes are flattened or joined",
    "add": "the other terms of the sum (a mask that one model adds and the other fills), scales, activations, and the "
    "order of the operations before it",
    "mul": "the norm that it belongs to: its axes, groups, epsilon, running statistics, and whether it comes before or "
    "after a residual sum, and which terms that has",
    "factor": "whether the left model multiplies there too; else the values that are multiplied",  # of no norm
    "place": "how often its rows are repeated, and in which order",
    "": "pooling, the position that is taken (or a mean of them), an activation, a scale",  # behind the last parameter
}
SUMMED = "which values are added there, such as the input of a block or the output of its norm, and their scales"


class Stop(NamedTuple):
    """A use without a partner.

    Args:
      names: of its parameters. why: it has none. before: what to compare before it.
      factor: the number of their axes, if it multiplies by one of them alone, which is no part of a norm, so that the
        left model may lack it; None of another use.
    """

    names: tuple[str, ...]
    why: str
    before: str = ""
    factor: int | None = None

    @property
    def where(self) -> str:
        """Return its parameters in a sentence."""
        return listed(self.names)

    @property
    def text(self) -> str:
        return f"{self.where}: {self.why}{f': {BEFORE}: {self.before}' * bool(self.before)}"


def operation(kind: str, window: object = None) -> str:
    """Name the operation of a use; `window` is that of a convolution."""
    return "convolution" if window else OPERATIONS[kind]


def feeds(kind: str, window: object = None) -> str:
    """List what to compare of the values that reach an operation; the kind "" is that of the outputs."""
    return CONVOLUTION if window else FEEDS[kind]


def compare(kind: str, window: object = None) -> str:
    """Advise what to compare before an operation."""
    return f"{feeds(kind, window)}; and the inputs"


def in_norm(program: Program, use: Use) -> bool:
    """Tell whether what a factor multiplies is computed in its own module, by no product and no sum of values."""
    node = program.tape.nodes[use.node]
    value = next((number for number in node.inputs if number in program.active), node.output)
    maker = program.maker(program.before_layouts(value)[0])
    if maker is None or maker.kind == "product" or maker.site != node.site:
        return False
    return maker.kind != "add" or sum(number in program.active for number in maker.inputs) < 2
