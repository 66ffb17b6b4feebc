"""Convert by a Table: any model's checkpoint, without an architecture, planned from names and shapes alone.

plan = convert.by_table.plan("bert.safetensors", "bert.table")
plan.write("bert.msgpack")
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from specs.layout import Entry, Equal, Layout, kind
from specs.lines import Misfit
from specs.matching import Matcher
from specs.paths import normal
from specs.sizes import LIKE, SizeError
from specs.table import Table, TableError

from . import folding, record
from .casting import FLOATS
from .errors import ConvertError, UsageError, option
from .files import is_named_as_checkpoint, open_checkpoint
from .files.base import PADDLE_BFLOAT16, Reader, Tensor, meant
from .readings import LONGEST, chosen, unclear
from .spelling import out_of_modules
from .steps import EARLIER, Promise, Step, step, supplied

UNFINISHED = "# incomplete:"  # begins the comment of a derived Table that lacks lines


@dataclass(frozen=True)
class TablePlan:
    """Everything a conversion by a Table will do. A context manager that closes the source.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      sources: the arrays of the source by name. prefix: where in the source they lie, "" for its root.
      aside: arrays of the source outside of `prefix`. remarks: what is wrong with the source's record.
    """

    reader: Reader
    table: Table
    backwards: bool
    layout: Layout
    steps: tuple[Step, ...]
    sources: dict[str, Tensor]
    checks: tuple[Promise, ...]
    prefix: str
    aside: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    earlier: frozenset[str] = frozenset()  # arrays of the file that an earlier conversion supplied
    accounted: frozenset[str] = frozenset()  # arrays and entries of the file that something beside this plan converts

    @property
    def parameters(self) -> int:
        """Elements of the target."""
        return sum(tensor.size for tensor, _ in self.steps)

    def notes(self) -> list[str]:
        """Return what the user should know and need not act on."""
        facts = (
            (f"took the arrays under {self.prefix!r}; set aside", self.aside),
            ("dropped, as the table says", self.layout.dropped),
            ("dropped in part, as the table says", self.layout.cut),
            ("tied and not in the file", self.layout.absent),
            ("added into one array, and not to be told apart again", self.layout.sums),
            ("zeros, as a sum's other term", self.layout.zeroed),
            ("zeros in the part that the table drops", self.layout.blank),
            ("constants of the table", self.layout.constants),
            (
                "constants of the table, which only this side stores: compared before anything is written",
                [check.name for check in self.checks if not check.other],
            ),
            *self._other_dtypes(),
            (
                EARLIER,
                [name for name in self.reader.tensors if name in self.earlier],
            ),
            ("uint16, read as the bfloat16 that paddle stores so", self._bits()),
        )
        lines = (f"{what}: {', '.join(folding.fold(names))}" for what, names in facts if names)
        skipped = folding.skipped(self.reader.skipped.without(self.accounted), self.prefix.rstrip("/"))
        return [*self.remarks, *lines, *(f"set aside, {line}" for line in skipped)]

    def _other_dtypes(self) -> Iterator[tuple[str, list[str]]]:
        """Yield what the table states of constants of this side, and those that have another dtype of that kind."""
        stated = {check.name: check.dtype for check in self.layout.checks if check.dtype}
        for dtype in dict.fromkeys(stated.values()):
            names = [name for name, one in stated.items() if one == dtype != self.sources[name].dtype]
            yield f"of another dtype than {dtype}, which the table states", names

    def _bits(self) -> list[str]:
        """Return arrays whose dtype in the file is uint16, and bfloat16 here."""
        stored = {t.name for t in self.reader.tensors.values() if t.dtype == PADDLE_BFLOAT16}
        return [t.name for t in self.sources.values() if t.name in stored and t.dtype != PADDLE_BFLOAT16]

    @property
    def supplied(self) -> tuple[str, ...]:
        """Target tensors with values that the file does not state: the record of the target marks them."""
        return supplied(self.steps, self.sources, self.earlier)

    @property
    def tree(self) -> None:
        """Return None: weights are nested by their names alone."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the facts of the record that are known before any payload is read."""
        original = self.table.reverse() if self.backwards else self.table
        return {
            "table": {
                "file": os.path.basename(self.table.name),
                "from": self.table.sides[0],
                "to": self.table.sides[1],
                "reversed": self.backwards,
                "text": str(original),
            },
            "notes": self.notes(),
            **({"supplied": list(self.supplied)} if self.supplied else {}),
            "parameters": self.parameters,
            "source": {
                "file": os.path.basename(os.path.abspath(self.reader.path)),
                "sha256": None,  # hashed while the plan is executed
                "format": self.reader.format,
            },
            "tool": record.TOOL_VERSION,
        }

    def write(self, out: str | os.PathLike[str], force: bool = False, **options: Any) -> dict[str, Any]:
        """Write the target and return the record that travels with it; see `execute` for the options."""
        from .execute import write

        return write(self, out, force, **options)

    def close(self) -> None:
        self.reader.close()

    def __enter__(self) -> TablePlan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def length(text: str) -> tuple[str, int]:
    """Parse the length of an axis: "h=12" -> ("h", 12)."""
    name, _, number = text.partition("=")
    if not re.fullmatch(r"\d{1,15}", number, re.ASCII):
        raise UsageError(f"--set {text}: with --table, write an axis and its length, as in h=12")
    return name, int(number)


