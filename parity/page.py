"""A report as one self-contained page: a matrix of checks, first divergences, error curves, what was run on what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from .plot import chart
from .result import Result

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #667080; --paper: #fff; --line: #d8dce2; --card: #f6f7f9;
  --good: #1a7f4b; --tight: #a86400; --bad: #c2242f; --none: #8a93a0;
  --good-bg: #d9f2e3; --fair-bg: #ecf5d4; --tight-bg: #fdeccb; --bad-bg: #fbd5d5; --none-bg: #eceef1;
  --s0: #1f6fd1; --s1: #c0561f; --s2: #7a3fb8; --s3: #0f8577; --s4: #b3245f; --s5: #6b7a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa4b1; --paper: #14171b; --line: #333a43;
  --card: #1c2026; --good: #64d394; --tight: #f0b454; --bad: #ff8189; --none: #8a93a0;
  --good-bg: #123d27; --fair-bg: #2d3c12; --tight-bg: #4a3510; --bad-bg: #561c22; --none-bg: #262b32;
  --s0: #6cabff; --s1: #ff9d66; --s2: #c39bff; --s3: #4fd1bf; --s4: #ff84b4; --s5: #cbd84e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(.8rem, 3vw, 2.5rem); max-width: 90rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; } h2 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
.verdict { font-weight: 600; } .ok { color: var(--good); } .off { color: var(--bad); } .skipped { color: var(--none); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
thead th { background: var(--card); font-weight: 600; } tbody th { font-weight: 500; position: sticky; left: 0;
  background: var(--paper); } tbody tr:last-child > * { border-bottom: 0; }
td.cell { text-align: center; } td.good { background: var(--good-bg); } td.fair { background: var(--fair-bg); }
td.tight { background: var(--tight-bg); } td.bad { background: var(--bad-bg); font-weight: 600; }
td.none { background: var(--none-bg); color: var(--soft); }
.key span { display: inline-block; padding: 0 .6rem; margin: .4rem .4rem 0 0; border-radius: 4px; font-size: .8rem; }
.good-key { background: var(--good-bg); } .fair-key { background: var(--fair-bg); }
.tight-key { background: var(--tight-bg); }
.bad-key { background: var(--bad-bg); } .none-key { background: var(--none-bg); }
ul.found { margin: 0; padding: 0; list-style: none; } ul.found li { margin: .5rem 0; padding: .6rem .8rem;
  background: var(--card); border-left: 4px solid var(--bad); border-radius: 4px; overflow-wrap: anywhere; }
ul.found li.note { border-color: var(--none); } code { font-family: ui-monospace, monospace; font-size: .92em; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .4rem .8rem; }
summary { cursor: pointer; font-weight: 500; } svg { width: 100%; min-width: 36rem; height: auto; display: block; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } .soft { color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
  td, th { padding: .3rem .4rem; } }
"""

# Cells by how many decades the error stays below its tolerance.
GRADES = (
    (3.0, "good", "3 decades or more below tolerance"),
    (1.0, "fair", "1 to 3 decades below"),
    (0.0, "tight", "within tolerance, by less"),
)


def page(results: list[Result], about: Mapping[str, str], passed: bool) -> str:
    """The page: no network, no script, inline style and SVG, light and dark, wide and narrow.

    Args:
      about: what was run, by label.
      passed: whether something was compared and nothing of it differs.
    """
    state, word = ("ok", "everything that could be compared agrees") if passed else ("off", "not proven the same")
    return "".join(
        [
            "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width, initial-scale=1">',
            f"<title>Parity: {escape(word)}</title><style>{STYLE}</style></head>\n<body>",
            f'<h1>Parity</h1><p class="verdict {state}">{escape(word)}</p>',
            _counts(results),
            _matrix(results),
            _found(results),
            _curves(results),
            _about(about),
            "</body></html>\n",
        ]
    )


def _counts(results: Iterable[Result]) -> str:
    states = [r.state for r in results]
    told = ", ".join(f"{states.count(s)} {s}" for s in ("ok", "OFF", "skipped") if s in states)
    return (
        f"<p class=soft>{len(states)} comparisons: {told or 'none'}. Errors are of the worst element, never a mean.</p>"
    )


