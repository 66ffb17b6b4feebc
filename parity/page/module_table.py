"""Build the table of the modules of models of no known architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from parity.given.module_names import Listed
from parity.given.own import LISTS
from parity.results.elements import OTHER_SHAPE
from parity.results.result import Result
from parity.summaries.findings import merge, rise
from specs.numbers import limit, short
from specs.words import in_a_row

from .markup import MARKS, Markup, join, name, prose, tag, words

Tree = Sequence[Listed]  # in the model's order

GRADES = {"first": "differs", "nan": "close", "starts": "close", "rises": "close"}  # of states that have a mark
ROWS = (
    "Modules with the same path, or paired by names=, stand in one row, in the order of the first model, each "
    "indented below the modules that it is in. Each column has the names of its own model."
)
RETURNED = "(returned)"  # in place of a class: what a whole model returns
KEYS = (
    ("first", f"{MARKS['differs']} first", "the first output beyond its limit, as the models run: look here"),
    ("follows", "follows", "beyond its limit too, and computed after the first, so its input may differ already"),
    (
        "rises",
        f"{MARKS['close']} rises",
        "follows, with an error of more than 1000 times all before it: perhaps a second cause",
    ),
    ("starts", f"{MARKS['close']} NaN starts here", "the first output with NaN on a side, as the models run"),
    ("nan", f"{MARKS['close']} NaN", "both sides have NaN here: nothing is proven of it"),
    ("only", "no partner", "one model alone has or calls a module of this name, and no partner of it is known"),
    ("absent", "-", "not compared: it has no parameters, is not called by itself, or its outputs have other shapes"),
    ("container", "container", "holds modules in a row in a model, and was not compared itself"),
)


@dataclass(frozen=True)
class Error:
    """The error of a module's output in one dtype: that of the pair that comes closest to its limit.

    Args:
      state: "first" of the first output beyond its limit in some pair, "follows" of those beyond theirs after it,
        "rises" of one of these whose error is far above all before it, see rise,
        "starts" of the first of these in which a side has NaN, "nan" of an output in which both sides have NaN and
        agree beside it, or "".
      word: what stands in place of a number: "NaN", "other shape".
      pairs: those that have this error, where there are others; () where there are none.
    """

    error: float
    bound: float
    state: str = ""
    word: str = ""
    pairs: tuple[str, ...] = ()


def module_table(modules: Mapping[str, Tree], results: Sequence[Result]) -> Markup:
    """Build a table of the models' modules side by side: those of one name in a row, with the error of their output."""
    if not modules:
        return Markup()
    errors = _errors([r for r in results if r.check == "layers"])
    trees = {label: by_name(tree) for label, tree in modules.items()}
    failed = _failed(results)
    rows, taps = [], merge(trees.values())
    firsts = dict.fromkeys(tap for own in errors.values() for tap, error in own.items() if error.state == "first")
    for tap in (tap for tap in firsts if tap not in {*taps}):  # what models return is no module, but may differ first
        taps.append(tap)
        trees = {label: {**tree, tap: Listed(tap, RETURNED)} for label, tree in trees.items()}
    for tap in taps:
        of_tap = [by_tap.get(tap) for by_tap in errors.values()]
        cells = _modules(tap, trees, depth=sum(tap.startswith(f"{other}.") for other in taps))
        if any(of_tap):
            cells += [cell for dtype, error in zip(errors, of_tap, strict=True) for cell in _error(error, dtype)]
        elif errors:
            text, kind = _uncompared(tap, trees, failed)
            cells.append(tag("td", prose(text), class_=f"{kind} alone", colspan=2 * len(errors)))
        is_first = any(error is not None and error.state == "first" for error in of_tap)
        rows.append(tag("tr", *cells, class_="differs" if is_first else None))
    heads = [tag("th", name(label), scope="col") for label in trees]
    for dtype in errors:
        heads += [tag("th", f"error, {dtype}", scope="col", class_="number")]
        heads += [tag("th", "limit", scope="col", class_="number bound")]
    title = tag("caption", "Modules of each model, and the errors of their outputs", class_="unseen")
    table = tag("table", title, tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="modules")
    keys = [row for row in KEYS if any(re.search(rf'class="(number {row[0]}|{row[0]} alone)"', text) for text in rows)]
    legend = join(tag("p", ROWS, class_="soft"), key_list(keys))
    body = join(legend, tag("div", table, class_="scroll"))
    if not errors:  # names alone
        body = tag(
            "details", tag("summary", "Module by module (this check compares no outputs of modules)"), tag("div", body)
        )
    return tag("section", tag("h2", "Modules side by side"), body)


def _modules(tap: str, trees: Mapping[str, Mapping[str, Listed]], depth: int) -> list[Markup]:
    """Build the cells of the modules of one name in each model."""
    first = next(iter(trees))
    listed = [tree.get(tap) for tree in trees.values()]
    # on narrow screens the first cell stands for all that are alike, and names them where another model is not
    alike = [label for label, one in zip(trees, listed, strict=True) if label == first or _is_same(one, listed[0])]
    return [
        _module(
            one,
            *(("th", ", ".join(alike) if len(alike) < len(trees) else label) if label == first else ("td", label)),
            label in alike,
            depth,
        )
        for label, one in zip(trees, listed, strict=True)
    ]