def load(path: str) -> Table:
    """Read a Table: its own file, the record of a conversion by one, or what `derive --json` prints.

    Raises: ConvertError.
    """
    try:
        return Table.load(path, _recorded(path))
    except TableError as error:
        raise ConvertError(error.message, error.problems) from None


def _recorded(path: str) -> str | None:
    """Return the text of the Table in a record, the .json beside a checkpoint or inside it; None for other files.

    Raises: ConvertError for a record without a Table, or one that was changed.
    """
    if (not path.endswith(".json") and not is_named_as_checkpoint(path)) or not os.path.exists(path):
        return None
    its = record.at(path)
    table = its.content.get("table")
    if isinstance(table, str):  # of `derive --json`, which has no hash of itself
        return table
    text = table.get("text") if isinstance(table, dict) else None
    if not isinstance(text, str):
        raise ConvertError(f"{path}: contains no Table, as the record of a conversion by a Table does (docs/table.md)")
    if its.damage:
        raise ConvertError(f"{path}: its record {its.damage}: save its Table as a file of its own, and look at it")
    return text


def plan(
    path: str,
    table: str | Table,
    backwards: bool = False,
    like: str | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str | None = None,
    weights: str | None = None,
    apart: Callable[[Reader, Callable[[], frozenset[str]]], frozenset[str]] | None = None,
    like_weights: str | None = None,
) -> TablePlan:
    """Plan a conversion by a Table.

    Args:
      path: source checkpoint, any format. table: its file, or the Table.
      backwards: read the table from right to left.
      like: a checkpoint of the other side, whose names and shapes the target has to have.
      sizes: lengths of axes that shapes leave open.
      dtype: dtype of the target's floating-point tensors; None keeps the source's.
      weights: take only the arrays nested there.
      apart: names the arrays and entries that something beside this plan converts: the state of an optimizer. Called
        with what names the arrays that no line of the table speaks of.
      like_weights: the part of `like` that has those names; None takes all of it.
    Raises: ConvertError that lists everything that does not fit; UsageError for open axes.
    """
    if dtype is not None and dtype not in FLOATS:
        raise UsageError(f"no dtype {dtype!r}: one of {', '.join(FLOATS)}")
    given = load(table) if isinstance(table, str) else table
    _check_complete(given)
    lines = given.reverse() if backwards else given
    stored = open_checkpoint(path)
    reader = out_of_modules(stored)
    try:
        prefix, sources = part(reader, weights)
        accounted = apart(reader, lambda: _unused(lines, reader, sources)) if apart else frozenset[str]()
        sources = {name: tensor for name, tensor in sources.items() if tensor.name not in accounted}
        layout = lay_out(lines, path, sources, like, sizes or {}, like_weights)
        steps = tuple(_step(entry, sources, dtype, path) for entry in layout.entries)
        checks = tuple(_promise(check, sources, path, lines) for check in layout.checks)
        aside = tuple(name for name in reader.tensors if not name.startswith(prefix) and name not in accounted)
        its = record.read(stored)
        remarks = (*(note for note in reader.remarks if note not in stored.remarks), *_remarks(its))
        return TablePlan(
            reader, lines, backwards, layout, steps, sources, checks, prefix, aside,
            remarks=remarks, earlier=its.supplied, accounted=accounted,
        )  # fmt: skip
    except BaseException:
        reader.close()
        raise


