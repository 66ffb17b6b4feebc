"""Write a report as one self-contained page: the verdict, what differs first, errors, plots, modules, limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from string import Template

from parity.given.own import OWN
from parity.results.result import Result
from parity.summaries import notes, summary
from specs.words import begun

from .cards import divergences, headline, near, provenance
from .cards import models as sides
from .caveats import caveats
from .limit_notes import LimitNotes, definition
from .markup import Markup, coded, join, prose, tag
from .matrix import grouped, have_one_array, matrices
from .module_table import Tree, module_table
from .pair_table import column_of
from .panels import panels

ASSUMED = "Assumed:"  # a word of the verdict that somebody should look at


def page(
    results: Sequence[Result], about: Mapping[str, str], passed: bool, modules: Mapping[str, Tree] | None = None
) -> str:
    """Build the page: no network, no script, inline style and SVG, light and dark, wide and narrow.

    Args:
      about: what was run, by label.
      passed: whether something was compared and nothing of it differs.
      modules: the modules of models of no known architecture, by label.
    """
    absences, results = summary.absences(results), summary.present(results)
    own = about.get("models", "own models")
    subject = summary.compared(summary.apart(results)[0] or results, own)
    verdict = summary.verdict(results, alone=True)
    files = _of_files(results, about)
    labels = [*(modules or {})] or files
    is_named = bool(files) or (subject == own and OWN in {r.architecture for r in results})  # and stated in the head
    if subject and not is_named:
        inner = verdict[:1].lower() + verdict[1:] if verdict.startswith(("The ", "All ", "Not")) else verdict
        verdict = f"{subject}: {inner}"
    own = "" if is_named else own
    shown = {id(r) for group in summary.tabled(results) for r in group}
    models = grouped((r for r in results if id(r) in shown), own)
    limits = LimitNotes(results)
    home = {id(r): model.anchor(column_of(r)) for model in models for r in model}
    return fill(
        kicker="Triptych parity report",
        title=join(verdict.replace("`", "")),
        state="bad" if not passed else "part" if summary.unrun(results) else "good",
        verdict=headline(verdict, summary.closeness(results), ASSUMED),
        totals=_totals(results),
        provenance=join(_absent(absences), sides(about, labels), provenance(_further(about, labels))),
        divergences=join(divergences(results, home, own, limits, modules or {}), near(results, home, own)),
        results=matrices(models, limits),
        remarks=_remarks(results),
        details=Markup() if have_one_array(models) else panels(models, limits),
        modules=module_table(modules or {}, results),
        notes=join(limits.notes(definition(results)), caveats(results, about)),
    )


def _totals(results: Sequence[Result]) -> Markup:
    """State the error of what differs first, and that of each dtype that is the largest share of its limit.

    Those beyond their limits, which come first, are red.
    """
    first = summary.first_error(results)
    off, near, within = summary.extremes(results, places=True).partition(summary.NEAREST)
    red, end = begun(off.removesuffix("; ")), "; " if off and near else "."
    parts = [coded(f"{begun(first)}. ")] if first else []
    parts += [tag("span", coded(red), class_="mark differs"), coded(end)] if off else []
    return join(*parts, coded(f"{near if off else begun(near)}{within}." if near else ""))


def _absent(sentences: Sequence[str]) -> Markup:
    """Say which sides cannot run here and why, below the verdict: nothing else on the page names them."""
    return join(*(tag("p", prose(f"{text}."), class_="totals absent") for text in sentences))


def _of_files(results: Iterable[Result], about: Mapping[str, str]) -> list[str]:
    """List the labels of models of which each has its own file: what was run states them."""
    sides = dict.fromkeys(side for r in results if len({*zip(r.files, r.parts, strict=False)}) > 1 for side in r.sides)
    return [side for side in sides if side in about]


def _further(about: Mapping[str, str], labels: Collection[str]) -> dict[str, str]:
    """Return what was run without what the head states of models, by their labels."""
    stated = {*labels, "models"} if labels else set()
    return {label: text for label, text in about.items() if label not in stated}


def fill(**parts: str) -> str:
    """Put parts into the skeleton of a page; those that it does not have are left out."""
    empty = dict.fromkeys(("results", "modules", "details", "remarks", "divergences", "notes"), "")
    return Template(_asset("page.html")).substitute(empty | parts, style=_asset("page.css"))


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def _remarks(results: Sequence[Result]) -> Markup:
    """List why comparisons failed, did not run or were not judged, and what is noted of those that ran."""
    rows = [_cause(cause) for cause in notes.causes(results)]
    for note, which in notes.notes(results):
        rows.append(join(prose(_begun(note, results)), coded(f"{f' ({which})' * bool(which)}.")))
    if not rows:
        return Markup()
    return tag("section", tag("h2", "Remarks"), tag("ul", *(tag("li", row) for row in rows)), id="remarks")


def _cause(cause: notes.Cause) -> Markup:
    """Write why results are undecided; their grade stands out."""
    grade = cause.grade if cause.sides else begun(cause.grade)
    return join(
        prose(f"{cause.sides} ".lstrip()), tag("b", grade), prose(f": {cause.reason}"), coded(f" ({cause.which}).")
    )


def _begun(note: str, results: Sequence[Result]) -> str:
    """Begin a note in upper case, unless it begins with the name of a side or of an array."""
    names = {side for r in results for side in r.sides} | {array for r in results for array, *_ in r.curve}
    is_named = any(note.startswith(name) and not note[len(name) :][:1].isalnum() for name in names)
    return note if is_named else begun(note)
