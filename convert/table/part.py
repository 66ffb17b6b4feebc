"""Take from a file the arrays that match a Table's lines, under the Table's names.

The names in a file decide: a part of it, training state and copies of weights beside the model, another spelling.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from convert import folding
from convert.errors import ConvertError, UsageError, option
from convert.files.base import Reader, Tensor, meant
from convert.reading.named_copies import COUNTS, SETTINGS, copies
from convert.reading.nesting import (
    LONGEST,
    WRAPPERS,
    chosen,
    cuts,
    has_word,
    is_training,
    label,
    rank,
    training,
    training_state,
    unclear,
    unwrapped,
)
from convert.reading.spelling import Respelled, respelled
from specs.solving.matching import Found, Matcher
from specs.table import Table
from specs.words import count

RNG_STATE = (
    r"(?:^|/)rngs/(?:\w+/)?(?:key|count)(?:/(?:raw_)?value)?$"  # of nnx: a stream's key, and how often it was drawn
)
PLACES = 8  # that are tried: of a training checkpoint, weights and their averages
TRIED = 8  # missing names whose places are looked at: some may be missing everywhere
FEW = 0.5  # least share of names that a respelling must match


class TablePart(NamedTuple):
    """What a Table is applied to.

    Args:
      reader: the file, under the names that it is read by.
      prefix: where in the file the arrays lie, "" for its root.
      sources: the arrays by the name that the Table has for them.
      taken: names in the file that are set aside as a note says, since they are training state or a copy.
      notes: on how the names are read, and what is set aside.
    """

    reader: Reader
    prefix: str
    sources: dict[str, Tensor]
    taken: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def without(self, names: Iterable[str]) -> TablePart:
        """Return the same without arrays of these names in the file, which something else converts."""
        gone = frozenset(names)
        return self._replace(sources={name: t for name, t in self.sources.items() if t.name not in gone})


def part(reader: Reader, weights: str | None) -> TablePart:
    """Return the arrays that lie in one part of a file; all of them where `weights` is None.

    Raises: UsageError where nothing lies there, or several parts may be meant.
    """
    prefix, *others = chosen(reader.tensors, weights)
    if weights and others:
        raise unclear(reader.path, weights, [prefix, *others])
    own = _inside(reader, prefix)
    if not own.sources and weights:
        from specs.words import unknown

        folders = sorted({name.rpartition("/")[0] for name in reader.tensors if "/" in name})
        tops = sorted({name.partition("/")[0] for name in folders})
        root = f"{option('weights', '/')} is all of it, where another file needs a part"
        holds = f" (it holds {folding.listed(tops)})" if tops else f"; its arrays are in no part, and {root}"
        raise UsageError(f"{reader.path}: {option('weights', weights)}: {unknown(weights, [*tops, *folders])}{holds}")
    return own


def _inside(reader: Reader, prefix: str) -> TablePart:
    """Return the arrays whose names begin with a prefix, without it."""
    inside = {name.removeprefix(prefix): t for name, t in reader.tensors.items() if name.startswith(prefix)}
    bits = reader.format == "pdparams"
    sources = {n: tensor._replace(dtype=meant(tensor.dtype)) if bits else tensor for n, tensor in inside.items()}
    return TablePart(reader, prefix, sources)


def matching(reader: Reader, weights: str | None, table: Table) -> TablePart:
    """Return the part of a file that matches a Table's lines, under the Table's names.

    Names that the Table has are taken as they are. Where it has none of them, or others have wrappers, other names are
    tried: below the one place of the weights in a training checkpoint, those of a copy in their place, other spellings.
    """
    try:
        own = part(reader, weights)
    except UsageError:
        if other := _by_other_spelling(reader, weights, table):
            return other
        raise
    matched = _matched_names(table, own.sources)
    if weights is None and not matched and (below := _below_one_place(reader, table, own)):
        return below
    if matched and all(unwrapped(name) == name for name in own.sources.keys() - matched):
        return own
    return (_under_table_root(own, table) if weights else None) or _by_other_spelling(reader, weights, table) or own


def _matched_names(table: Table, names: Iterable[str]) -> set[str]:
    """Return the names that match some line of a Table."""
    every = list(names)
    return set(every) - set(Matcher(table, every).match().unexpected)


def _tops(table: Table) -> list[str]:
    """Return the first levels of a Table's names that have no holes, as "params/"."""
    heads = (array.label.partition("/") for line in table.lines for array in line.left.arrays)
    return list(dict.fromkeys(f"{head}/" for head, slash, _ in heads if slash and "{" not in head))


