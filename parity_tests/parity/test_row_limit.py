"""The limit that a row of results states, in the terminal and on the page alike."""

from __future__ import annotations

import re
from dataclasses import replace

from parity.report import Report

from .pages import row


def test_page_and_terminal_state_the_same_limit_of_a_row() -> None:
    """That of most, the smallest of several such; those that have another one state it."""
    near = row(("a",))
    pairs = [replace(near, pair=f"a-{k}", tolerance=limit) for k, limit in enumerate((1e-10, 1e-9, 1e-9))]
    off = [replace(pairs[0], error=5e-10, passed=False), *pairs[1:]]
    for results, stated, own in ((pairs, "1e-9", ["1e-10"]), (pairs[:2], "1e-10", ["1e-9"]), (off, "1e-9", ["1e-10"])):
        made = Report(results)
        (line,) = re.findall("  layers .*", str(made))
        assert line.split()[1] == stated and re.findall("of (\\S+)", line) == own
        table = made.to_html().partition('class="matrix by-pair"')[2].partition("</table>")[0]
        cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", table)]
        assert cells[0] == stated and re.findall("[(]limit (\\S+)[)]", " ".join(cells)) == own
