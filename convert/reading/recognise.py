"""List what a checkpoint may be, judged by its names: architecture, dialect and part of the file, likeliest first.

readings.py scores these candidates; plans/choosing.py tries them on shapes as well, and keeps why it rejects others.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import specs
from convert import folding
from convert.dialect_lines import DialectLine, lines_of
from convert.documents import document
from convert.errors import ConvertError, UsageError, called, command_or_call, option
from convert.files.base import Reader, shown
from specs.dialects import PORTS, beside
from specs.kinds import nnx_name, without_collection
from specs.notation.paths import normal
from specs.spec import Dialect
from specs.words import in_a_row, with_article

from .nesting import MAX_ARRAYS, unclear
from .own_names import own_names
from .readings import Ambiguous, Names, Reading, Which, strongest
from .spelling import state_name


def dialects(architecture: str) -> dict[str, Dialect]:
    """Return every dialect of an architecture, the ports' own first.

    Raises: ConvertError for a table with a fault of a page from outside; tests check those of the pages here.
    """
    if specs.folder(architecture) is not None:
        from convert.dialect_faults import check_dialects

        check_dialects(architecture)
    return {**PORTS, **specs.get(architecture).dialects}


def all_dialects() -> dict[str, list[str]]:
    """Return {dialect: architectures that have it}."""
    having: dict[str, list[str]] = {}
    for architecture in specs.names():
        for name in dialects(architecture):
            having.setdefault(name, []).append(architecture)
    return having


def known_dialect(name: str) -> str:
    """Return the name. Raises: UsageError with the nearest one."""
    from specs.words import unknown

    if name not in PORTS and name not in all_dialects():
        raise UsageError(f"{unknown(name, all_dialects())} (dialects: {', '.join(all_dialects())})")
    return name


Group = list[Reading] | ConvertError  # readings to try together, or why there are no others: an error stands last


def candidates(
    reader: Reader,
    dialect: str | None,
    hints: Mapping[str, Any],
    weights: str | None = None,
    architecture: str | None = None,
) -> Iterator[Group]:
    """Yield the best readings of a file by its names, in groups to try in turn.

    First those of the dialect in its record, or else of the framework whose format it is, then the others: frameworks
    may name arrays alike, and then only shapes decide. Where no shape can, all are one group.

    Args:
      dialect: restrict to it; None tries all.
      hints: "architecture" and "dialect" out of our own metadata.
      weights: the part that holds the model, e.g. "state_dict_ema"; "/" is the root of the file.
      architecture: restrict to it; None tries all.
    """
    among = [architecture] if architecture else specs.names()
    if dialect is not None and hints.get("dialect", dialect) != dialect:
        yield _recorded_otherwise(reader, dialect, str(hints["dialect"]))
        return
    names = Names(reader.tensors, weights)
    if weights and names.roots[1:]:
        yield unclear(reader.path, weights, names.roots)
        return
    tried: set[Which] = set()
    for some in _likely(reader, among, dialect, hints):  # most files need no other spec: none is imported
        readings = _readings(reader, names, some)
        if isinstance(readings, list) and readings and readings[0].score == 1:
            yield from _groups(reader, readings, hints, tried)
    if misfit := known_misfit(reader):
        yield misfit
        return
    readings = _readings(reader, names, _all(among, dialect))
    if isinstance(readings, Ambiguous):
        yield readings
    elif readings:
        yield from _groups(reader, readings, hints, tried)
    else:
        page = unknown_page(hints)
        problem = _nothing_fits(reader, names, dialect, weights, architecture)
        yield ConvertError(problem + (f"; its record {page}" if page else ""))


def _recorded_otherwise(reader: Reader, dialect: str, recorded: str) -> ConvertError:
    problem = f"its record says that it holds {shown(recorded)} arrays, not {dialect} ones"
    return ConvertError(f"{reader.path}: {problem}: name that dialect, or remove the record if it is wrong")


def _likely(
    reader: Reader, among: Sequence[str], dialect: str | None, hints: Mapping[str, Any]
) -> Iterator[list[Which]]:
    """Yield the dialects to try before all others, in growing lists."""
    guess = hints.get("architecture", specs.likely(reader.tensors))
    if guess not in among:
        return
    every = _all([guess], dialect)
    if not _square(reader):
        hinted = guess, hints.get("dialect")
        yield [c for c in every if c == hinted or _framework(*c) == USUAL.get(reader.format)]
    yield every


def _readings(reader: Reader, names: Names, which: Iterable[Which]) -> list[Reading] | Ambiguous:
    """Return the strongest readings among these dialects."""
    return strongest(reader.path, names.readings({one: spellings(*one) for one in which}))


def _groups(
    reader: Reader, readings: Iterable[Reading], hints: Mapping[str, Any], tried: set[Which]
) -> Iterator[list[Reading]]:
    """Yield readings that were not tried before: what the record says, or the format's usual framework first."""
    untried: dict[Which, Reading] = {}
    for reading in readings:
        if reading.which not in tried:
            untried.setdefault(reading.which, reading)
    tried.update(untried)
    if (hinted := (hints.get("architecture"), hints.get("dialect"))) in untried:
        yield [untried[hinted]]
        return
    square, usual = _square(reader), USUAL.get(reader.format)
    first = [reading for which, reading in untried.items() if _framework(*which) == usual and not square]
    rest = [reading for reading in untried.values() if reading not in first]
    yield from filter(None, (first, rest))


