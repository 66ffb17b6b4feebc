"""Give lengths that no shape shows one letter where they are one length in every model.

These are parts of sums, which else get letters of their own, and pieces of an axis, as heads and the size of a head:
these have the letter of the axes that they meet in the run, as those of a bias, or of the scale of a norm.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

from parity.derive.trace.equal_parts import axes_met
from parity.derive.trace.sites import numberless
from specs.notation.paths import fill, holes, parse_path

from .facts import Facts, Group
from .names import SPARE
from .parts import UNKNOWN
from .rows import NAME, Row

SUM = re.compile(r"\([^()]*\+[^()]*\)")
LETTER = re.compile(rf"\b[{SPARE}]\d*\b")
STATED = re.compile(rf"\b([{SPARE}]\d*)=")
DIM = re.compile(r"\([^()]*\)|\S+")
PLAIN = re.compile(r"[A-Za-z]\d*")


def own_letters(rows: Sequence[Row], lengths: MutableMapping[str, int]) -> list[Row]:
    """Return the rows with other letters where a sum of other parts has them, on both sides, as in (a+b) <-> (b+a).

    Such lengths are given, and one letter has one length in all lines: parts that are alike in small models are not so
    in larger ones. Lines whose parts are of the same parameters keep common letters, as those of a norm and of the
    layer behind it; where these are not known, the lines of one module do.

    Args:
      lengths: those of all letters, to which those of the sums are added.
    """
    taken = {letter for row in rows for letter in _letters(_axes(row))}
    owners: dict[str, Any] = {}  # letter -> what the first row with it is about
    renamed: dict[Any, str] = {}  # what a row is about -> its own letter
    out = []
    for row in rows:
        module = re.split(r"[./](?=[^./]*$)", row.left[0][0])[0] if row.left else ""
        new, parts = {}, {part.letter: part for part in row.parts}
        own = not parts or any(part.origin.text in ("", UNKNOWN) for part in row.parts)
        for letter in open_letters(row):
            part = parts.get(letter)
            length, owner = part.length if part else lengths[letter], (own and module, row.parts, letter)
            first = lengths.get(letter, length) == length and owners.setdefault(letter, owner) == owner
            if not first:
                new[letter] = renamed.setdefault(owner, _free(letter, taken))
                taken.add(new[letter])
            lengths[new.get(letter, letter)] = length
        out.append(row.renamed(new) if new else row)
    return out


def _axes(row: Row) -> list[str]:
    return [axes or "" for _, axes in (*row.left, *row.right)]


def _letters(axes: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(letter for text in axes for letter in LETTER.findall(text))


def open_letters(row: Row) -> list[str]:
    """List the letters that both sides have inside sums (a+b) alone, and whose length no side states (a=3)."""
    sides = [[axes or "" for _, axes in arrays] for arrays in (row.left, row.right)]
    alone = set(_letters(SUM.sub("", text) for side in sides for text in side))
    summed = [_letters(sum_ for text in side for sum_ in SUM.findall(text)) for side in sides]
    stated = {letter for side in sides for text in side for letter in STATED.findall(text)}
    return [letter for letter in summed[0] if letter in summed[1] and letter not in alone | stated]


def _free(letter: str, taken: Iterable[str]) -> str:
    stem = letter.rstrip("0123456789")
    return next(name for k in range(2, 10_000) if (name := f"{stem}{k}") not in taken)


Place = tuple[int, str]  # a row, and a letter in it


def with_met_letters(groups: Sequence[Group], facts: Facts) -> list[Group]:
    """Return the groups with one letter for axes that meet in a run, where a shape leaves the length of one open.

    The letter is that of the line which composes it of most pieces: beside `(g r+1+1 d)` of a fused projection, the
    bias of its values is `(g d)`, and the scale of a norm of its keys `d`. Lines of blocks that are alike stay so.
    """
    rows = [row for _, _, some in groups for row in some]
    letters_of = [_composed(row) for row in rows]
    alike = dict[Place, set[Place]]()  # place -> all places of the same length
    for places in itertools.chain(*(_met(rows, letters_of, facts, side) for side in range(len(facts.programs)))):
        joined = set[Place]().union(*(alike.get(place, {place}) for place in places))
        alike |= dict.fromkeys(joined, joined)
    new = [dict[str, str]() for _ in rows]
    for (at, letter), joined in alike.items():
        _, new[at][letter] = max(sorted(joined), key=lambda place: _pieces(rows[place[0]], place[1]))
    families = dict[str, list[int]]()
    for at, row in enumerate(rows):
        families.setdefault(numberless(str(row)), []).append(at)
    for family in families.values():
        own = new[family[0]]
        letters = [own.get(letter, letter) for letter in dict.fromkeys(NAME.findall(" ".join(_axes(rows[family[0]]))))]
        if len(set(letters)) == len(letters) and all(new[at] == own for at in family):
            for at in family:
                rows[at] = rows[at].renamed(own)
    every = iter(rows)
    return [(left, right, list(itertools.islice(every, len(some)))) for left, right, some in groups]


def _met(rows: Sequence[Row], letters_of: Sequence[set[str]], facts: Facts, side: int) -> Iterator[set[Place]]:
    """Yield the places of whole axes of one side that meet, if a shape of a line leaves the length of one open.

    Args:
      letters_of: of each row those with open lengths, see _composed.
    """
    shapes = (facts.lefts, facts.rights)[side].shapes
    axes = dict[int, dict[str, list[tuple[int, Place]]]]()  # length -> parameter -> its axes of that length
    opened = set[int]()
    for at, row in enumerate(rows):
        for path, text in (row.left, row.right)[side]:
            dims = DIM.findall(text or "")
            for name in _names(path):
                for axis, (dim, length) in enumerate(zip(dims, shapes.get(name, ()), strict=False)):
                    if length > 1 and PLAIN.fullmatch(dim):
                        axes.setdefault(length, {}).setdefault(name, []).append((axis, (at, dim)))
                        opened.update([length] * (dim in letters_of[at]))
    for length in sorted(opened):
        for k in range(max(map(len, axes[length].values()))):
            chosen = {name: some[min(k, len(some) - 1)] for name, some in axes[length].items()}
            for names in axes_met(facts.programs[side], {name: axis for name, (axis, _) in chosen.items()}):
                places = {chosen[name][1] for name in names}
                if any(letter in letters_of[at] for at, letter in places):
                    yield places


def _names(path: str) -> Iterator[str]:
    """Yield the names that a path lists; none where its holes count."""
    parsed = parse_path(path)
    values = {hole.name: range(len(hole.values or ())) for hole in holes(parsed)}
    for index in itertools.product(*values.values()):
        yield fill(parsed, dict(zip(values, index, strict=True)))


def _composed(row: Row) -> set[str]:
    """Return the letters whose lengths a shape of one side leaves open: pieces of axes, of which two are not known."""
    found = set[str]()
    named = {hole.name for path, _ in (*row.left, *row.right) for hole in holes(parse_path(path))}
    named.update(letter for text in _axes(row) for letter in re.findall(r"(\w+)=", text))
    for arrays in (row.left, row.right):
        dims = [dim for _, text in arrays for dim in DIM.findall(text or "")]
        known = named.union(filter(PLAIN.fullmatch, dims))
        for dim in dims:
            pieces = [piece for piece in dim.strip("()").split() if not known.issuperset(NAME.findall(piece))]
            found.update(piece for piece in pieces if len(pieces) > 1 and PLAIN.fullmatch(piece))
    return found


def _pieces(row: Row, letter: str) -> int:
    """Return of how many pieces the axis consists that has a letter as one of them."""
    dims = (dim.strip("()").split() for text in _axes(row) for dim in DIM.findall(text))
    return max((len(pieces) for pieces in dims if letter in pieces), default=0)
