"""Explain the marks that the plots of a page have: no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parity.results.elements import OTHER_SHAPE
from parity.results.result import Result
from parity.summaries.findings import key
from parity.summaries.summary import extreme
from specs.numbers import limit

from .markup import Markup, prose, tag
from .plot import BREAK, bands, own_limits
from .plot_lines import CROSS, DIAMOND, RING, SHAPES, Plot
from .plot_scale import Scale, beyond_numbers, worst_points

CROSSES = {"NaN": "NaN: a side has it in this array", OTHER_SHAPE: "the shapes of both sides differ"}
SHARED = "pairs whose errors coincide share a line"


def plot_legend(plots: Sequence[Plot]) -> Markup:
    """Explain what plots have beside their lines."""
    drawn = [r for plot in plots for r in plot.results]
    meanings = [CROSSES[word] for word in beyond_numbers(drawn) if word in CROSSES]
    scales = [(Scale.of(plot.results), plot) for plot in plots]
    own = any(own_limits(scale, plot) for scale, plot in scales)
    lowest = ", the lowest of several" * _several(drawn) + "; in the colour of a line: its own" * own
    keys = (
        ("limit", "M-12 0H12", f"the limit{lowest}", any(scale.seen() for scale, _ in scales)),
        ("noise", "M-12 -5H12V5H-12z", "each framework's own rounding: its error against its float64 run",
         any(bands(scale, plot.results) for scale, plot in scales)),
        ("ring", RING, "what differs first", any(r.first_divergence in [tap for tap, _, _ in r.curve] for r in drawn)),
        ("worst", DIAMOND, f"the {extreme(drawn)}, of each pair", any(map(worst_points, drawn))),
        ("copy", SHAPES[0], "hollow: the float64 copies of both models are compared, as these differ already",
         any(not r.word(tap) for r in drawn for tap in r.copies)),
        ("break", BREAK, "a break of the axis: beyond it, what its scale does not show",
         any(scale.zero or scale.above for scale, _ in scales)),
        ("cross", CROSS, " or ".join(meanings), bool(meanings)),
    )  # fmt: skip
    shown = [tag("span", _key(kind, shape), prose(text)) for kind, shape, text, is_drawn in keys if is_drawn]
    shown += [tag("span", SHARED)] if any(len(line) > 1 for plot in plots for line in plot.lines) else []
    return tag("p", *shown, class_="legend soft") if shown else Markup()


def _several(results: Iterable[Result]) -> bool:
    """Tell whether an array has several limits in one plot, of which the lowest is drawn."""
    limits: dict[tuple[str, ...], set[str]] = {}
    for r in results:
        for name, _, bound in r.curve:
            limits.setdefault((*key(r), name), set()).add(limit(bound))
    return any(len(bounds) > 1 for bounds in limits.values())


def _key(kind: str, shape: str) -> Markup:
    picture = tag("path", d=shape, class_=kind)
    return tag("svg", picture, class_=f"sample {kind}-key", viewBox="-13 -13 26 26", aria_hidden="true")
