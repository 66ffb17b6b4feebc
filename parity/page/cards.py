"""Build the head of a page: the verdict, what to look at as cards of facts, and what was run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from parity.causes.next_steps import reassurance
from parity.results.naming import own_name
from parity.results.result import Result
from parity.summaries import findings, summary
from specs.numbers import limit
from specs.words import in_a_row

from .limit_notes import ID, LimitNotes
from .markup import Markup, coded, in_a_row_of, join, leading, name, prose, tag, with_commands
from .module_table import Tree, by_name

BRIEF = "date", "device", "seed", "batch", "command"  # labels of what stands beside "What was run" while it is folded
LISTS = ("models", "images", "settings")  # labels of what is stated model by model: each has a line
NAMES = "layer", "array"  # first words of labels whose values begin with a name
CODE = r"[A-Za-z_]\w*(?:[./](?:\w|\{[^}]*\})+)+(?::\w+)?"  # a name of several parts: "blocks.{0..2}.fc1", "a.py:build"
WIDE = 60  # characters of a fact from which on it stands below the shorter ones


def headline(verdict: str, *marked: str) -> Markup:
    """Mark the words of a verdict that somebody should look at, in their order there."""
    parts = []
    for words in (words for words in marked if words and words in verdict):
        head, _, verdict = verdict.partition(words)
        parts += [coded(head), tag("span", prose(words), class_="look")]
    return join(*parts, coded(verdict))


def provenance(about: Mapping[str, str]) -> Markup:
    """List everything that was run in a table, folded below the main facts: what is short, then what is longer."""
    rows = sorted(about.items(), key=lambda row: len(row[1]) > WIDE)
    named = {label: f"{label} {value}" for label, value in about.items() if label in ("seed", "batch")}
    known = [{**about, **named}[label] for label in BRIEF if label in about]
    line = tag("span", *(tag("span", with_commands(text)) for text in known), class_="brief")
    head = tag("summary", tag("h2", "What was run"), line)
    lines = [tag("tr", tag("th", name(label), scope="row"), tag("td", _value(label, text))) for label, text in rows]
    title = tag("caption", "What was run", class_="unseen")
    table = tag("table", title, tag("tbody", *lines), class_="run")
    return tag("details", head, tag("div", table), class_="provenance")


def facts(rows: Iterable[tuple[str, str]], *keys: str) -> Markup:
    """Build a list of labels and values, which are texts or markup.

    Args:
      keys: labels of the values that stand out.
    """
    return tag("dl", *(_fact(label, value, label in keys) for label, value in rows))


def _fact(label: str, value: str, is_key: bool) -> Markup:
    if not isinstance(value, Markup) and label not in LISTS:
        begins = r"|^[\w.#]+(?=, | \(|$)" * (label.partition(" ")[0] in NAMES)
        value = with_commands(value, re.compile(CODE + begins))
    return join(tag("dt", name(label)), tag("dd", _value(label, value), class_="key" if is_key else None))


def _value(label: str, value: str) -> Markup:
    if isinstance(value, Markup):
        return value
    return _by_model(value) if label in LISTS else with_commands(value)


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


def divergences(
    results: Sequence[Result], home: Mapping[int, str], own: str, limits: LimitNotes, modules: Mapping[str, Tree]
) -> Markup:
    """Build a card for each first divergence.

    Args:
      home: the address of the plot of each result by its id. own: what the user's models are called.
      limits: the reasons that the page lists, which cards do not repeat.
      modules: of models of no known architecture, by label.
    """
    firsts = findings.find(results)
    if not firsts:
        return Markup()
    cards = []
    for finding in firsts:
        r = finding.result
        links = {findings.ALSO_DIFFERS: _checks(finding, home), findings.ALSO_IN: _models(finding, home)}
        rows = [_with_reason(row, r, limits) for row in findings.facts(finding)]
        rows = [(label, links.get(label, text)) for label, text in rows]
        keys = rows[0][0], "weights", "looks like", "cause lies"
        at = next((k for k, (label, _) in enumerate(rows, 1) if label in NAMES), 1)
        rows[at:at] = _class(r, modules)
        head = _head(r, own, f": {', '.join(finding.pairs)}", home)
        cards.append(tag("article", head, facts(rows, *keys), class_="card"))
    return tag("section", tag("h2", "Where the models first differ"), tag("div", *cards, class_="cards"))


def _class(r: Result, modules: Mapping[str, Tree]) -> list[tuple[str, str]]:
    """State the class of the first module that differs, with its path where that is not its name: "Linear", or
    "Linear in torch, Dense (layer_0.down) in flax".
    """
    tap = str(r.first_divergence).partition("#")[0]  # of several calls of one module
    trees = {label: by_name(modules[label]) for label in r.sides if label in modules}
    modules_of = {label: tree[tap] for label, tree in trees.items() if tap in tree}
    classes = {label: one.kind + f" ({one.path})" * (one.path not in ("", tap)) for label, one in modules_of.items()}
    if len({*classes.values()}) < 2:
        return [("class", kind) for kind in classes.values()][:1]
    return [("class", ", ".join(f"{kind} in {label}" for label, kind in classes.items()))]


def _with_reason(row: tuple[str, str], r: Result, limits: LimitNotes) -> tuple[str, str]:
    """Put the letter of its note, or a link, in place of the reason of a limit that the page lists."""
    first = r.first_divergence
    if row[0] != "limit" or first is None or not limits.explains(first.basis):
        return row
    why = limits.letters(first.basis) or join(" (", tag("a", "why", href=f"#{ID}"), ")")
    return "limit", join(limit(first.tolerance), why)


def _head(r: Result, own: str, pairs: str, home: Mapping[int, str]) -> Markup:
    """Build the heading of a card: the model, but for models that the page is of alone, the check, the pairs, a link.

    Args:
      own: what the user's models are called; "" where the head of the page names them.
    """
    model = summary.model(r, own)
    named = [tag("code", name(model)), ", "] if model else []
    shown = "plot" if len(r.curve) > 1 else "errors"  # one array has no plot
    about = tag("span", *named[1:], prose(f"{'check' if model else 'Check'} {r.check} in {r.dtype}{pairs}"))
    return tag("h3", *named[:1], about, " ", leading(f"#{home[id(r)]}", shown))


def _models(finding: findings.Finding, home: Mapping[int, str]) -> Markup:
    """List the further models that part alike, each as a link to its plot."""
    parts = list[Markup]()
    for other in finding.also:
        variant, text = finding.states(other)
        link = tag("a", tag("code", name(variant)), href=f"#{home[id(other.result)]}")
        parts.append(join("; " * bool(parts), link, prose(text)))
    return join(*parts)


def _checks(finding: findings.Finding, home: Mapping[int, str]) -> Markup:
    """List the further checks in which the pairs of a finding differ, each as a link to its plots."""
    at = {r.check: f"#{home[id(r)]}" for r in reversed(finding.others)}  # of the first dtype
    parts = [
        join(in_a_row_of([tag("a", check, href=at[check]) for check in same]), f" in {in_a_row(dtypes)}")
        for same, dtypes in findings.by_dtypes(finding.others)
    ]
    return join(*(join("; " * bool(k), part) for k, part in enumerate(parts)))


def near(results: Sequence[Result], home: Mapping[int, str], own: str) -> Markup:
    """Build a card for each check that agrees close to its limit: its pairs with their numbers, and what that means.

    Args: see divergences.
    """
    cards = []
    for group in summary.near(results):
        r = group[0]
        head = _head(r, own, "", home)
        places = ((r, own_name(findings.worst_array(r), r)) for r in group)
        rows = [(r.pair, f"{r.shown} (limit {limit(r.tolerance)}), at {place}") for r, place in places]
        cards.append(
            tag(
                "article",
                head,
                facts(rows),
                tag("p", prose(reassurance(r, findings.exact_error(group, results)))),
                class_="card near",
            )
        )
    if not cards:
        return Markup()
    return tag("section", tag("h2", "Close to the limit"), tag("div", *cards, class_="cards"))
