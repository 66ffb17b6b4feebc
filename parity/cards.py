"""Build the head of a page: the verdict, what to look at as cards of facts, and what was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from specs.numerals import limit

from . import findings, summary
from .limit_notes import ID, LimitNotes
from .markup import Markup, join, name, prose, tag, with_commands
from .next_steps import reassurance
from .result import Result

BRIEF = "date", "device", "seed", "batch", "command"  # labels of what stands beside "What was run" while it is folded
LISTS = ("models", "images", "settings")  # labels of what is stated model by model: each has a line
WIDE = 60  # characters of a fact that takes a line of its own where others stand side by side


def headline(verdict: str, *marked: str) -> Markup:
    """Mark the words of a verdict that somebody should look at, in their order there."""
    parts = []
    for words in (words for words in marked if words and words in verdict):
        head, _, verdict = verdict.partition(words)
        parts += [prose(head), tag("span", prose(words), class_="look")]
    return join(*parts, prose(verdict))


def provenance(about: Mapping[str, str]) -> Markup:
    """List everything that was run, folded below the main facts: what stands side by side, then what is longer."""
    rows = sorted(about.items(), key=lambda row: len(row[1]) > WIDE)
    named = {label: f"{label} {value}" for label, value in about.items() if label in ("seed", "batch")}
    known = [{**about, **named}[label] for label in BRIEF if label in about]
    line = tag("span", *(tag("span", with_commands(text)) for text in known), class_="brief")
    head = tag("summary", tag("h2", "What was run"), line)
    return tag("details", head, tag("div", facts(rows)), class_="provenance")


def facts(rows: Iterable[tuple[str, str]], *keys: str) -> Markup:
    """Build a list of labels and values, which are texts or markup.

    Args:
      keys: labels of the values that stand out.
    """
    return tag("dl", *(_fact(label, value, label in keys) for label, value in rows))


def _fact(label: str, value: str, is_key: bool) -> Markup:
    wide = "wide" if len(value) > WIDE and not isinstance(value, Markup) else None
    kind = " ".join(filter(None, ["key" if is_key else None, wide])) or None
    text = value if isinstance(value, Markup) else _by_model(value) if label in LISTS else with_commands(value)
    return join(tag("dt", name(label), class_=wide), tag("dd", text, class_=kind))


def _by_model(value: str) -> Markup:
    """Build a list with the models as its labels, of "x:tiny: depth=2; x:large: depth=8"; lines of models alone."""
    rows = [line.partition(": ") for line in value.split("; ")]
    if len(rows) == 1:
        return prose(value)
    if not all(text for _, _, text in rows):
        return join(*(tag("div", prose(line)) for line in value.split("; ")))
    return tag(
        "dl", *(join(tag("dt", name(model)), tag("dd", prose(text))) for model, _, text in rows), class_="by-model"
    )


def models(about: Mapping[str, str], labels: Iterable[str]) -> Markup:
    """State what each of the user's models is: its class with its file, framework, dtypes, device and mode."""
    rows = [(label, about[label]) for label in labels if label in about]
    return tag("div", facts(rows), class_="sides") if rows else Markup()


def divergences(results: Sequence[Result], home: Mapping[int, str], own: str, limits: LimitNotes) -> Markup:
    """Build a card for each first divergence.

    Args:
      home: the address of the plot of each result by its id. own: what the user's models are called.
      limits: the reasons that the page lists, which cards do not repeat.
    """
    found = findings.find(results)
    if not found:
        return Markup()
    cards = []
    for finding in found:
        r = finding.result
        about = tag("span", prose(f", check {r.check} in {r.dtype}: {', '.join(finding.pairs)} "))
        head = tag("h3", name(_title(r, own)), about, tag("a", _shown(r), href=f"#{home[id(r)]}"))
        rows = [_with_reason(row, r, limits) for row in findings.facts(finding)]
        cards.append(
            tag("article", head, facts(rows, rows[0][0], "weights", "looks like", "cause lies"), class_="card")
        )
    word = "First divergence" + "s" * (len(cards) > 1)
    return tag("section", tag("h2", word), tag("div", *cards, class_="cards"))


def _with_reason(row: tuple[str, str], r: Result, limits: LimitNotes) -> tuple[str, str]:
    """Put a letter, or a link, in place of the reason of a limit that the page lists."""
    first = r.first_divergence
    if row[0] != "limit" or first is None or not limits.explains(first.basis):
        return row
    why = limits.letters(first.basis) or join(" (", tag("a", "why", href=f"#{ID}"), ")")
    return "limit", join(limit(first.tolerance), why)


def _title(r: Result, own: str) -> str:
    """Name the model of a card; "The models" for those of the user."""
    title = summary.model(r, own)
    return f"{title[:1].upper()}{title[1:]}" if title == own else title


def _shown(r: Result) -> str:
    """Name what a card's link leads to: one array has no plot."""
    return "plot" if len(r.curve) > 1 else "errors"


def near(results: Sequence[Result], home: Mapping[int, str], own: str) -> Markup:
    """Build a card for each check that agrees close to its limit: its pairs with their numbers, and what that means.

    Args: see divergences.
    """
    cards = []
    for group in summary.near(results):
        r = group[0]
        about = tag("span", prose(f", check {r.check} in {r.dtype} "))
        head = tag("h3", name(_title(r, own)), about, tag("a", _shown(r), href=f"#{home[id(r)]}"))
        rows = [(r.pair, f"{r.shown} (limit {limit(r.tolerance)}), at {findings.worst_array(r)}") for r in group]
        cards.append(tag("article", head, facts(rows), tag("p", prose(reassurance(r))), class_="card near"))
    if not cards:
        return Markup()
    return tag("section", tag("h2", "Close to the limit"), tag("div", *cards, class_="cards"))
