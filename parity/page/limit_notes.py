"""Explain the limits of a page: a list says why each is as it is, and a letter beside the number leads there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from string import ascii_lowercase

from parity.results.elements import IN_FIRST
from parity.results.result import Result
from parity.results.tolerance import GRADIENT_FLOOR, ROUNDOFF, TRAINED_FLOOR
from parity.summaries import findings
from specs.numbers import limit, measured

from .markup import Markup, join, prose, tag

MEASURE = (
    "The error of an element is its difference between both models{}, divided by the largest value that its feature (a "
    f"channel, a logit) has {IN_FIRST} of the pair. The error of an array is the largest error of its elements; where "
    "its features have limits of their own, it is that of the feature nearest to its limit, or furthest beyond it."
)
WHOLE = {  # by check
    "gradients": " A gradient has no features: its differences are divided by the largest value of the whole array, "
    f"but by no less than {Fraction(GRADIENT_FLOOR)} of that of all gradients.",
    "train": " A parameter has no features: its differences are divided by the largest value of the whole array, in "
    f"float64 by no less than {Fraction(TRAINED_FLOOR)} of that of all parameters.",
}
BELOW = (
    " Below float64 it is the larger difference of both models from the float64 copy of the first one, in arrays as a "
    "whole; where the float64 copies of both differ by more than their limit, it is that difference."
)
RULE = (
    " How a limit follows from measured rounding: docs/parity.md of Triptych, section 3, “Below float64, by measured "
    "noise”, and section 4, “What a run amplifies”."
)
SHARE = 0.1  # limits from which they are also stated as shares of the largest value, as in bfloat16
VALUES = " “Values” below a plot has the limit of every array."
ID = "limits"  # the address of the list


class LimitNotes:
    """The reasons of the limits of all arrays, lettered by dtype, the most exact one first, and in the order of the
    results.
    """

    def __init__(self, results: Sequence[Result]):
        limits: dict[str, list[tuple[Result, float]]] = {}
        for r in results:
            for reason, bound in r.limits:
                limits.setdefault(reason, []).append((r, bound))
        limits.pop("", None)
        self.limits = dict(
            sorted(limits.items(), key=lambda row: min(list(ROUNDOFF).index(r.dtype) for r, _ in row[1]))
        )
        self.usual = self._usual([r for r in results if r.basis and r.is_number])
        self.lettered = [reason for reason in self.limits if reason != self.usual and len(self.limits) > 1]

    def _usual(self, stated: Sequence[Result]) -> str:
        """Return the reason of most limits of the tables, which a sentence states in place of a letter.

        "" where there is none, or where a row of the table has another reason beside it.

        Args:
          stated: the results whose limits stand in tables of pairs.
        """
        rows: dict[tuple[str, ...], set[str]] = {}
        for r in stated:
            rows.setdefault(findings.key(r), set()).add(r.basis)
        counts = Counter(r.basis for r in stated)
        most = [reason for reason, number in counts.items() if number > len(stated) / 2]
        alone = [reason for reason in most if all(own == {reason} for own in rows.values() if reason in own)]
        return alone[0] if alone and len(self.limits) > 1 else ""

    def mark(self, *results: Result) -> Markup:
        """Build the letters of these results' reasons, which lead to the list; none of the usual one."""
        return self.letters(*(r.basis for r in results if r.basis))

    def letters(self, *reasons: str) -> Markup:
        """Build the letters of reasons, " [a] [b]", each a link to its place in the list; none of the usual one."""
        places = sorted({self.lettered.index(reason) for reason in reasons if reason in self.lettered})
        return join(*(tag("a", f" {_letter(k)}", href=f"#{_address(k)}", class_="note") for k in places))

    def about(self) -> str:
        """Say where the letters lead, and why the limits without one are as they are; "" where there are no letters."""
        usual = f" Limits without a letter have one reason: {self.usual}." if self.usual else ""
        return f"A letter leads to the reason of its limit.{usual}" if self.lettered else ""

    def explains(self, basis: str) -> bool:
        """Tell whether the list has a reason."""
        return basis in self.limits

    def notes(self, about: str = "") -> Markup:
        """Build the section: what errors are, and of each reason the limits that it leads to, where, and the reason."""
        rows = [
            tag("li", *head, tag("b", f"limit {_range([bound for _, bound in self.limits[reason]])}"),
                *_where(reason, [r for r, _ in self.limits[reason]]), id=address)
            for reason, head, address in self._entries()
        ]  # fmt: skip
        if not rows and not about:
            return Markup()
        listed = tag("ul", *rows, class_="lettered" if rows[1:] else None)
        parts = ([tag("p", prose(about), class_="soft")] if about else []) + ([listed] if rows else [])
        return tag("section", tag("h2", "How errors are measured, and why each limit"), *parts, class_="limits", id=ID)

    def _entries(self) -> Iterator[tuple[str, list[Markup], str | None]]:
        """Yield (reason, head, address) of the rows of the list: the reason without a letter, then those with one."""
        yield from ((reason, [], None) for reason in self.limits if reason not in self.lettered)
        for k, reason in enumerate(self.lettered):
            yield reason, [tag("span", _letter(k), class_="letter")], _address(k)


def _letter(k: int) -> str:
    """Return the mark of the kth reason: "[a]" to "[z]", then "[a2]"."""
    turn, place = divmod(k, 26)
    return f"[{ascii_lowercase[place]}{turn + 1 if turn else ''}]"


def _address(k: int) -> str:
    return f"{ID}-{_letter(k).strip('[]')}"


def definition(results: Iterable[Result]) -> str:
    """Say what an error is, in the checks of results that were judged; "" if none was."""
    judged = [r for r in results if r.curve]
    whole = "".join(text for check, text in WHOLE.items() if any(r.check == check for r in judged))
    is_below = any(r.dtype != "float64" for r in judged)
    has_plots = any(len(r.curve) > 1 for r in judged)
    rule = f"{BELOW}{RULE}{VALUES * has_plots}" * is_below
    return f"{MEASURE.format(' in float64' * is_below)}{whole}{rule}" if judged else ""


def _range(limits: Iterable[float]) -> str:
    """Write the least and the largest limit; large ones also as shares: "0.25 (25% of the largest value)"."""
    values = sorted(limits)
    text = " to ".join(dict.fromkeys([limit(values[0]), limit(values[-1])]))
    if not SHARE <= values[-1] <= 1:
        return text
    return f"{text} ({shares(values)} of the largest value)"


def shares(values: Sequence[float]) -> str:
    """Write the least and the largest of sorted limits as shares: "25% to 51%"."""
    return " to ".join(dict.fromkeys([f"{measured(100 * value, 2)}%" for value in (values[0], values[-1])]))


def coarse(results: Iterable[Result]) -> dict[str, str]:
    """Return the shares of the largest value that limits of arrays are, for each dtype of which some are large."""
    values: dict[str, list[float]] = {}
    for r in results:
        for bound in (r.tolerance, *(bound for _, _, bound in r.curve)):
            if bound is not None and bound <= 1:
                values.setdefault(r.dtype, []).append(bound)
    return {dtype: shares(sorted(own)) for dtype, own in values.items() if max(own) >= SHARE}


def _where(reason: str, results: Sequence[Result]) -> Sequence[Markup]:
    return tag("span", prose(f" {findings.checks(results)}: "), class_="soft"), join(prose(reason), ".")
