"""What the tests of the report's page share: results to build a page of, and readers of what it has."""

from __future__ import annotations

import html.parser
import re

import numpy as np

from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.results.elements import Worst
from parity.results.result import Divergence, Result
from parity.running.recording import Recording


def recording(label: str, slip: float, dtype: str = "float64") -> Recording:
    rng = np.random.default_rng(0)
    arrays = {f"blocks.{k}.norm1": rng.standard_normal(5) for k in range(30)}
    made = Recording(label, label, dtype, "cpu", {name: a * (1 + slip) for name, a in arrays.items()})
    made.truth = Recording(label, label, "float64", "cpu", arrays) if dtype != "float64" else None
    return made


def report() -> Report:
    results: list[Result] = []
    for variant, slip in (("S/16", 1e-15), ("B/16", 1e-3)):
        for dtype, noise in (("float64", 1e-16), ("float32", 1e-7)):
            subject = Subject("mlp_mixer", variant, "layers", dtype, "cpu")
            made = [
                recording("flax", 0, dtype),
                recording("torch", noise + slip, dtype),
                recording("paddle", noise, dtype),
            ]
            results += judge(subject, made)
    skipped = Result(
        "mlp_mixer",
        "S/16",
        "forward",
        "float16",
        "cpu",
        "flax-paddle",
        None,
        None,
        None,
        None,
        "no <kernel>",
        missing=(("flax", "no <kernel>"),),
    )
    return Report([*results, skipped], {"torch": "2.13", "device": "cpu", "mixer.npz": "sha256 " + "ab" * 32})


class Text(html.parser.HTMLParser):
    """Checks that tags close, and collects addresses inside the page and attributes that would fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href" and (value or "").startswith("#"):
                self.links.append(str(value)[1:])
            elif name in ("src", "href", "srcset", "data"):
                self.fetched.append(f"{tag} {name}")
            elif name == "id":
                self.ids.append(str(value))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def unbound(page: str) -> str:
    """A page without the elements that keep a number and its label on one line."""
    return re.sub('<span class="whole">(.*?)</span>', r"\1", page)


def row(curve: tuple[str, ...], dtype: str = "float64", variant: str = "v", cause: str = "") -> Result:
    points = tuple((name, 1e-12, 1e-10) for name in curve)
    about = ("x", variant, "layers", dtype, "cpu", "a-b")
    return Result(*about, 1e-12, 1e-10, True, None, cause, points, sides=("a", "b"))


def first(tap: str, error: float = 1e-3) -> Divergence:
    return Divergence.at(tap, Worst(error, (0,), 1.0, 1.001), 1e-10)


def charts(page: str) -> list[str]:
    return re.findall(r'<svg class="chart[^"]*".*?</svg>', page)
