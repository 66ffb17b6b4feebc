"""Error curves as inline SVG: arrays in execution order across, the error's decades up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from .result import Result

WIDTH, HEIGHT = 960, 330
LEFT, RIGHT, TOP, BOTTOM = 90, 16, 14, 100
FLOOR = 1e-18  # an error of zero is drawn here


def chart(results: Sequence[Result], title: str) -> str:
    """One chart: a line a pair and dtype, its tolerance dashed, the frameworks' own noise as a band.

    Args:
      results: of one architecture and check.
    """
    scale = Scale(_names(results), *_range(results))
    parts = [_grid(scale), _ticks(scale)]
    for n, result in enumerate(results):
        colour = f"var(--s{n % 6})"
        parts.append(_band(scale, result, colour))
        limits = ((name, limit) for name, _, limit in result.curve)
        parts.append(_line(scale, limits, colour, 'stroke-dasharray="4 4" opacity=".6"'))
        errors = ((name, error) for name, error, _ in result.curve)
        parts.append(_line(scale, errors, colour, 'stroke-width="1.8"'))
        parts.append(_first(scale, result))
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{body}</svg>{_legend(results)}'


def _names(results: Iterable[Result]) -> list[str]:
    """Every array of any result in one order: what one dtype drowns, another may show."""
    names: list[str] = []
    for result in results:
        at = 0
        for name, _, _ in result.curve:
            if name not in names:
                names.insert(at, name)
            at = names.index(name) + 1
    return names


class Scale:
    """Where a value of a named array stands in the picture."""

    def __init__(self, names: Sequence[str], low: int, high: int):
        self.places, self.low, self.high = {name: k for k, name in enumerate(names)}, low, high

    def x(self, name: str) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (self.places[name] / max(len(self.places) - 1, 1))

    def y(self, value: float) -> float:
        decade = math.log10(min(max(value, FLOOR), 10.0**self.high))
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - max(decade, self.low)) / (self.high - self.low)


def _range(results: Iterable[Result]) -> tuple[int, int]:
    """(lowest, highest) decade that is drawn."""
    values = [v for r in results for _, error, limit in r.curve for v in (error, limit) if math.isfinite(v) and v > 0]
    values += [v for r in results for errors in r.noise.values() for v in errors if math.isfinite(v) and v > 0]
    low, high = min(values, default=1e-16), max(values, default=1.0)
    return math.floor(math.log10(max(low, FLOOR))), math.ceil(math.log10(high)) + 1


def _grid(scale: Scale) -> str:
    step = max((scale.high - scale.low) // 8, 1)
    return "".join(_decade(d, scale.y(10.0**d)) for d in range(scale.low, scale.high + 1, step))


def _decade(d: int, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
    at = f'x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end"'
    return f'{line}<text {at} font-size="11" fill="var(--soft)">1e{d}</text>'


def _ticks(scale: Scale) -> str:
    """Names below, as many as fit."""
    every = max(math.ceil(len(scale.places) / 26), 1)
    y = HEIGHT - BOTTOM + 12
    return "".join(
        f'<text x="{scale.x(name):.1f}" y="{y}" font-size="9" fill="var(--soft)" text-anchor="end" '
        f'transform="rotate(-38 {scale.x(name):.1f} {y})">{escape(_short(name))}</text>'
        for name, k in scale.places.items()
        if k % every == 0
    )


def _short(name: str) -> str:
    return name if len(name) <= 30 else "..." + name[-27:]


def _line(scale: Scale, values: Iterable[tuple[str, float]], colour: str, attributes: str) -> str:
    """A polyline through named values; `attributes` are its further SVG attributes."""
    points = " ".join(f"{scale.x(name):.1f},{scale.y(_drawn(scale, v)):.1f}" for name, v in values)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" {attributes}/>'


def _band(scale: Scale, result: Result, colour: str) -> str:
    """From the least to the largest error that any framework shows against its own float64."""
    columns = list(zip(*result.noise.values(), strict=True)) if result.noise else []
    if not columns:
        return ""
    places = [scale.x(name) for name, _, _ in result.curve]
    over = [f"{x:.1f},{scale.y(_drawn(scale, max(c))):.1f}" for x, c in zip(places, columns, strict=True)]
    under = [f"{x:.1f},{scale.y(_drawn(scale, min(c))):.1f}" for x, c in zip(places, columns, strict=True)]
    return f'<polygon points="{" ".join(over + under[::-1])}" fill="{colour}" opacity=".14"/>'


def _first(scale: Scale, result: Result) -> str:
    for name, error, _ in result.curve:
        if name == result.first_divergence:
            x, y = scale.x(name), scale.y(_drawn(scale, error))
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="var(--bad)"><title>{escape(name)}</title></circle>'
    return ""


def _drawn(scale: Scale, value: float) -> float:
    return value if math.isfinite(value) else 10.0**scale.high


def _legend(results: Sequence[Result]) -> str:
    entries = "".join(
        f'<span style="color:var(--s{n % 6})">━ {escape(f"{r.pair} {r.dtype} {r.device}")}</span> '
        for n, r in enumerate(results)
    )
    band = " Band: the frameworks' own rounding noise against their float64." if any(r.noise for r in results) else ""
    return f"<p class=soft>{entries}<br>Dashed: tolerance.{band} Dot: first divergence.</p>"
