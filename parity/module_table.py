"""Build the table of the modules of models of no known architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specs.numerals import limit, short

from .findings import merge
from .markup import Markup, graded, name, prose, tag, words
from .result import Result

Tree = Sequence[tuple[str, str]]  # (name of a module's tap, or its path; name of its class), in the model's order


def module_table(modules: Mapping[str, Tree], results: Sequence[Result]) -> Markup:
    """Build a table of the models' modules side by side: those of one name in a row, with the error of their output."""
    if not modules:
        return Markup()
    errors: dict[str, dict[str, tuple[float, float]]] = {}  # by dtype: of the pair that comes closest to its limit
    for r in results:
        of = errors.setdefault(r.dtype, {}) if r.check == "layers" else {}
        for tap, error, bound in r.curve:
            if tap not in of or error * of[tap][1] > of[tap][0] * bound:
                of[tap] = error, bound
    firsts = {str(r.first_divergence) for r in results if r.check == "layers" and r.first_divergence is not None}
    trees = {label: dict(tree) for label, tree in modules.items()}
    rows, wrong = [], {tap for of in errors.values() for tap, (error, bound) in of.items() if error > bound}
    for tap in merge(trees.values()):
        differs = tap in wrong and not any(other.startswith(f"{tap}.") for other in wrong)
        first = next(iter(trees))
        cells = [_module(tap, tree.get(tap), "th" if label == first else "td") for label, tree in trees.items()]
        cells += [cell for of in errors.values() for cell in _error(of.get(tap), differs, tap in firsts)]
        rows.append(tag("tr", *cells, class_="differs" if differs else None))
    heads = [tag("th", name(label), scope="col") for label in trees]
    for dtype in errors:
        heads += [tag("th", f"error, {dtype}", scope="col", class_="number")]
        heads += [tag("th", "limit", scope="col", class_="number bound")]
    title = tag("caption", "Modules of each model, and the errors of their outputs", class_="unseen")
    table = tag("table", title, tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="modules")
    about = "Modules of one path, or of one name that was given (names=), stand in a row."
    about += " Those with an error were compared; -: not compared."
    about += " Red: beyond the limit. ✗: so is the module, and none within it." if wrong else ""
    return tag("section", tag("h2", "Modules"), tag("p", about, class_="soft"), tag("div", table, class_="scroll"))


def _error(found: tuple[float, float] | None, differs: bool, first: bool) -> list[Markup]:
    """Build the cells of a module's error, with a mark if it makes the row one that differs, and of its limit.

    Args:
      first: whether it is the first that differs. On narrow screens the limit stands below the error.
    """
    if found is None:
        return [tag("td", "-", class_=f"number absent{kind}") for kind in ("", " bound")]
    error, bound = found
    text = graded("differs" if differs and error > bound else "agrees", short(error))
    notes = [tag("span", "first", class_="first-word")] * (first and error > bound)
    notes += [tag("span", f"of {limit(bound)}", class_="of")]
    kind = "number beyond" if error > bound else "number"
    return [tag("td", prose(text), *notes, class_=kind), tag("td", limit(bound), class_="number bound")]


def _module(path: str, kind: str | None, element: str) -> Markup:
    scope = "row" if element == "th" else None
    if kind is None:
        return tag(element, "-", class_="absent", scope=scope)
    return tag(element, tag("code", name(path)), " ", tag("span", words(kind), class_="class"), scope=scope)
