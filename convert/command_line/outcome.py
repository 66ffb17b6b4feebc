"""Print what a user should know of a conversion: notes while it runs, what was written, and what was proven."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import specs
from convert.arrays.dtypes import LOSSES
from convert.config.conventions import in_effect
from convert.errors import printable
from convert.files import format_called, format_of, is_pdopt
from convert.folding import listed, summarised
from convert.plans.plan import Plan
from convert.reading.aside import summary
from convert.reading.families import CLASSES
from convert.records.altered import SINCE
from convert.records.odd_values import negative, not_finite
from convert.terminal import say, say_note
from specs.config import as_dict
from specs.dialects import PORTS
from specs.notation.dtype_kinds import SIGNIFICANT
from specs.numbers import exact, limit, short
from specs.words import count, in_a_row

from .dry_run import folded

if TYPE_CHECKING:
    from convert.table.plan import TablePlan


PAGE = r"[^\s()]*\bdocs/[\w-]+\.md"  # of the documentation, by its path


class Notes:
    """Prints what a user should know on standard error.

    At once, or with --json at the end, so that an error is one line there. A page of the documentation that an earlier
    note names has its path there, and its name alone in later ones.
    """

    def __init__(self, later: bool):
        self.later, self.waiting, self.pages = later, list[str](), set[str]()
        self.file = ""
        self.shared: dict[str, bool] = {}  # notes on the command line, which concern no file: whether each was printed

    def of(self, file: str) -> None:
        """Begin all notes to come with the name of this file, one of several; "" ends that."""
        self.file = file

    def add(self, text: str) -> None:
        if text in self.shared:
            if self.shared[text]:
                return
            self.shared[text] = True
        elif self.file and not text.startswith(self.file):
            text = f"{self.file}: {text}"
        named = set(re.findall(PAGE, text))
        for path in named & self.pages:
            text = text.replace(path, os.path.basename(path))
        self.pages |= named
        self.waiting.append(text)
        if not self.later:
            self.flush()

    def flush(self) -> None:
        for line in self.waiting:
            say_note(line)
        self.waiting.clear()


def odd_values(about: Mapping[str, Any], labels: Callable[[], Mapping[str, str]], notes: Notes) -> dict[str, int]:
    """Report NaNs and infinities of the target's tensors, {name: how many}, without those that a cast produced.

    Negative second moments are noted as well.

    Args:
      about: the target's record. labels: what tensors are, as the user knows them.
    """
    lines, note = not_finite(about["tensors"], labels)
    for text in filter(None, (note, negative(about["tensors"], labels))):
        notes.add(text)
    return lines


def lossy_values(about: Mapping[str, Any], notes: Notes) -> dict[str, dict[str, int]]:
    """Count and report values that the target's dtype cannot hold: {name: {"zeros": ..., "infinities": ..., ...}}."""
    losses = {name: line["lossy"] for name, line in about["tensors"].items() if "lossy" in line}
    for kind, became in LOSSES.items():
        counts = {name: lost[kind] for name, lost in losses.items() if kind in lost}
        if counts:
            dtypes = ", ".join(sorted({about["tensors"][name]["dtype"] for name in counts}))
            notes.add(f"{count(sum(counts.values()), 'value')} {became} in {dtypes}: {summarised(counts)}")
    return losses


def print_plan(plan: Plan, result: Mapping[str, Any]) -> None:
    what = f"{plan.architecture} {plan.variant or '(no official variant)'}, {_contents(plan, result)}"
    source = f"{plan.reader.path} (format {format_called(plan.reader.format, plan.reader.path)}, dialect {plan.src})"
    target = f"{result['out']} (format {format_of(result['out'])}, dialect {plan.dst})"
    say(printable(f"{_verb(result)} {target} from {source}: {what}"))
    _print_steps(plan, result)
    print_proof(plan, result)