def nearest(reader: Reader, weights: str | None = None) -> Reading | None:
    """Return the reading that knows most of a file's names, however few; None where none knows any."""
    return _nearest(Names(reader.tensors, weights))


def _nearest(names: Names) -> Reading | None:
    readings = names.readings({which: spellings(*which) for which in _all(specs.names(), None)})
    return max(readings, key=lambda reading: reading.strength, default=None)


def _square(reader: Reader) -> bool:
    """Tell whether transposing its matrices would change no shape of a file."""
    return all(len(set(tensor.shape)) == 1 for tensor in reader.tensors.values() if len(tensor.shape) == 2)


NEAR = 0.5  # share of names, which recognition asks for as well: any model shares some, such as norm or head
# The framework whose users write a format.
USUAL = {"msgpack": "flax", "npz": "flax", "orbax": "flax", "torch": "torch", "dcp": "torch", "safetensors": "torch",
         "pdparams": "paddle"}  # fmt: skip


def _framework(architecture: str, dialect: str) -> str:
    return dialects(architecture)[dialect].framework


def _all(architectures: Iterable[str], dialect: str | None) -> list[Which]:
    """Return every (architecture, dialect) that a file may be of."""
    return [(a, name) for a in architectures for name in dialects(a) if dialect in (None, name)]


def known_misfit(reader: Reader) -> ConvertError | None:
    """Return why a file is refused whose family looks like a known one and is not; None for any other file."""
    for architecture in specs.names():
        for fragments, reason in specs.get(architecture).refused:
            if all(any(fragment in name for name in reader.tensors) for fragment in fragments):
                return ConvertError(f"{reader.path}: {reason}")
    return None


def unknown_page(hints: Mapping[str, Any]) -> str:
    """Say which architecture that is not here a record names, and the remedy: only the user may have its page loaded.

    Returns: what follows "its record"; "" where the record names no architecture, or a known one.
    """
    recorded = hints.get("architecture")
    if recorded is None or recorded in specs.names():
        return ""
    return f"names the architecture {shown(str(recorded))}, which needs a page of its own: add {option('spec', 'PAGE')}"


def _nothing_fits(
    reader: Reader, names: Names, dialect: str | None, weights: str | None, architecture: str | None
) -> str:
    if weights is not None and not names.forms:
        tops = sorted({name.split("/")[0] for name in reader.tensors if "/" in name})
        return f"{reader.path}: nothing known lies under {weights!r} (it holds {', '.join(tops) or 'no nesting'})"
    if optimizer := _optimizer_of_paddle(reader) or _optimizer_alone(reader, names.root):
        return f"{reader.path}: {optimizer}"
    if own := own_names(reader.tensors):
        return f"{reader.path}: {own}"
    if not reader.tensors:
        return f"{reader.path}: holds no arrays"
    if len(names.below(names.root)) > MAX_ARRAYS:
        count = f"holds {len(reader.tensors):,} arrays"
        return f"{reader.path}: {count}: no model known here has over {MAX_ARRAYS:,}"
    others = _readings(reader, names, _all(specs.names(), None)) if dialect else []
    if dialect and isinstance(others, list) and others:
        best, size = others[0], len(others[0].tensors)
        where = f" under {best.prefix!r}" if best.prefix else ""
        known = f"{round(best.score * size)} of {size}{where} are known in {best.dialect} ({best.architecture})"
        return f"{reader.path}: its names are not those of dialect {_having(dialect)}: {known}"
    what = f"not those of {architecture}" if architecture else "those of no architecture known here"
    what = f"not those of dialect {_having(dialect)}" if dialect else what
    first = ", ".join(
        [state_name(reader.stored_name(name)) for name in reader.tensors if name.startswith(names.root)][:3]
    )
    remedy = "" if dialect or architecture else f" ({called('ports')} lists them)"
    called_so = with_article(reader.called)
    near = nearest(reader, weights)
    distant = f"; {_in_lower_case(reader, weights) or for_own_models()}" if near is None or near.score < NEAR else ""
    listed = "its first names are" if len(reader.tensors) > 1 else "its one array is"
    if all(name.isdigit() for name in reader.tensors):
        distant = (
            "; a list of arrays does not say which is which: save them by name, as in torch.save(model.state_dict())"
        )
    return f"{reader.path}: {called_so}, but its names are {what}{remedy}; {listed} {first}{distant}"