def _errors(results: Sequence[Result]) -> dict[str, dict[str, Error]]:
    """Return the error of each array that was compared, by dtype and name.

    That of the first output beyond its limit is of the pairs of which it is the first: in others it may only follow.
    """
    errors: dict[str, dict[str, Error]] = {}
    for r in results:
        by_tap = errors.setdefault(r.dtype, {})
        for tap, error, bound in r.curve:
            state = "first" if tap == r.first_divergence and error > bound else ""
            known = Error(error, bound, state, r.word(tap), (r.pair,))
            if tap not in by_tap or _rank(known) > _rank(by_tap[tap]):
                by_tap[tap] = known
            elif _rank(known) == _rank(by_tap[tap]):
                by_tap[tap] = replace(by_tap[tap], pairs=(*by_tap[tap].pairs, r.pair))
    for dtype, by_tap in errors.items():
        alike = [r for r in results if r.dtype == dtype]
        nans = {tap for r in alike for tap in r.nans}
        every = {r.pair for r in alike if r.curve}
        for tap, known in by_tap.items():
            known = replace(known, pairs=() if {*known.pairs} == every else known.pairs)
            off = "" if known.error <= known.bound else known.state or "follows"
            by_tap[tap] = replace(
                known, state=off or ("nan" if tap in nans else ""), word="NaN" if tap in nans else known.word
            )
        for risen in filter(None, map(rise, alike)):
            if by_tap[risen[0]].state == "follows":
                by_tap[risen[0]] = replace(by_tap[risen[0]], state="rises")
        start = next((tap for tap in by_tap if tap in nans), "")
        if start and by_tap[start].state == "follows":
            by_tap[start] = replace(by_tap[start], state="starts")
    return errors


def _rank(error: Error) -> tuple[bool, float]:
    """Order the errors of an array: that of a pair in which it is the first, then the largest share of its limit."""
    return error.state == "first", error.error / error.bound if error.bound else math.inf * bool(error.error)


def by_name(tree: Iterable[tuple[str, ...]]) -> dict[str, Listed]:
    """Return the modules of a model by the name that they are compared or listed under."""
    return {row[0]: Listed(*row) for row in tree}


def _failed(results: Iterable[Result]) -> str:
    """Say which models did not run; "" where pairs of all models were compared."""
    missing = {label: r.grade for r in results if r.check == "layers" for label, _ in r.missing}
    words = {"failed": "failed", "not run": "did not run"}
    return "; ".join(f"{label} {words[grade]}" for label, grade in missing.items())


def _uncompared(tap: str, trees: Mapping[str, Mapping[str, Listed]], failed: str) -> tuple[str, str]:
    """Return (text, class) of the cell of a module whose output was not compared: why it was not.

    Args:
      failed: which models did not run, see _failed.
    """
    having = {label: tree[tap] for label, tree in trees.items() if tap in tree}
    if any(re.search(LISTS, module.kind) for module in having.values()):
        return "container", "container"
    for module in having.values():
        if module.reason:
            return f"not compared: {module.reason}", "reason"
    if len(having) < len(trees):
        lacking = f" in {in_a_row(label for label in trees if label not in having)}"
        return f"no partner{lacking * (len(trees) > 2)}", "only"
    return (f"not compared: {failed}", "reason") if failed else ("-", "absent")


def _error(error: Error | None, dtype: str) -> list[Markup]:
    """Build the cells of a module's error and of its limit. On narrow screens the limit stands beside the error."""
    if error is None:
        return [tag("td", "-", class_="number absent", data_label=dtype), tag("td", "-", class_="number bound absent")]
    text = error.word or short(error.error)
    text += " starts here" * (error.state == "starts")
    has_limit = error.word != OTHER_SHAPE
    bound = limit(error.bound) if has_limit else "-"
    notes = [" ", tag("span", f"in {in_a_row(error.pairs)}", class_="state")] * bool(error.pairs)
    notes += [" ", tag("span", error.state, class_="state")] if error.state in ("first", "follows", "rises") else []
    notes += [" ", tag("span", f"(limit {bound})", class_="of whole")] * has_limit
    mark = [tag("b", MARKS[GRADES[error.state]], class_="mark"), " "] if error.state in GRADES else []
    number = tag("td", *mark, prose(text), *notes, class_=f"number {error.state}".strip(), data_label=dtype)
    return [number, tag("td", bound, class_="number bound")]


def key_list(rows: Iterable[tuple[str, str, str]]) -> Markup:
    """Build the legend of a table of modules: what a row or a cell looks like, and what it means.

    Args:
      rows: (class of the sample, its text, its meaning).
    """
    return tag("dl", *(join(tag("dt", tag("span", sample, class_=kind)), tag("dd", prose(text)))
                       for kind, sample, text in rows), class_="meanings soft")  # fmt: skip


def _is_same(one: Listed | None, first: Listed | None) -> bool:
    """Tell whether a module has the path and the class of the first model's."""
    return (
        one is not None
        and first is not None
        and (one.path or one.name, one.kind) == (first.path or first.name, first.kind)
    )


def _module(one: Listed | None, element: str, label: str, is_same: bool, depth: int) -> Markup:
    """Build the cell of a model's module: its path and class, in the first model with its name where that is another.

    Args:
      element: "th" for the first model. label: of the model.
      is_same: whether the first model has a module of this path and class here: on narrow screens, its cell stands for
        both.
      depth: how many modules of the table it is in.
    """
    kinds = ["absent"] * (one is None) + ["same"] * (is_same and element == "td")
    attributes = {"class_": " ".join(kinds) or None, "data_label": label, "scope": "row" if element == "th" else None}
    attributes["style"] = f"--depth: {depth}" if depth else None
    if one is None:
        return tag(element, "-", **attributes)
    path = one.path or one.name
    called = [", named ", tag("code", name(one.name))] if element == "th" and path != one.name else []
    return tag(
        element, tag("code", name(path)), " ", tag("span", words(one.kind), *called, class_="class"), **attributes
    )