def places(table: Table, missing: list[str], sources: Collection[str]) -> list[str]:
    """Return the places, as "model/", under each of which a file has every array that a Table reads, and no other.

    Weights come before copies of them.
    """
    matches = _matches_below(table, missing[:1], sources)
    whole = [place for place, (_, m) in matches.items() if not (m.missing or m.unexpected or m.problems)]
    return sorted(whole, key=rank)


def _matches_below(table: Table, missing: list[str], sources: Collection[str]) -> dict[str, tuple[int, Found]]:
    """Match a Table with what lies below each place in which a file has one of the names that are missing.

    Moments in the state of an optimizer, which have the names of the weights, are no such place.
    Returns: place -> how many arrays lie there, without training state, and what of them matches.
    """
    prefixes = dict[str, None]()
    for name in missing:
        label = ".+".join(map(re.escape, re.split(r"\{[^}]*\}", name)))
        ends = (re.fullmatch(rf"(.*[/.]){label}", name[:LONGEST]) for name in sources)
        prefixes |= dict.fromkeys(end[1] for end in ends if end and not is_training(end[1]))
    inside = {
        place: [rest for name in sources if name.startswith(place) and not training(rest := name[len(place) :])]
        for place in list(prefixes)[:PLACES]
    }
    return {place: (len(below), Matcher(table, below).match()) for place, below in inside.items()}


def _below_one_place(reader: Reader, table: Table, own: TablePart) -> TablePart | None:
    """Return the part with the arrays that a Table reads, of a file that has one such place and copies at most.

    A place with all of them and no other comes before one with most of them, or with others too, as of deeper models:
    what does not fit there is then an error.
    """
    missing = Matcher(table, own.sources).match().missing
    whole = [place for place in places(table, missing, own.sources) if not has_word(place)]
    most = (
        place
        for place, (count, match) in _matches_below(table, missing[:TRIED], own.sources).items()
        if not match.missing or max(len(match.unexpected), len(match.missing)) < FEW * count
    )
    live = whole or [place for place in most if not has_word(place)]
    if len(live) != 1 or _is_doubled(reader, live[0]):
        return None
    alone = all(name.startswith(live[0]) for name in reader.tensors)  # else what is set aside says what is taken
    what = "all names" if whole else "most names"
    notes = (f"{what} that {table.name} reads lie under {live[0]!r}",) if alone else ()
    return _inside(reader, live[0])._replace(notes=notes)


def _is_doubled(reader: Reader, place: str) -> bool:
    """Tell whether an array below a place lies above it as well, as `w` does in module.module.w and module.w."""
    inside = [name.removeprefix(place) for name in reader.tensors if name.startswith(place)]
    return any(place[:cut] + name in reader.tensors for cut in cuts(place) if cut < len(place) for name in inside)


def _under_table_root(own: TablePart, table: Table) -> TablePart | None:
    """Return a part under the container that the Table's names have: ema_params/ as params/, which is set aside.

    The arrays beside it stay: batch_stats/ is no part of either.
    """
    reader, prefix = own.reader, own.prefix
    outer = prefix[: prefix[:-1].rfind("/") + 1]
    for top in _tops(table):
        moved = {f"{top}{name}": tensor for name, tensor in own.sources.items()}
        if len(_matched_names(table, moved)) <= FEW * len(moved):
            continue
        place, beside = f"{outer}{top}", part(reader, outer or None).sources
        rest = {n: t for n, t in beside.items() if not t.name.startswith((place, prefix))}
        replaced = [name for name in reader.tensors if name.startswith(place) and place != prefix]
        used = _matched_names(table, rest)
        notes = [f"took the arrays under {prefix!r} as those that {table.name} has under {top!r}"]
        notes += [f"set aside {place} ({count(len(replaced), 'array')}), whose place they take"] if replaced else []
        notes += [f"took beside them, as they are: {', '.join(folding.fold(sorted(used)))}"] if used else []
        return TablePart(reader, outer, {**moved, **rest}, frozenset(replaced), tuple(notes))
    return None


def _by_other_spelling(reader: Reader, weights: str | None, table: Table) -> TablePart | None:
    """Return the part under the first other spelling of the file's names by which most of them match the Table.

    Without `weights`, a spelling by which the file has one place of the weights comes after those of the whole file.
    """
    others = list(spellings(reader, _tops(table)))
    for other in others:
        with contextlib.suppress(UsageError):
            taken = part(other, weights)
            if weights and not _matched_names(table, taken.sources):
                taken = _under_table_root(taken, table) or taken
            if len(_matched_names(table, taken.sources)) > FEW * sum(not training(name) for name in taken.sources):
                return taken
    below = (_below_one_place(other, table, part(other, None)) for other in others if weights is None)
    return next((taken for taken in below if taken), None)