def print_proof(plan: Plan, result: Mapping[str, Any]) -> None:
    """Print what --prove found, with what the proof does not cover; nothing where none was asked for."""
    if proof := result.get("proof"):
        lost = ", and values were lost" if result.get("lossy") else ""
        is_proven = proof["exact"] and proof["source"] != proof["target"] and not plan.record.change
        say(_verdict(proof, lost), kind="good" if is_proven else "doubt")
        if plan.record.change:
            say(printable(f"this holds for the source as it is, {plan.record.change}: {SINCE}"), kind="doubt")
        if plan.conflicts():
            say(printable(_conditions(plan)))
        say(printable(_untested(plan)), kind="soft")
        if zeros := proof.get("zeros"):
            say(
                f"not tested by this proof: {listed(zeros)} return zeros alone, whatever arrays they read", kind="doubt"
            )
        if proof["source"] and (narrow := _narrow(plan)):
            say(narrow, kind="soft")
        lines = [f": {summary(plan.aside)}"] if plan.aside else []
        lines += [f", as no arrays of the model: {'; '.join(skipped)}"] if (skipped := plan.skipped()) else []
        if result.get("optimizer"):  # the plan of the weights alone calls its state set aside
            aside = any(note.startswith("set aside") for note in result["notes"])
            averaged = " and the average of the weights, which go" * bool(result["tensors_by_kind"].get("averages"))
            what = f": the optimizer's state{averaged or ', which goes'} along, moved as the weights are"
            lines = [what + (", and what is set aside above" if aside else "")]
        for line in lines:
            say(printable(f"not covered by this proof{line}"))


def _contents(plan: Plan | TablePlan, result: Mapping[str, Any]) -> str:
    """Count what a target contains: its parameters, and its tensors where an optimizer's state is among them."""
    parameters = count(plan.parameters, "parameter")
    if is_pdopt(result["out"]):
        return f"{_tensors(result['tensors_by_kind'])} alone, of {parameters}"
    if result.get("optimizer"):
        return f"{parameters}, {_tensors(result['tensors_by_kind'])}"
    return parameters if isinstance(plan, Plan) else f"{count(len(plan.steps), 'array')}, {parameters}"


def _tensors(counts: Mapping[str, int]) -> str:
    """Count a target's tensors by what they are: "32 arrays of the model and 46 of its optimizer"."""
    of_state = counts.get("moments", 0) + counts.get("numbers", 0)
    numbers = {"the model": counts.get("weights", 0), "its average": counts.get("averages", 0)}
    first, *others = [(number, of) for of, number in {**numbers, "its optimizer": of_state}.items() if number]
    return in_a_row([f"{count(first[0], 'array')} of {first[1]}", *(f"{number:,} of {of}" for number, of in others)])


def _verdict(proof: Mapping[str, Any], lost: str) -> str:
    """Say what was proven: by running both sides in two frameworks or in one, or without running them."""
    measured = "" if proof["exact"] else f"measured, not proven, as the dtype changed{lost}"
    tolerance = f", tolerance {limit(proof['tolerance'])}" if proof["exact"] else ""
    source, target = proof["source"], proof["target"]
    finite = math.isfinite(proof["error"])
    differ = f"differ by at most {short(proof['error'])}" if finite else "differ by NaN or infinity"
    worst = f"at {proof['worst']}, " if proof["error"] else ""
    about = f"({worst}{proof['taps']} {'outputs of modules' if source else 'arrays'} compared{tolerance})"
    if source is None:
        what = f"{measured or 'proven of the arrays alone'}: source and target, read in one layout,"
        equal = differ if proof["error"] else "are equal"
        return f"{what} {equal} {about}; nothing was run, as {proof['reason']}"
    if source == target:
        what = f"{measured or f'proven in {source} alone'} ({proof['reason']}): source and"
        same = differ if proof["error"] else "give the same outputs, exactly"
        return f"{what} target, each read into {source}'s port in float64, {same} {about}"
    ran = f"the source, run in {source}, and the target, run in {target}, both in float64,"
    return f"{measured or 'proven'}: {ran} {differ} {about}"


