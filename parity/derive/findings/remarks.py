"""Say what a derivation found beside its verdict, in the same words in the terminal, in the Table and on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from convert.folding import fold as folded_names
from parity.derive.fold.joined import PAIR
from parity.derive.fold.rows import DerivedTable
from parity.derive.trace.inputs import POSITIONS
from specs.notation.claims import ASSUMED, IN_CODE, RANGES, TRAINED, TWO_PLACES, UNSEEN
from specs.notation.paths import match
from specs.table import Table
from specs.words import in_a_row

from .blocks import unlike_orders
from .evidence import Evidence
from .orders import UNUSUAL, flattened, order
from .ranges import dropped_ranges, shifted_rows

FREE = "free to permute:"
MORE_BLOCKS = "if larger models have more of these blocks, derive from models with two"
OTHER_UNITS = (
    "; not looked for: units of one parameter alone, as in a fused projection or a recurrent cell, and those that "
    "several read, as with squeeze-and-excitation"
)
UNCHECKED = "no shape of either side shows these lengths{}, so a conversion, with --reverse too, takes any you give"
WIDER = (
    "one of them may be 2 in every model, as the number of channels that rotary positions turn together: derive from "
    "models in which nothing else is 2, with rotary positions from 3 heads of keys or more, and heads of 8 channels or "
    "more, where pairs are told from the rest"
)
BY_CHANCE = (
    "nothing shows that the code has this number whatever the width: where keys and values have fewer heads than "
    "queries, or rotary positions turn another part of each head, there are other parts: derive with the checkpoint's "
    "ratios"
)
ANOTHER_LENGTH = "for checkpoints with more or fewer of these blocks, derive from models with as many"
NUMBERS = (
    "code of a model reads numbers (.item(), a branch): values inside the models were not compared, the proof compares "
    "their outputs and gradients"
)
BRANCHES = (
    "code of {} reads numbers of values (.item(), a branch): if it chooses a branch by them, the proof covers "
    "those that its inputs and weights take"
)
VOIDED = "code of {} takes no float64 beside its casts to lower precision: the proof has run it without these casts"
OPEN = (
    "the shapes of both models leave lengths of their axes open; these arrays were derived anew: write lengths, as in "
    "(h=4+k=4 d), to have such a line taken as given"
)
FOUND = "no shape shows these lengths, and with no others the line says what the run shows"
NO_WAY_BACK = (
    "a checkpoint of the right model converts with --reverse only while these values are 0, which training changes: "
    "freeze them, or add such a bias to the left model"
)
ONE_ARRAY = "--reverse converts these only while they are equal"
NO_STATE = (
    "their weights convert in both directions, the state of an optimizer does not, as a term takes a step of its own"
)
ONE_LONG = (
    "beside axes of these, the models flatten, cut or repeat one of length 1 (a position, head, group, channel or "
    "frame, half of a head of 2 channels, heads of queries for each of keys) at different places: where it is longer, "
    "other lines may be right: derive from models in which every such length is 2 or more, with heads of at least 4 "
    "channels"
)
REVERSED = (
    "these lines reverse an axis of two places (blocks, positions), where any exchange is a reversal, and no code is "
    "seen to reverse it: with more places, other lines may be right: derive from models in which it has 3 or more"
)
CUT_ALIKE = (
    "parts of these, side by side, have one length in both models, and no run shows that they have in others: a "
    "conversion with --like refuses other lengths; where they differ, derive from models in which they do"
)
COMPUTED = (
    "the other model computes the values of a new model in their place, so that both are equal with these alone: what "
    "training has changed there is lost"
)
CHECKED = "--reverse refuses a checkpoint with other values"
DROPPED = (
    "--reverse drops other values, and the left model then computes something else: write <-> in place of `drop <-`, "
    "which refuses them"
)
OTHER_LENGTH = (
    "where a range has no end, its beginning is a number of these models: a conversion of an array of another length "
    "asks for --like FILE, for the length of what is dropped (--set), or for another number in the lines"
)
FILLED = "filled with 0, outside any proof, as the left model has nothing there"
NONE_FOUND = "filled with 0, all or a part, as none was found on the left"
NOT_FOUND = "left parameters have no partner, and one of them may belong there"
CHANGED = "--reverse refuses a checkpoint of the right model with other values there, as training gives them"
OTHER_POSITIONS = (
    "an input states positions, and they begin at another row on each side: with others, outputs may differ"
)
UNREACHED = "limits, paddings and windows that these do not reach are not tested"
ONE_EXAMPLE = ", nor what mixes examples of a batch, as this is one and the models were not run on two"


def _unchecked(table: DerivedTable) -> str:
    """Say that nothing shows lengths, and which others follow from them."""
    others = table.following()
    then = f", nor {in_a_row(others)}, which follow{'s' * (len(others) == 1)} from them" if others else ""
    return UNCHECKED.format(then)


class Kind(NamedTuple):
    """A kind of remark about parameters, blocks or lengths.

    Args:
      key: what lists them: an attribute of Evidence.
      before, after: the words around their names; the latter may be those of the Table.
      noted: whether the Table says it too, in a comment.
      to_check: whether somebody should check the lines that it is of, or what they convert.
      outside: whether a proof does not cover all of them.
    """

    key: str
    before: str
    after: str | Callable[[DerivedTable], str] = ""
    noted: bool = True
    to_check: bool = False
    outside: bool = False


KINDS = (
    Kind("doubtful", "a partner was taken though values differ there, check the line", to_check=True),
    Kind(
        "chosen",
        "one of several left parameters or row orders that fit was chosen, and no outputs confirm the choice",
        to_check=True,
    ),
    Kind("transposed", "axes in an unusual order", UNUSUAL),
    Kind(
        "unobservable", "unobservable, outside any proof, as no output depends on this with these inputs", outside=True
    ),
    Kind(
        "unobservable_parts",
        "unobservable, outside any proof, as no output depends on it with these inputs",
        outside=True,
    ),
    Kind("untold", "not told in time whether an output depends on this, as its gradient is zero", outside=True),
    Kind("only_inferred", "inferred, as no matched use reads all of it", outside=True),
    Kind("inferred_apart", "inferred, as values differ before it or no matched use reads all of it", to_check=True),
    Kind("rows_of", "only some rows are read with these inputs, and the others follow them", outside=True),
    Kind("trained_tables", TRAINED.strip("# :"), COMPUTED, to_check=True, outside=True),
    Kind("unseen_orders", UNSEEN.strip("# :"), ONE_LONG, to_check=True, outside=True),
    Kind("two_places", TWO_PLACES.strip("# :"), REVERSED, to_check=True, outside=True),
    Kind("filled_biases", "filled with 0, all or a part, as the left model has no such bias", NO_WAY_BACK),
    Kind("filled_unsure", NONE_FOUND, NOT_FOUND, to_check=True),
    Kind("copied", "filled from one left array", ONE_ARRAY, noted=False),  # its lines show it
    Kind("read_apart", "written in another form, so that values differ though outputs are equal", noted=False),
    Kind("summed", "sums of several arrays", NO_STATE),
    Kind("drawn", "random instead of given weights, which are of one value and show nothing", noted=False),
    Kind("fixed", "fixed to one number", MORE_BLOCKS, noted=False),
    Kind("unchecked", "not checked", _unchecked, to_check=True),
    Kind("assumed", ASSUMED.strip("# :"), CUT_ALIKE),
    Kind("this_depth", "for this depth alone", unlike_orders, to_check=True),
    Kind("exchanged", "exchanged", order, noted=False),  # its lines show it
    Kind("reordered", "in another order", flattened, noted=False),
    Kind("behind_lists", "fixed to lists of this length", ANOTHER_LENGTH),
)


class Remark(NamedTuple):
    """A sentence without its stop.

    Args:
      noted, to_check, outside: see Kind.
    """

    text: str
    noted: bool = True
    to_check: bool = False
    outside: bool = False


def remarks(evidence: Evidence) -> Iterator[Remark]:
    """Yield what is known beside the verdict and its exceptions, what concerns the user's parameters first."""
    for kind in KINDS:
        if names := folded_names(getattr(evidence, kind.key)):
            after = kind.after if isinstance(kind.after, str) else kind.after(evidence.table)
            text = f"{kind.before}: {', '.join(names)}{f': {after}' * bool(after)}"
            yield Remark(text, kind.noted, kind.to_check, kind.outside)
    if dropped := dropped_ranges(evidence.table):
        after = f": {OTHER_LENGTH}" * any(each.fixed for each in dropped)
        yield Remark(f"{RANGES.strip('# ')} {', '.join(map(str, dropped))}{after}", outside=True)
    if filled := evidence.filled_ranges:
        why, then = (NONE_FOUND, NOT_FOUND) if evidence.unplaced else (FILLED, CHANGED)
        yield Remark(f"{why}: {', '.join(filled)}: {then}", to_check=bool(evidence.unplaced), outside=True)
    if shifted := shifted_rows(evidence.table, evidence.in_rows):
        given = any(POSITIONS in text for text in evidence.kept)
        yield Remark(f"rows shifted: {', '.join(shifted)}{f': {OTHER_POSITIONS}' * given}", to_check=given)
    if evidence.given_lengths:
        lines = [f"{line} with {lengths}" for line, lengths in evidence.given_lengths.items()]
        yield Remark(f"as given: {in_a_row(lines)}: {FOUND}", False)
    if evidence.given_open:
        yield Remark(f"not taken as given: {in_a_row(evidence.given_open)}: {OPEN}", False)
    if evidence.by_chance:
        yield Remark(f"{IN_CODE.strip('# ')} {in_a_row(evidence.by_chance)}: {BY_CHANCE}", to_check=True)
    if pairs := _rotary_pairs(evidence):
        yield Remark(f"of one length: {', '.join(pairs)}: {WIDER}")
    yield from map(Remark, evidence.correspondence)
    if evidence.proven and evidence.constants:
        yield Remark(f"equal with {in_a_row(evidence.with_constants)}, as given lines state: {_read_back(evidence)}")
    yield from (Remark(f"kept in the proof: {text}") for text in evidence.kept)
    if evidence.fills:
        yield Remark(evidence.fills)
    if evidence.proven:
        yield from _of_the_proof(evidence)
    for k, text in enumerate(evidence.freedom, 1):
        yield Remark(f"{FREE} {text}{OTHER_UNITS if k == len(evidence.freedom) else ''}")
    if evidence.untried:
        yield Remark(evidence.untried)