def _having(dialect: str) -> str:
    """Name a dialect with the architectures that have it, and the way to add another."""
    pages = all_dialects().get(dialect, [])
    more = f"{option('spec', 'PAGE')} adds another architecture's"
    return dialect if dialect in PORTS else f"{dialect} (of {in_a_row(pages)}; {more})"


def far(reader: Reader, weights: str | None = None) -> str:
    """Say what converts a file of a model that no architecture known here comes near to."""
    near = _in_lower_case(reader, weights)
    return (
        near or f"its names are those of no architecture known here ({called('ports')} lists them): {for_own_models()}"
    )


def for_own_models() -> str:
    """Say what converts a model of the user's own."""
    table, page = document("own-model"), document("own-architecture")
    return f"a Table converts models of one's own ({table}), {option('spec', 'PAGE')} adds an architecture ({page})"


def _in_lower_case(reader: Reader, weights: str | None) -> str:
    """Say which architecture has most of a file's names once they are in lower case; "" if none has."""
    tensors = {name.lower(): tensor for name, tensor in reader.tensors.items()}
    if tensors.keys() == reader.tensors.keys() or len(tensors) < len(reader.tensors):
        return ""
    near = _nearest(Names(tensors, weights and weights.lower()))
    if near is None or near.score < NEAR:
        return ""
    size = len(near.tensors)
    known = f"all {size} names" if near.score == 1 else f"{round(near.score * size)} of its {size} names"
    share = f"{known} are those of {near.architecture} ({near.dialect})"
    return f"in lower case, {share}: rename its arrays, and save it again"


def _optimizer_of_paddle(reader: Reader) -> str:
    """Say that a file is what paddle saves of an optimizer, and which file has the model; "" for any other file."""
    if reader.format != "pdparams":
        return ""
    from .optimizers import PADDLE

    others = [name for name in reader.tensors if not PADDLE.fullmatch(name)]
    if 2 * len(others) >= len(reader.tensors):
        return ""
    if own := [name for name in others if reader.tensors[name].shape and "/" not in name]:  # no master_weights/...
        what = f"{folding.listed(own)} are the model's: save both apart, as paddle.save({{name: array}}, ...)"
        return f"most of its arrays are the state of an optimizer of paddle; {what}"
    beside = f"{os.path.splitext(reader.path)[0]}.pdparams"
    there = beside != reader.path and os.path.exists(beside)
    model = f"its model is {beside}, beside it" if there else "its model is in another file, saved apart"
    also = "" if there else f" --optimizer {reader.path}"
    command = f": give that file to convert, with --with-optimizer{also} for both"
    return f"this is the state of an optimizer of paddle; {model}{command_or_call(command, '')}"


def _optimizer_alone(reader: Reader, root: str) -> str:
    """Say that a part of a file of torch or JAX is the state of an optimizer and nothing else; "" for any other."""
    from .optimizers import state_of

    if not state_of(reader, root):
        return ""
    if not all(name.startswith(root) for name in reader.tensors):
        remedy = f"leave out {option('weights', root.rstrip('/'))}"
        along = command_or_call("; --with-optimizer takes it along with the weights", "")
        return f"{root!r} is the state of an optimizer alone: {remedy}{along}"
    command = f": give that file to convert, with --with-optimizer --optimizer {reader.path} for both"
    return f"this is the state of an optimizer alone; the weights are in another file{command_or_call(command, '')}"


@cache
def lines(architecture: str, dialect: str) -> dict[str, list[DialectLine]]:
    """Return {normal(their name): lines} of one dialect of an architecture."""
    return lines_of(specs.get(architecture), dialects(architecture)[dialect])


@cache
def spellings(architecture: str, dialect: str) -> Mapping[str, str]:
    """Map every name that a dialect's file may hold, numbers aside, to the name that the dialect's table has."""
    twins = specs.get(architecture).tiny.values()
    others = [one for config in twins for one in beside(dialects(architecture)[dialect], config)]
    forms = {*lines(architecture, dialect), *(normal(one.name) for one in others)}
    in_nnx = {other: form for form in forms for other in _in_nnx(form)}
    return {**in_nnx, **{form: form for form in forms}}


def _in_nnx(form: str) -> Iterator[str]:
    """Yield the names of a linen array in an nnx module: without collection, lists joined to numbers or apart."""
    if without_collection(form) != form:
        yield nnx_name(form, lists=False)
        yield nnx_name(form, lists=True)