def _verb(result: Mapping[str, Any]) -> str:
    """Tell what was written from what --dry-run only plans."""
    return "planned" if "plan" in result else "wrote"


def _conditions(plan: Plan) -> str:
    """State the settings of the proof, and those of the target's own code that differ and were not run."""
    ours = ", ".join(f"{name}={exact(value)}" for name, (_, value) in plan.conflicts().items())
    theirs = ", ".join(f"{name}={exact(value)}" for name, (value, _) in plan.conflicts().items())
    return f"this holds for both sides with {ours}; {plan.dst}'s own code, which was not run, computes {theirs}"


def _untested(plan: Plan) -> str:
    """Say what a proof takes for granted: what source and target are both read by."""
    dialects = [name for name in dict.fromkeys((plan.src, plan.dst)) if name not in PORTS]
    tables = f"the lines that read and write {in_a_row(dialects)}" if dialects else ""
    values = ", ".join(
        f"{name}={exact(getattr(plan.config, name))}{' (assumed)' if name in plan.assumed else ''}"
        for name in in_effect(plan.reading.spec, plan.config, plan.configuration.shown)
    )
    settings = f"settings that no array shows ({values})" if values else ""
    shared = "; ".join(filter(None, (tables, settings, _trusted(plan))))
    return f"not tested by this proof, as both sides share them: {shared or 'nothing'}"


def _trusted(plan: Plan) -> str:
    """Say which fields a page from outside calls immaterial; "" for one of this repository, whose tests vary them."""
    shown, trusted = plan.configuration.shown, plan.reading.spec.immaterial(plan.config)
    names = [name for name in as_dict(plan.config) if name in trusted and name not in shown]
    if not names or specs.folder(plan.architecture) is None:
        return ""
    return f"that {in_a_row(names)} change{'' if names[1:] else 's'} no output, as the page says (immaterial)"


def _narrow(plan: Plan) -> str:
    """Say that weights of few bits ran in float64, and would compute with rounding elsewhere; "" of other weights."""
    dtypes = {
        tensor.dtype for tensor, _ in plan.steps if tensor.dtype in SIGNIFICANT and SIGNIFICANT[tensor.dtype] < 24
    }
    if not dtypes:
        return ""
    names = in_a_row(sorted(dtypes))
    return f"not tested by this proof: how two frameworks round when they compute in {names}, as the weights are stored"


def print_table_plan(plan: TablePlan, result: Mapping[str, Any]) -> None:
    from convert.table.misfit import sides_of

    left, right = sides_of(plan.table, plan.backwards)
    ends = f"{result['out']} (format {format_of(result['out'])}, side {right}) from {plan.reader.path} (side {left})"
    say(printable(f"{_verb(result)} {ends}: {_contents(plan, result)}"))
    _print_steps(plan, result)


def _print_steps(plan: Plan | TablePlan, result: Mapping[str, Any]) -> None:
    """Print the steps of a plan that was not executed."""
    if "plan" in result:
        for line in folded(plan):
            say(printable(line))
        contents = count(len(plan.steps), "array")
        if state := result.get("optimizer"):
            contents = _tensors(result["tensors_by_kind"])
            kind = CLASSES[state["kind"]].of(state["to"])
            say(printable(_unlisted(kind, result["tensors_by_kind"])))
        print(f"{contents}; nothing was written")


def _unlisted(kind: str, counts: Mapping[str, int]) -> str:
    """Count what a target has beside the tensors that a plan lists: moments, averages and counts of steps."""
    where = "beside these" if counts.get("weights") else "none of these, which a .pdopt lacks, but"
    parts = [f"{count(counts.get('moments', 0), 'moment')} of {kind}, each moved as its parameter is"]
    parts += [f"{count(number, 'average')} of weights" for number in filter(None, [counts.get("averages")])]
    parts += [f"{count(number, 'number')} for counting steps" for number in filter(None, [counts.get("numbers")])]
    return f"  {where}: {'; '.join(parts)}"