def _unused(table: Table, reader: Reader, sources: Mapping[str, Tensor]) -> frozenset[str]:
    """Return the file's arrays that no line of a table speaks of, or that lie outside of the part that is read."""
    used = sources.keys() - set(Matcher(table, sources).match().unexpected)
    return frozenset(reader.tensors.keys() - {sources[name].name for name in used})


def _check_complete(table: Table) -> None:
    """Check that a Table does not say that it was derived in part. Raises: ConvertError."""
    above = table.lines[0].above if table.lines else ()
    if any(comment.startswith(UNFINISHED) for comment in above):
        missing = [comment.removeprefix("# ") for comment in above if comment.startswith("# missing: ")]
        raise ConvertError(
            f"{table.name}: is incomplete: add lines, and remove the comment that begins with {UNFINISHED!r}", missing
        )


def _remarks(its: record.Record) -> tuple[str, ...]:
    """Return what is wrong with the source's record, which is not used for anything else."""
    problems = (its.damage, its.change and f"no longer fits the file, {its.change}")
    return tuple(f"{its.place} {problem}: it is ignored" for problem in problems if problem)


def shapes(path: str | None, weights: str | None = None) -> dict[str, tuple[int, ...]] | None:
    """Return names and shapes of a checkpoint, or of a part of it."""
    if path is None:
        return None
    with open_checkpoint(path) as reader:
        return {name: tensor.shape for name, tensor in part(out_of_modules(reader), weights)[1].items()}


def part(reader: Reader, weights: str | None) -> tuple[str, dict[str, Tensor]]:
    """Return where a file's arrays are taken from, and the arrays by the name that they have there."""
    prefix, *others = chosen(reader.tensors, weights)
    if weights and others:
        raise unclear(reader.path, weights, [prefix, *others])
    inside = {name.removeprefix(prefix): t for name, t in reader.tensors.items() if name.startswith(prefix)}
    if not inside and weights:
        from specs.config import unknown

        folders = sorted({name.rpartition("/")[0] for name in reader.tensors if "/" in name})
        raise UsageError(f"{reader.path}: {option('weights', weights)}: {unknown(weights, folders)}")
    bits = reader.format == "pdparams"
    return prefix, {
        name: tensor._replace(dtype=meant(tensor.dtype)) if bits else tensor for name, tensor in inside.items()
    }


def lay_out(
    table: Table,
    path: str,
    sources: Mapping[str, Tensor],
    like: str | None,
    sizes: Mapping[str, int],
    like_weights: str | None = None,
) -> Layout:
    """Lay out a Table for a file: errors name the file, fold names and offer the nearest ones."""
    try:
        return table.layout({name: tensor.shape for name, tensor in sources.items()}, shapes(like, like_weights), sizes)
    except Misfit as error:
        missing, unexpected = error.missing, error.unexpected
        if len(unexpected) == len(sources) and (places := _places(table, missing, sources)):
            raise ConvertError(f"{path}: {_nested(table, places)}") from None
        misfits = [line.replace(LIKE, like or LIKE) for line in folding.misfits(error.misfits)]
        problems = [*folding.missing(missing, unexpected), *misfits]
        problems += _strangers(unexpected, table)
        if unexpected and len(Matcher(table.reverse(), sources).match().unexpected) < len(unexpected):
            remedy = f"{option('reverse')} reads it from there"
            problems.insert(0, f"its arrays are named as on the table's other side: {remedy}")
        raise ConvertError(f"{path}: does not fit {table.name}, read from {_direction(table)}", problems) from None
    except SizeError as error:
        raise UsageError(f"{path}: {error.message}", error.problems) from None
    except TableError as error:
        raise ConvertError(f"{path}: {error.message}", error.problems) from None