def spellings(reader: Reader, tops: Sequence[str]) -> Iterator[Reader]:
    """Yield the file under other names for all arrays: with other marks between levels, and below one more level.

    Args:
      tops: these levels, as "params/".
    """
    wrappers = sorted({wrapper for name in reader.tensors for wrapper in re.findall(WRAPPERS, name)})
    remark = f"read without the wrappers in its names: {' '.join(wrappers)}"
    if (bare := _renamed(reader, unwrapped, remark)) is not None:
        reader = bare
        yield bare
    usual = respelled(reader)
    slashes = _renamed(usual, lambda name: name.replace(".", "/"), "read '.' in its names as /")
    dots = _renamed(usual, lambda name: name.replace("/", "."), "read '/' in its names as .")
    plain = [one for one in (usual, slashes, dots) if one is not None]
    yield from plain
    for top in tops:
        below = (_renamed(one, top.__add__, f"read its names below {top!r}, which they all lack") for one in plain)
        yield from (one for one in below if one is not None)


def _renamed(reader: Reader, rename: Callable[[str], str], remark: str) -> Reader | None:
    """Return a file under other names; None where that changes nothing, or two arrays would have one name."""
    names = {name: rename(name) for name in reader.tensors}
    if len(set(names.values())) < len(names) or all(old == new for old, new in names.items()):
        return None
    return Respelled(reader, names, [remark])


def without_training(own: TablePart, table: Table) -> TablePart:
    """Set aside arrays of a training checkpoint that are no part of the model, and that match no line.

    These are training state and copies of weights, by their names, in containers that have none of the model's arrays.
    """
    state = training_state(own.sources)
    names = [name for name in own.sources if name in state or has_word(name)]
    if not names:
        return own
    matched = _matched_names(table, own.sources)
    if not matched:
        return own
    own = _without_random(own, [name for name in names if name not in matched and re.search(RNG_STATE, name)])
    names = [name for name in names if name in own.sources]
    tops = {name.partition("/")[0] for name in matched}
    free = [name for name in names if name not in matched and name.partition("/")[0] not in tops]
    of_copies = {
        place: [name for name, weight in inside.items() if weight or name[len(place) :] in COUNTS | SETTINGS]
        for place, inside in copies(free, matched).items()
        if any(inside.values())
    }
    copied = {name for inside in of_copies.values() for name in inside}
    groups: dict[str, list[str]] = {}
    for name in free:
        if name not in copied and name in state:
            groups.setdefault(state[name], []).append(name)
    if not groups and not copied:
        return own
    notes = [_state_note(own, groups)] if groups else []
    notes += [_copy_note(own, place, inside) for place, inside in of_copies.items()]
    gone = copied.union(*groups.values())
    taken = frozenset(own.sources[name].name for name in gone)
    sources = {name: tensor for name, tensor in own.sources.items() if name not in gone}
    return own._replace(sources=sources, taken=own.taken | taken, notes=(*own.notes, *notes))


def _without_random(own: TablePart, names: list[str]) -> TablePart:
    """Set aside the state of random numbers that nnx keeps within the layers of a model, as those with dropout."""
    if not names:
        return own
    note = f"set aside {folding.summarised(names)} (nnx's state of random numbers)"
    taken = own.taken | {own.sources[name].name for name in names}
    sources = {name: tensor for name, tensor in own.sources.items() if name not in names}
    return own._replace(sources=sources, taken=taken, notes=(*own.notes, note))


def _state_note(own: TablePart, groups: Mapping[str, list[str]]) -> str:
    """Say what training state is set aside, and how that of the optimizer goes along."""
    from convert.reading import optimizers

    state = frozenset[str]()
    with contextlib.suppress(ConvertError):  # the states of several optimizers
        state = optimizers.state_names(own.reader)
    sizes = [
        f"{name} ({count(len(inside), 'array')})" if name.endswith("/") else name for name, inside in groups.items()
    ]
    among = any(own.sources[name].name in state for inside in groups.values() for name in inside)
    remedy = "; a conversion with --with-optimizer takes the optimizer's along" if among else ""
    return f"set aside the training state {', '.join(sizes)}{remedy}"


def _copy_note(own: TablePart, place: str, inside: list[str]) -> str:
    remedy = option("weights", label(own.prefix + place))
    return f"set aside {place} ({count(len(inside), 'array')}), a copy of the weights, which {remedy} takes"