def _matrix(results: list[Result]) -> str:
    """Architectures down, checks of pairs across; a result whose cell is taken by one of its name starts a row."""
    columns = list(dict.fromkeys((r.check, r.pair) for r in results))
    columns.sort(key=lambda c: [x.check for x in results].index(c[0]))
    rows: dict[tuple[str, str, str, str], list[dict[tuple[str, str], Result]]] = {}
    for r in results:
        alike = rows.setdefault((r.architecture, r.variant, r.dtype, r.device), [])
        row = next((cells for cells in alike if (r.check, r.pair) not in cells), None)
        if row is None:
            alike.append(row := {})
        row[r.check, r.pair] = r
    checks = list(dict.fromkeys(check for check, _ in columns))
    spans = "".join(f"<th colspan={sum(c == check for c, _ in columns)}>{escape(check)}</th>" for check in checks)
    pairs = "".join(f"<th>{escape(pair)}</th>" for _, pair in columns)
    body = "".join(
        f"<tr><th>{escape(architecture)} {escape(variant)}</th><td>{escape(dtype)} {escape(device)}</td>"
        + "".join(_cell(cells.get(column)) for column in columns) + "</tr>"
        for (architecture, variant, dtype, device), alike in rows.items()
        for cells in alike
    )  # fmt: skip
    head = f"<thead><tr><th rowspan=2>model</th><th rowspan=2>in</th>{spans}</tr><tr>{pairs}</tr></thead>"
    key = "".join(f'<span class="{name}-key">{text}</span>' for _, name, text in GRADES)
    key += '<span class="bad-key">beyond tolerance</span><span class="none-key">not run</span>'
    return f"<h2>Matrix</h2><div class=wide><table>{head}<tbody>{body}</tbody></table></div><div class=key>{key}</div>"


def _cell(result: Result | None) -> str:
    if result is None or result.passed is None:
        return f'<td class="cell none" title="{escape(result.cause if result else "not asked for")}">-</td>'
    error, tolerance = result.error or 0.0, result.tolerance or 0.0
    first = f"; first: {result.first_divergence}" if result.first_divergence is not None else ""
    title = f"error {error:.3e}, tolerance {tolerance:.0e}{first}"
    text = f"{error:.0e}" if math.isfinite(error) else "∞"
    return f'<td class="cell {grade(result)}" title="{escape(title)}">{text}</td>'


def grade(result: Result) -> str:
    """The class of a result's cell."""
    if not result.passed:
        return "bad"
    room = math.log10((result.tolerance or 1.0) / max(result.error or 0.0, 1e-30))
    return next((name for least, name, _ in GRADES if room >= least), "bad")


def _found(results: Iterable[Result]) -> str:
    """First divergences, then what did not run and why."""
    items = []
    for r in results:
        where = f"<b>{escape(f'{r.architecture} {r.variant}')}</b> {escape(f'{r.check}, {r.dtype}, {r.pair}')}"
        if r.first_divergence is not None:
            items.append(f"<li>{where}: <code>{escape(r.first_divergence.sentence())}</code></li>")
        elif r.passed is False:
            items.append(f"<li>{where}: {escape(r.cause)}</li>")
    causes = dict.fromkeys(r.cause for r in results if r.cause and r.passed is not False)
    items += [f"<li class=note>{escape(cause)}</li>" for cause in causes]
    body = "".join(items) or "<li class=note>none</li>"
    return f"<h2>First divergences</h2><ul class=found>{body}</ul>"


def _curves(results: Iterable[Result]) -> str:
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        if r.check in ("layers", "single-step", "gradients") and r.curve:
            groups.setdefault((r.architecture, r.variant, r.check), []).append(r)
    parts = []
    for n, ((architecture, variant, check), group) in enumerate(groups.items()):
        name = escape(f"{architecture} {variant}: {check}")
        state = " open" if n == 0 or not all(r.passed for r in group) else ""
        parts.append(f"<details{state}><summary>{name}</summary><div class=scroll>{chart(group, name)}</div></details>")
    return "<h2>Errors, array by array</h2>" + ("".join(parts) or "<p class=soft>no layer was looked at</p>")


def _about(about: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in about.items())
    return f"<h2>What was run</h2><dl>{rows}</dl>"