PLACES = 8  # that are tried: of a training checkpoint, weights and their averages


def _places(table: Table, missing: list[str], sources: Mapping[str, Tensor]) -> list[str]:
    """Return the places, as "model/", under each of which a file has every array that a Table reads, and no other."""
    if not missing:
        return []
    label = ".+".join(map(re.escape, re.split(r"\{[^}]*\}", missing[0])))
    ends = [found for name in sources if (found := re.fullmatch(rf"(.*[/.]){label}", name[:LONGEST]))]
    places = list(dict.fromkeys(end[1] for end in ends))[:PLACES]
    inside = {place: {n.removeprefix(place): t for n, t in sources.items() if n.startswith(place)} for place in places}
    matches = {place: Matcher(table, below).match() for place, below in inside.items()}
    return [place for place, match in matches.items() if not (match.missing or match.unexpected or match.problems)]


def _nested(table: Table, places: list[str]) -> str:
    """Say under which places of a file all names lie that a Table reads, and the option that takes one."""
    where = ", and all under ".join(map(repr, places))
    return f"all names that {table.name} reads lie under {where}: {option('weights', places[0].rstrip('/'))}"


def _direction(table: Table) -> str:
    return f"{table.sides[0]} to {table.sides[1]}"


def _strangers(unexpected: list[str], table: Table) -> list[str]:
    """Return "X: no line speaks of it (nearest: line 7, ...)" for each name, with advice where numbers alone differ."""
    from difflib import get_close_matches

    labels = {array.label: line.number for line in table.lines for array in line.left.arrays}
    alike = {
        normal(re.sub(r"\{[^}=]*\}", "0", label)): label
        for label in labels
        if re.search(r"\d", re.sub(r"\{[^}]*\}", "", label))
    }
    lines, groups = [], dict[str, list[str]]()
    for name in unexpected:
        groups.setdefault(normal(name), []).append(name)
    for label, names in [(alike[form], groups.pop(form)) for form in list(groups) if form in alike]:
        why = f"line {labels[label]}, {label}, has other numbers"
        lines += [f"{name}: no line speaks of it ({why})" for name in folding.fold(names)]
    advice = ["numbers that count blocks: write {i} for them, or derive the table from models with two of everything"]
    advice = advice if lines else []
    for name in folding.fold(name for names in groups.values() for name in names):
        near = get_close_matches(name, list(labels)[:500], n=1, cutoff=0.5)
        lines.append(
            f"{name}: no line speaks of it" + (f" (nearest: line {labels[near[0]]}, {near[0]})" if near else "")
        )
    return [*folding.capped(lines, "arrays without a line"), *advice]


def _step(entry: Entry, sources: Mapping[str, Tensor], dtype: str | None, path: str) -> Step:
    try:
        return step(entry, sources, dtype)
    except ValueError as error:
        raise ConvertError(f"{path}: {error}") from None


def _promise(check: Equal, sources: Mapping[str, Tensor], path: str, table: Table) -> Promise:
    dtypes = {sources[name].dtype for name in (check.name, check.other) if name}
    if len(dtypes) > 1:
        raise ConvertError(f"{path}: {check.name} and {check.other} are tied, and have dtypes {' and '.join(dtypes)}")
    where = f"{table.name}:{check.line.number}"
    own = dtypes.pop()
    if check.dtype and kind(own) != kind(check.dtype):
        raise ConvertError(f"{path}: {check.name} has dtype {own}, and {where} says that it is {check.dtype}")
    return Promise(check.name, check.parts, check.other, check.others, check.value, where)
