"""Give lengths that no shape shows one letter where they are one length in every model.

These are parts of sums, which else get letters of their own, and pieces of an axis, as heads and the size of a head:
these have the letter of the axes that they meet in the run, as those of a bias, of the scale of a norm, or of the
matrix of the output that reads these heads.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from parity.derive.trace.tape import Array
from specs.notation.lines import Line
from specs.notation.paths import fill, holes, normal, parse_path

from .equal_parts import axes_met
from .facts import Facts, Group
from .names import SPARE
from .parts import UNKNOWN
from .rows import DIM, NAME, Arrays, Row

SUM = re.compile(r"\([^()]*\+[^()]*\)")
LETTER = re.compile(rf"\b[{SPARE}]\d*\b")
STATED = re.compile(rf"\b([{SPARE}]\d*)=")
CAPITAL = re.compile(r"\b[A-Z]\w*")
PLAIN = re.compile(r"[A-Za-z]\d*")
SMALL = re.compile(r"[a-z]\d*")
PIECES = re.compile(r"\([^()]*\)")
TERM = re.compile(r"[A-Za-z]\d*|\d+")


def own_letters(rows: Sequence[Row], lengths: MutableMapping[str, int]) -> list[Row]:
    """Return the rows with other letters where a sum of other parts has them, on both sides, as in (a+b) <-> (b+a).

    Such lengths are given, and one letter has one length in all lines: parts that are alike in small models are not so
    in larger ones. Lines whose parts are of the same parameters keep common letters, as those of a norm and of the
    layer behind it; where these are not known, the lines of one module do.

    Args:
      lengths: those of all letters, to which those of the sums are added.
    """
    taken = {letter for row in rows for letter in _letters(_axes(row))}
    owners: dict[str, Any] = {letter: None for row in rows for letter in _stated(row)}
    # letter -> what the first row with it is about; None of those that a row states, as in (a=1+b=1 o)
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
                new[letter] = renamed.setdefault(owner, free(letter, taken))
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


def free(letter: str, taken: Iterable[str]) -> str:
    stem = letter.rstrip("0123456789")
    return next(name for k in range(2, 10_000) if (name := f"{stem}{k}") not in taken)


Place = tuple[int, str]  # a row, and a text in it: a letter, or letters that stand side by side, as g r in (g r d)
Spans = dict[str, tuple[int, Array, Place]]  # text -> axis, number of its step at each index of the axis (0: none)


def with_met_letters(
    groups: Sequence[Group], facts: Facts, lengths: MutableMapping[str, int], given: Iterable[object]
) -> list[Group]:
    """Return the groups with one letter for axes that meet in a run, where a shape leaves the length of one open.

    The letter is that of the line which composes it of most pieces: beside `(g r+1+1 d)` of a fused projection, the
    bias of its values is `(g d)`, and the scale of a norm of its keys `d`. What meets several pieces is written as
    these, with capital letters, which have one length in all lines: then the projection is `(G R+1+1 d)`, and the
    matrix of the output, which reads these heads, `o (G R d)`. Lines of blocks that are alike, also in shape, stay so.

    Args:
      lengths: of the letters of pieces: those of capital ones are added, and those of replaced ones removed.
      given: other lines of the Table.
    """
    rows = [row for _, _, some in groups for row in some]
    open_on = [opened_on(row) for row in rows]
    opened = [set[str]().union(*sides) for sides in open_on]
    alike = dict[Place, set[Place]]()  # place -> all places of the same length
    for places in itertools.chain(*(_met(rows, opened, facts, lengths, side) for side in range(len(facts.programs)))):
        joined = set[Place]().union(*(alike.get(place, {place}) for place in places))
        alike |= dict.fromkeys(joined, joined)
    used = {letter for line in given for letter in CAPITAL.findall(str(line))}
    new = _chosen(rows, opened, alike, used)
    replaced = [pair for own in new for pair in own.items() if pair[0] in lengths]
    lengths.update({capital: lengths[letter] for letter, capital in replaced if CAPITAL.fullmatch(capital)})
    texts = [normal(str(row)) for row in rows]
    counts = Counter(texts)
    single = {at: row for at, row in enumerate(rows) if counts[texts[at]] == 1}
    _choose_shown({at: row for at, row in single.items() if not row.parts}, open_on, alike, new, lengths, used)
    families = dict[Any, list[int]]()
    for at, row in enumerate(rows):
        shapes = (facts.lefts.shapes.get(name) for path, _ in row.left for name in _names(path))
        families.setdefault((texts[at], *shapes), []).append(at)
    for family in families.values():
        own = _apart(rows[family[0]], new[family[0]])
        for at in family if all(new[at] == new[family[0]] for at in family) else ():
            rows[at] = rows[at].renamed(own)
    composed = " ".join(itertools.chain(*(PIECES.findall(text) for row in rows for text in _axes(row))))
    pieces = set(PLAIN.findall(composed))
    for letter in lengths.keys() - pieces:  # it is free for whole axes
        del lengths[letter]
    every = iter(rows)
    return [(left, right, list(itertools.islice(every, len(some)))) for left, right, some in groups]


def apart_from_set(groups: Sequence[Group], lengths: MutableMapping[str, int], given: Iterable[Line]) -> list[Group]:
    """Return the groups with other letters for lengths that another line sets: by listing values, or as a number.

    A letter has one length in all lines, so that `--set s=4` would speak of `{s=up|gate}` and of `(s=2 o)` too.

    Args:
      lengths: of the letters of pieces, in which the new letters replace the others. given: other lines of the Table.
    """
    rows = [row for _, _, some in groups for row in some]
    named = [_holes(row) | _stated(row) for row in rows]
    every = set[str]().union(*named, *({hole.name for array in line.arrays for hole in array.holes} for line in given))
    every.update(letter for line in given for letter in line.lengths)
    used = {*every, *lengths, *(name for row in rows for text in _axes(row) for name in NAME.findall(text))}
    for letter in sorted(every & lengths.keys()):
        new = next((name for name in SPARE if name not in used), free(letter, used))
        used.add(new)
        lengths[new] = lengths.pop(letter)
        for at, row in enumerate(rows):
            rows[at] = row if letter in named[at] else row.renamed({letter: new})
    remaining = iter(rows)
    return [(left, right, list(itertools.islice(remaining, len(some)))) for left, right, some in groups]


def _holes(row: Row) -> set[str]:
    return {hole.name for path, _ in (*row.left, *row.right) for hole in holes(parse_path(path))}


def _stated(row: Row) -> set[str]:
    """Return the letters whose lengths a line states, as a and b of (a=1+b=1 o)."""
    return {letter for text in _axes(row) for letter in re.findall(r"(\w+)=", text)}


def _chosen(
    rows: Sequence[Row], opened: Sequence[set[str]], alike: Mapping[Place, set[Place]], used: Collection[str]
) -> list[dict[str, str]]:
    """Return for each row what stands in place of its letters.

    Args:
      alike: of each place all of the same length. used: capital letters that are not free.
    """
    new = [dict[str, str]() for _ in rows]
    whole = dict[Place, Place]()  # letters that meet several pieces -> where these are
    for place, joined in alike.items():
        best = max(sorted(joined), key=lambda one: (len(one[1].split()), _pieces(rows[one[0]], one[1])))
        if PLAIN.fullmatch(best[1]) and PLAIN.fullmatch(place[1]):
            new[place[0]][place[1]] = best[1]
        elif place[1] in opened[place[0]]:
            whole[place] = best
    capitals = dict[tuple[str, str], str]()  # (a line without its numbers, its letter) -> the capital one
    for (at, letter), (there, text) in whole.items():
        kind, named = normal(str(rows[there])), list[str]()
        for piece in text.split():
            own = new[there].get(piece, piece)
            if own not in capitals.values():
                wanted, taken = own.upper(), {*used, *capitals.values()}
                own = capitals.setdefault((kind, own), free(wanted, taken) if wanted in taken else wanted)
            named.append(own)
            for row, alike_letter in alike.get((there, piece), {(there, piece)}):
                new[row][alike_letter] = own
        new[at][letter] = " ".join(named)
    return new


def _choose_shown(
    rows: Mapping[int, Row], open_on: Sequence[Sequence[set[str]]], alike: Mapping[Place, set[Place]],
    new: Sequence[dict[str, str]], lengths: MutableMapping[str, int], used: Collection[str],
) -> None:  # fmt: skip
    """Choose a capital letter for a length that is open on one line, and a whole axis of another on the same side.

    So the channels of a convolution, `conv: C i h w`, show those of the flattened grid that a dense layer reads,
    `head: o (C p)`. Each length gets a letter of its own.

    Args:
      rows: all but those of numbered blocks, as another model may have another length in each block, and those of
        sums, whose parts `with_shown_lengths` names.
      open_on: of each row the open letters of both sides. new: what stands in place of a row's letters, which changes.
    """
    taken = {*used, *(name for own in new for text in own.values() for name in CAPITAL.findall(text))}
    for joined in {id(places): places for places in alike.values()}.values():
        own = sorted(place for place in joined if place[0] in rows)
        if not all(SMALL.fullmatch(name) for at, text in own for name in (text, new[at].get(text, text))):
            continue
        asked = [[(at, text) for at, text in own if text in open_on[at][side] & lengths.keys()] for side in (0, 1)]
        shown = [any(_is_shown(rows[at], text, side, open_on[at][side]) for at, text in own) for side in (0, 1)]
        if not any(map(all, zip(asked, shown, strict=True))):
            continue
        at, text = next(itertools.chain(*asked))
        capital = new[at].get(text, text).upper()
        capital = free(capital, taken) if capital in taken else capital
        taken.add(capital)
        lengths[capital] = lengths[text]
        for at, text in own:
            new[at][text] = capital


def _is_shown(row: Row, letter: str, side: int, opened: Collection[str]) -> bool:
    """Tell whether the shapes of one side show a length: of a whole axis, or beside others that are known."""
    return letter not in opened and letter in NAME.findall(" ".join(_dims((row.left, row.right)[side])))


def _apart(row: Row, new: Mapping[str, str]) -> dict[str, str]:
    """Leave out new letters that the row has already, but for those of parts of one sum, as k in (h+k+k d).

    A part of a sum stays one letter: it is no product of several.
    """
    arrays = [[{*NAME.findall(piece)} for dim in DIM.findall(axes) for piece in dim.split()] for axes in _axes(row)]
    pairs = (pair for pieces in arrays for pair in itertools.combinations(pieces, 2))
    crossed = {frozenset(letters) for pair in pairs for letters in itertools.product(*pair)}  # in two axes of one array
    letters = dict.fromkeys(NAME.findall(" ".join(_axes(row))))
    parts = {name for axes in _axes(row) for piece in axes.split() if "+" in piece for name in NAME.findall(piece)}
    taken, out = {letter: {letter} for letter in letters if new.get(letter, letter) == letter}, dict[str, str]()
    for letter in (letter for letter in letters if letter not in taken):
        own = {*new[letter].split()}
        beside = [frozenset((letter, other)) for other, names in taken.items() if names & own]
        summed = all(any(both <= piece for pieces in arrays for piece in pieces) for both in beside)
        fits = not beside or (not row.parts and summed and crossed.isdisjoint(beside))
        fits = fits and (len(own) == 1 or letter not in parts)
        taken[letter] = own if fits else {letter}
        out[letter] = new[letter] if fits else letter
    clash = any(taken[one] & taken[other] for one, other in itertools.combinations(taken, 2) if {one, other} in crossed)
    return {} if clash else out


def _met(
    rows: Sequence[Row], opened: Sequence[set[str]], facts: Facts, lengths: Mapping[str, int], side: int
) -> Iterator[set[Place]]:
    """Yield the places of one side that meet, if a shape of a line leaves the length of one open.

    Args:
      opened: of each row the letters with open lengths.
    """
    shapes = (facts.lefts, facts.rights)[side].shapes
    found = dict[int, dict[str, Spans]]()  # length -> parameter -> its texts of that length
    for at, row in enumerate(rows):
        for path, axes in (row.left, row.right)[side]:
            for name in _names(path):
                for axis, (dim, size) in enumerate(zip(DIM.findall(axes or ""), shapes.get(name, ()), strict=False)):
                    for text, steps in _spans(dim, size, lengths):
                        if (length := int(steps.max())) > 1:
                            spans = found.setdefault(length, {}).setdefault(name, {})
                            spans.setdefault(text, (axis, steps, (at, text)))
    for spans_of in found.values():
        texts = dict.fromkeys(text for spans in spans_of.values() for text in spans)
        asked = {text for spans in spans_of.values() for text, (_, _, (at, _)) in spans.items() if text in opened[at]}
        for one, other in itertools.product(sorted(asked), texts):
            if (one == other and len(texts) > 1) or (other in asked and other < one):
                continue
            chosen = {
                name: spans.get(one) or spans[other] for name, spans in spans_of.items() if {one, other} & {*spans}
            }
            axes_of = {name: (axis, steps) for name, (axis, steps, _) in chosen.items()}
            for names in axes_met(facts.programs[side], axes_of):
                places = {chosen[name][2] for name in names}
                if any(text in opened[at] for at, text in places):
                    yield places


def _spans(dim: str, size: int, lengths: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """Yield the texts of a dimension, and which step of each stands at each of its indices, from 1; 0 where none does.

    Those of (g r+1+1 d) are g, r, d, g r, r d and g r d.
    """
    pieces = [piece.split("+") for piece in dim.strip("()").split()]
    if any(not TERM.fullmatch(term) for piece in pieces for term in piece):
        return
    if pieces == [[dim]]:
        lengths = {dim: size}
    terms = [[int(term) if term.isdigit() else lengths.get(term, 0) for term in piece] for piece in pieces]
    if math.prod(map(sum, terms)) != size:
        return
    indices = np.unravel_index(np.arange(size), [sum(piece) for piece in terms])
    for start, stop in itertools.combinations(range(len(pieces) + 1), 2):
        run = range(start, stop)
        for chosen in itertools.product(*(range(len(pieces[k])) for k in run)):
            text = " ".join(pieces[k][n] for k, n in zip(run, chosen, strict=True))
            own = [terms[k][n] for k, n in zip(run, chosen, strict=True)]
            steps = [indices[k] - sum(terms[k][:n]) for k, n in zip(run, chosen, strict=True)]
            inside = np.all([(step >= 0) & (step < n) for step, n in zip(steps, own, strict=True)], axis=0)
            if not re.search(r"\b\d", text) and np.prod(own):
                yield text, inside * (1.0 + np.ravel_multi_index(steps, own, mode="clip"))


def _names(path: str) -> Iterator[str]:
    """Yield the names that a path lists; none where its holes count."""
    parsed = parse_path(path)
    values = {hole.name: range(len(hole.values or ())) for hole in holes(parsed)}
    for index in itertools.product(*values.values()):
        yield fill(parsed, dict(zip(values, index, strict=True)))


def _dims(arrays: Arrays) -> list[str]:
    """Return the text of each dimension of arrays."""
    return [dim for _, text in arrays for dim in DIM.findall(text or "")]


def opened_on(row: Row) -> list[set[str]]:
    """Return the letters whose lengths the shapes of each side leave open: of pieces of an axis, two are not known."""
    found = []
    named = _holes(row) | _stated(row)
    for arrays in (row.left, row.right):
        dims = _dims(arrays)
        known = named.union(filter(PLAIN.fullmatch, dims))
        unknown = [set(NAME.findall(dim)) - known for dim in dims]
        found.append(set[str]().union(*(letters for letters in unknown if len(letters) > 1)))
    return found


def _pieces(row: Row, text: str) -> int:
    """Return of how many pieces the axis consists that has a text as one or several of them."""
    dims = (dim.strip("()").split() for axes in _axes(row) for dim in DIM.findall(axes))
    return max((len(pieces) for pieces in dims if set(text.split()) <= {*pieces}), default=0)
