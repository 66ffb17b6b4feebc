"""Texts of a page stand out from every background, in light and in dark, by the contrast that WCAG 2 defines."""

from __future__ import annotations

import itertools
import re
from importlib import resources
from pathlib import Path

import pytest

PAGE = resources.files("parity.page").joinpath("assets", "page.css").read_text("utf-8")
DIGITS = (Path(__file__).parents[2] / "examples" / "digits.css").read_text("utf-8")
PALETTES = [dict(re.findall(r"--([\w-]+): (#\w{6,8})", block)) for block in re.findall(r":root \{(.*?)\}", PAGE, re.S)]
TINT = re.compile(r"color-mix\(in srgb, var\(--([\w-]+)\) (?:(\d+)%|calc\((0\.\d+) \* var\(--share\)\)), ([^)]+)")
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
TEXT = 4.5  # the least contrast of text, WCAG 2.2, 1.4.3 (AA)
LINE = 3  # of what is no text, 1.4.11: the lines of a plot, on the paper and on the band of noise

Colour = tuple[float, ...]  # red, green and blue, 0..1


def colour(code: str) -> Colour:
    return tuple(int(code[k : k + 2], 16) / 255 for k in (1, 3, 5))


def on_paper(code: str, paper: str) -> Colour:
    """Return a colour that lets a share of the paper through, "#rrggbbaa", as it is seen on the paper."""
    share = int(code[7:] or "ff", 16) / 255
    return tuple(share * a + (1 - share) * b for a, b in zip(colour(code), colour(paper), strict=True))


def contrast(one: Colour, other: Colour) -> float:
    """Return the ratio of the relative luminances, 1 to 21."""
    linear = ([c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb] for rgb in (one, other))
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (high + 0.05) / (low + 0.05)


def texts() -> set[str]:
    """Return the colours of texts: every `color`, and the `fill` of what is a text of a picture."""
    found = set()
    for selector, body in RULE.findall(PAGE + DIGITS):
        names = r"color|fill" if "text" in selector else "color"
        found |= set(re.findall(rf"(?<![\w-])(?:{names}): ([^;}}]+)", body))
    named = {match[1] for value in found if (match := re.fullmatch(r"var\(--([\w-]+)\)", value.strip()))}
    assert {value.strip() for value in found} - {f"var(--{name})" for name in named} <= {"inherit"}  # all are measured
    return named


def backgrounds(palette: dict[str, str]) -> dict[str, Colour]:
    """Return every plain background, the band behind a plot's curves, and tints, which lie on paper or on a card."""
    plain = set(re.findall(r"background: var\(--([\w-]+)\)", PAGE)) | {"paper", "noise"}
    found = {name: on_paper(palette[name], palette["paper"]) for name in sorted(plain) if name not in BARS}
    for name, percent, factor, base in TINT.findall(PAGE + DIGITS):
        share = float(factor) if factor else int(percent) / 100  # --share is at most 100%
        under = "paper" if base == "transparent" else base.removeprefix("var(--")
        pairs = zip(colour(palette[name]), colour(palette[under]), strict=True)
        found[f"{share:.0%} {name} on {under}"] = tuple(share * a + (1 - share) * b for a, b in pairs)
    return found


BARS = {"line", "s0", "s1", "s2", "s3", "bad"}  # backgrounds of bars without text


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark"])
def test_every_text_stands_out_from_every_background(palette: dict[str, str]) -> None:
    names, grounds = texts(), backgrounds(palette)
    assert names >= {"ink", "soft", "link", "good", "look", "bad"} and len(grounds) >= 8
    found = {
        (name, ground): contrast(colour(palette[name]), grounds[ground])
        for name, ground in itertools.product(names, grounds)
        if "on card" not in ground or name == "ink"  # cells of a confusion matrix have no other texts
    }
    assert {pair: ratio for pair, ratio in found.items() if ratio < TEXT} == {}


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark"])
def test_lines_of_a_plot_stand_out(palette: dict[str, str]) -> None:
    lines = [name for name in palette if re.fullmatch(r"s\d", name)]
    found = {(line, ground): contrast(colour(palette[line]), colour(palette[ground]))
             for line, ground in itertools.product([*lines, "bad", "ink"], ("paper", "noise"))}  # fmt: skip
    assert lines and {pair: ratio for pair, ratio in found.items() if ratio < LINE} == {}


def test_the_contrast_is_that_of_wcag() -> None:
    assert contrast(colour("#000000"), colour("#ffffff")) == pytest.approx(21)
    assert contrast(colour("#777777"), colour("#ffffff")) == pytest.approx(4.48, abs=0.005)  # its well-known failure