def _of_the_proof(evidence: Evidence) -> Iterator[Remark]:
    """Yield what a proof did not compare, and what it was tested with."""
    if evidence.settings:
        yield Remark(f"proven for {evidence.settings} alone: flags, texts and None are never varied")
    if evidence.momentum:
        yield Remark(f"not compared: momentum of BatchNorm ({evidence.momentum}), which evaluation does not use")
    if evidence.dropout:
        yield Remark(f"not compared: dropout ({evidence.dropout}), which evaluation does not use")
    if evidence.reads_numbers:
        yield Remark(NUMBERS)
    elif evidence.branches:
        yield Remark(BRANCHES.format(in_a_row([f"the {side} model" for side in evidence.branches])))
    if evidence.voided:
        yield Remark(VOIDED.format(in_a_row([f"the {side} model" for side in evidence.voided])))
    if evidence.not_as_given:
        yield Remark(f"not compared in the dtypes of the given weights: {evidence.not_as_given}")
    if evidence.remark:  # the Table's first comment has it
        yield Remark(f"gradients were not compared: {evidence.remark}", False)
    if evidence.tested:
        shapes = in_a_row(f"{list(shape)}" for shape in evidence.tested)
        alone = all(shape[:1] == (1,) for shape in evidence.tested)
        yield Remark(f"tested with: inputs of shape {shapes}; {UNREACHED}{ONE_EXAMPLE * alone}", False)


