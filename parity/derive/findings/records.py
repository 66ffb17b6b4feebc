"""Define what a derivation found, in four records: what was given, matched, judged, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parity.derive.explain.divergence import Divergence
from parity.derive.fold.rows import DerivedTable
from parity.derive.match.advice import Stop
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.prove.prove import Proof


@dataclass(frozen=True, kw_only=True, repr=False)
class Given:
    """What both models are, how the right one is called beside the left one, and what was given with them.

    Args:
      arrays, elements: the numbers of parameters and of their elements on the left and on the right.
      classes: of the modules of both sides, by their paths.
      correspondence: how inputs and outputs of the right model go with the left one's, where axes or names differ.
      input_order: of the axes of the left model's single input, in which the right one gets it; () as they are.
      output_order: of the axes of the right model's single output, in which the left one returns it; () as they are.
      drawn: left parameters of one value in the weights that were given, which got random ones.
      constants: right parameters that given lines set to one value, and on which outputs depend, with that value.
      given_open: lines that were given and left out, since the models' shapes do not show the lengths of their axes.
      given_lengths: those of them that say what was found, with the only lengths with which they do: "a=5 and b=8".
      branches: sides whose code takes numbers out of values in float, which the proof covers as far as these inputs go.
      voided: the sides whose code takes no float64 beside its casts to lower precision: these were void in every run.
      settings: the arguments that are flags, texts or None, where both sides have such; "" where they do not.
      momentum: of the batch norms of both sides where these differ; "" where they do not. No proof tests it.
      dropout: rates of both sides, likewise.
    """

    arrays: tuple[int, int] = (0, 0)
    elements: tuple[int, int] = (0, 0)
    classes: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    correspondence: Sequence[str] = ()
    input_order: tuple[int, ...] = ()
    output_order: tuple[int, ...] = ()
    drawn: Sequence[str] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    given_open: Sequence[str] = ()
    given_lengths: Mapping[str, str] = field(default_factory=dict)
    branches: Sequence[str] = ()
    voided: Sequence[str] = ()
    settings: str = ""
    momentum: str = ""
    dropout: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Matching:
    """The Table, and how its lines were found.

    Args:
      uses: each use of a parameter on the right with its partner, in the order of execution.
      reasons: right parameters that the table does not fill, each with the reason; missing: their names.
      stop: the use at which the matching stopped, None if it did not; failure: the same in words.
      unmatched: of both sides, what has no partner.
      inferred: right parameters of which all or some elements follow a pattern or a name, since nothing reads them; and
        those of `doubtful`. in_rows: those of which the inputs read some rows alone.
      doubtful: right parameters whose partners were taken where values differ, or that share one left parameter.
      chosen: right parameters that fit several left ones, of which no outputs confirm the one that was taken.
      filled: right parameters that lines set to zero, all or a part, as the left model has no such bias or rows.
      dropped: right parameters that lines drop. dropped_read: those of each side, as lines call them, with which their
        own model computes; none of a proven Table, where the other model computes the same without them.
      unseen_orders: right parameters of which an axis may be flattened in another order in larger models.
      two_places: those of which lines reverse an axis of two places, which no code is seen to reverse.
      search_limit: which limit ended the search for partners; "" if all was tried.
    """

    table: DerivedTable
    uses: Sequence[Step]
    reasons: Mapping[str, str]
    stop: Stop | None
    unmatched: Sequence[Unmatched] = ()
    inferred: Sequence[str] = ()
    in_rows: Sequence[str] = ()
    doubtful: Sequence[str] = ()
    chosen: Sequence[str] = ()
    filled: Sequence[str] = ()
    dropped: Sequence[str] = ()
    dropped_read: tuple[Sequence[str], Sequence[str]] = ((), ())
    unseen_orders: Sequence[str] = ()
    two_places: Sequence[str] = ()
    search_limit: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Judgement(Proof):
    """Whether the Table is proven, with the errors in the proof.

    Args:
      proven: outputs and gradients agree in float64 on weights and inputs that were not used to find the table.
      unshown: right arrays that both models read and that keep their own values, as integers do: no value shows how the
        left ones become them.
      reads_numbers: a model's code reads numbers, by `.item()` or to choose a branch: what was recorded of it holds
        those of one run, so that places where the models part are not known. The proof runs the models themselves.
      tested: shapes of the left model's inputs; where these are one example, also of two that the proof has run.
      absent: tokens that no input has, and with which the models differ; "" where there are none.
      over_one: how the models differ beyond one value, if no outputs can be compared there; "" elsewhere.
      as_given: how the models differ in the dtypes of their given weights; "" where they do not. not_as_given: why they
        were not run so.
      fills: what masked places get on each side, where that differs, and with which scores outputs are equal.
      lower: the dtypes of lower precision in which the models compute, where their outputs differ by that alone.
      freedom: what may be permuted without effect: the table keeps the order as it is written. untried: what was not
        tried of that, "" if all was.
      notes: on numbers that one model alone stores, for the comments of the Table.
      trained_tables: trained parameters that lines drop, as the other model computes their values: "pos on the left".
    """

    proven: bool
    unshown: Sequence[str] = ()
    reads_numbers: bool = False
    tested: Sequence[tuple[int, ...]] = ()
    absent: str = ""
    over_one: str = ""
    as_given: str = ""
    not_as_given: str = ""
    fills: str = ""
    lower: Sequence[str] = ()
    freedom: Sequence[str] = ()
    untried: str = ""
    notes: Sequence[str] = ()
    trained_tables: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Differences:
    """Where models that are not proven equal part, and how they are built otherwise.

    Args:
      divergences: where the models part, in the order of execution on the right.
      depths: how the numbers of blocks of both models differ; "" where they do not. sizes: the same of lengths of axes.
      strides, heads: the same of strides of convolutions, and of heads of attention, where the matching stopped.
      weight_norms: lengths and directions of weights that one side alone has, by their names.
      complex_arrays: trained arrays of complex numbers, by their names.
      misordered: why the right model seems to take its inputs in another order; "" if it does not.
      check_given: which given lines may be why models part; "" where none was given, none is read
        between uses that agree and that place, or another cause is confirmed.
    """

    divergences: Sequence[Divergence] = ()
    depths: str = ""
    sizes: str = ""
    strides: str = ""
    heads: str = ""
    weight_norms: str = ""
    complex_arrays: str = ""
    misordered: str = ""
    check_given: str = ""