def _read_back(evidence: Evidence) -> str:
    """Say what becomes of other values than the constants that given lines state, where a Table is read back."""
    lines = [line for line in evidence.table.lines if line.kind == "constant" and line.arrow == "<-"]
    paths = [array.path for line in lines for array in line.right.arrays]
    return DROPPED if any(match(path, name) for path in paths for name in evidence.constants) else CHECKED


def exceptions(evidence: Evidence) -> list[str]:
    """Say for which inputs the models differ though they are proven equal; [] if for none that was tried."""
    if not evidence.proven:
        return []
    known = {
        "not equal for inputs with": evidence.absent,
        "equal only for one value along an axis:": evidence.over_one,
        "equal in float64 alone, and not in the dtypes of the given weights: there": evidence.as_given,
    }
    return [f"{what} {which}" for what, which in known.items() if which]


def stated(table: Table, text: str) -> bool:
    """Tell whether the comments of a Table have a remark."""
    return any(f"# {text}" in line.above for line in table.lines)


def _rotary_pairs(evidence: Evidence) -> list[str]:
    """List the letters of an axis that may be the pairs of rotary positions, and of which one is not checked."""
    dims = ((line, dim) for line in evidence.table.lines for array in line.arrays for dim in array.axes or ())
    for line, dim in dims:
        own = [factor[0] for factor in dim.factors if len(factor) == 1 and factor[0].name not in line.lengths]
        pairs = [part.name for part in own if evidence.table.sizes.get(part.name) == PAIR]
        if len(pairs) > 1 and not set(pairs).isdisjoint(evidence.unchecked):
            return pairs
    return []
