"""Lay out a Table for a file; where that does not fit, say what is wrong and what may be meant."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from convert import folding
from convert.errors import ConvertError, OpenFields, OpenLengths, option
from convert.files import open_checkpoint
from convert.files.base import Tensor
from convert.reading.parametrized import parametrized
from convert.reading.replicas import leading, replication
from convert.reading.spelling import out_of_modules
from convert.records import record
from specs.layout import Layout
from specs.lines import Misfit
from specs.matching import Matcher
from specs.sizes import LIKE, SizeError
from specs.table import Table, TableError
from specs.words import with_article

from .part import FEW, matching, part, places, without_training

OTHER_DEPTH = "the Table holds for one number of these blocks: derive it again from models with as many as the file has"
ONE_BLOCK = "numbers that count blocks: write {i} for them, or derive the table from models with two of everything"
SEVERAL = 3  # arrays of one block that are listed one by one
FIRST = 4  # names of a file that are listed where none is in the Table


class StateAlone(ConvertError):
    """A file, or the part of it that is taken, that is the state of an optimizer and has no weights."""

    def __init__(self, path: str, part: str | None):
        taken = part and option("weights", part.rstrip("/"))
        self.what = f"{path}: {taken} takes" if taken else f"{path}: is"
        self.what += " the state of an optimizer alone, and a Table reads weights"
        whose = "take" if taken else "convert the file of"
        super().__init__(f"{self.what}: {whose} the weights, --with-optimizer takes the state along")

    def compared(self) -> ConvertError:
        """Return the error for who compares two files."""
        remedy = "convert one file by --with-optimizer, and compare the states of two files of one side"
        return ConvertError(f"{self.what}: to compare states, {remedy}")


def like_shapes(table: Table, path: str | None, weights: str | None = None) -> dict[str, tuple[int, ...]] | None:
    """Return names and shapes of a checkpoint of a Table's right side, or of a part of it."""
    if path is None:
        return None
    with open_checkpoint(path) as reader:
        back = table.reverse()
        own = without_training(matching(out_of_modules(reader), weights, back), back)
        return {name: tensor.shape for name, tensor in own.sources.items()}


def replicas(table: Table, sources: Mapping[str, Tensor]) -> int:
    """Return the length of a leading axis of all arrays without which they fit a Table; 0 where there is none."""
    number = leading(sources.values())
    if not number or fits(table, {name: tensor.shape for name, tensor in sources.items()}):
        return 0
    return number if fits(table, {name: tensor.shape[1:] for name, tensor in sources.items()}) else 0


def fits(table: Table, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether arrays of these shapes fit a Table, for some lengths of the axes that they leave open."""
    try:
        table.layout(shapes)
    except SizeError:
        return True
    except TableError:
        return False
    return True


def lay_out(
    table: Table,
    path: str,
    sources: Mapping[str, Tensor],
    like: str | None,
    sizes: Mapping[str, int],
    like_weights: str | None = None,
    backwards: bool = False,
    prefix: str = "",
) -> Layout:
    """Lay out a Table for a file: errors name the file, fold names and offer the nearest ones.

    Args:
      table: as it is read here, from left to right. backwards: whether the file has it the other way round.
      prefix: where in the file the arrays lie.
    """
    its = like_shapes(table, like, like_weights)
    try:
        return table.layout({name: tensor.shape for name, tensor in sources.items()}, its, sizes)
    except Misfit as error:
        missing, unexpected = error.missing, error.unexpected
        if number := replicas(table, sources):
            raise ConvertError(f"{path}: {replication(number, f'fit {table.name}')}") from None
        if len(unexpected) == len(sources) and (found := places(table, missing, sources)):
            raise ConvertError(f"{path}: {_nested(table, found)}") from None
        turned = _strange(other := table.reverse(), sources)
        remedy = f"leave out {option('reverse')}" if backwards else f"add {option('reverse')}"
        if not turned and unexpected:
            what = f"its arrays are named as on the other side of {_called(table, path)}: {remedy}"
            raise ConvertError(f"{path}: {what}") from None
        if len(unexpected) == len(sources):
            if found := places(other, Matcher(other, sources).match().missing, sources):
                what = f"its arrays under {found[0]!r} are named as on the other side of {_called(table, path)}"
                raise ConvertError(f"{path}: {what}: {remedy}") from None
            if _are_state(path, prefix or None):
                raise StateAlone(path, prefix) from None
        if its and _strange(table, its) < _strange(table.reverse(), its):
            what = f"its arrays are named as those of {path}: give a file of the other side of {table.name}"
            raise ConvertError(f"{like}: {what}") from None
        if its and not unexpected and (shared := len(its) - _strange(other, its)) < FEW * len(its):
            assert like
            if _are_state(like, like_weights):
                raise StateAlone(like, like_weights) from None
            what = f"{shared} of {len(its)} names are on that side of {table.name}: another model?"
            names = [] if shared else list(_first_names(its, _made(table)))
            raise ConvertError(f"{like}: {what}", names) from None
        misfits = [line.replace(LIKE, like or LIKE) for line in folding.misfits(error.misfits)]
        problems = [*folding.missing(missing, unexpected), *misfits]
        drop = "" if missing or misfits else "drop <- {}" if backwards else "{} -> drop"
        problems += _strangers(unexpected, missing, table, drop)
        problems[:0] = filter(None, [parametrized(unexpected)])
        fit, fit_turned = (len(sources) - strangers for strangers in (len(unexpected), turned))
        few = FEW * len(sources)
        if fit_turned > fit and fit_turned >= few:
            problems.insert(0, f"its arrays are named as on the table's other side: {remedy}")
        elif max(fit + _of_other_blocks(unexpected, table), fit_turned) < few:
            what = f"{fit} of {len(sources)} names are in this Table: another model?{_architecture(path)}"
            known = list(filter(None, [parametrized(unexpected)]))
            problems = [what, *problems] if fit else [what, *known, *_first_names(sources, missing)]
        where = f", under {prefix!r}" if prefix else ""
        what = f"does not fit {_called(table, path)}, read from {_direction(table)}{where}"
        raise ConvertError(f"{path}: {what}", problems) from None
    except SizeError as error:
        message = _said(error, table, path).replace(LIKE, like or LIKE)
        recorded = [*_its_own(path), *(_its_own(like) if like else ())]
        raise OpenLengths(f"{path}: {message}", [*error.problems, *recorded], error.enough) from None
    except TableError as error:
        raise ConvertError(f"{path}: {_said(error, table, path)}", error.problems) from None


def _its_own(path: str) -> Iterator[str]:
    """Name the record of a file that a Table made: the Table in it states the lengths of this very file."""
    with suppress(ConvertError):
        its = record.at(path)
        if isinstance(its.content.get("table"), dict) and not its.change:
            yield f"the record of {path} has its Table, with these lengths: {option('table', its.file(path))}"


def _first_names(sources: Iterable[str], missing: Iterable[str]) -> list[str]:
    """List the first names of a file and of a Table that have nothing in common: each name would be a problem."""
    sides = {"the file's first names are": sources, "the Table's are": missing}
    return [f"{what} {', '.join(folding.fold(names)[:FIRST])}" for what, names in sides.items()]


def _made(table: Table) -> list[str]:
    """Return the names of a Table's right side, with its holes."""
    return [array.label for line in table.lines for array in line.right.arrays]


def _strange(table: Table, names: Iterable[str]) -> int:
    """Count the names that no line of a Table speaks of on its left side."""
    return len(Matcher(table, names).match().unexpected)


def _are_state(path: str, weights: str | None) -> bool:
    """Tell whether a part of a file is the state of an optimizer."""
    from convert.reading import optimizers

    with suppress(ConvertError), open_checkpoint(path) as reader:  # there may be the states of several optimizers
        own = part(reader, weights).sources.values()
        return optimizers.state_names(reader).issuperset(tensor.name for tensor in own)
    return False


def _architecture(path: str) -> str:
    """Say of which known architecture a file is; "" where it is of none."""
    from convert.plans.planning import plan

    try:
        with plan(path, sampled=True) as known:
            return f" ({path} is {with_article(known.architecture)} ({known.src}))"
    except OpenFields as error:
        return f" ({path} is {with_article(error.architecture)})"
    except ConvertError:
        return ""


def _called(table: Table, path: str) -> str:
    """Name a Table in a message on a file, which may hold the Table itself."""
    own = os.path.abspath(table.name) == os.path.abspath(path)
    return "the Table in its own record" if own else table.name


def _said(error: TableError, table: Table, path: str) -> str:
    """Return an error's message, which begins with the Table's name, for the user of a file."""
    return error.message.replace(table.name, _called(table, path), 1)


LEVEL = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")  # a number in a name that may count blocks
LISTED = re.compile(r"\{\w+=\d[\d.|]*\}")  # numbers that a hole lists


def _nested(table: Table, places: list[str]) -> str:
    """Say under which places of a file all names lie that a Table reads, and the option that takes one."""
    where = ", and all under ".join(map(repr, places))
    return f"all names that {table.name} reads lie under {where}: {option('weights', places[0].rstrip('/'))}"


def _direction(table: Table) -> str:
    return f"{table.sides[0]} to {table.sides[1]}"


def _strangers(unexpected: list[str], missing: list[str], table: Table, drop: str) -> list[str]:
    """Return "X: no line speaks of it (nearest: line 7, ...)" for each name, with advice where numbers alone differ.

    Args:
      missing: what lines need and the file lacks: a name is near to no other line.
      drop: a line that drops an array; "" where a wrong name is the likelier cause.
    """
    labels = {array.label: line.number for line in table.lines for array in line.left.arrays}
    alike = _fixed(labels)
    forms = Counter(map(_level_numbers, labels))
    lines, groups, advice = list[str](), dict[str, list[str]](), dict[str, None]()
    blocks: dict[str, list[tuple[list[str], list[str]]]] = {}
    for name in unexpected:
        groups.setdefault(_level_numbers(name), []).append(name)
    for label, names in [(alike[form], groups.pop(form)) for form in list(groups) if form in alike]:
        why = f"line {labels[label]}, {label}, has other numbers"
        own = [f"{name}: no line speaks of it ({why})" for name in folding.fold(names)]
        blocks.setdefault(_block(label), []).append((names, own))
        several = forms[_level_numbers(label)] > 1 or LISTED.search(label)
        advice[OTHER_DEPTH if several else ONE_BLOCK] = None
    for block, arrays in blocks.items():
        names = [name for some, _ in arrays for name in some]
        known = ", ".join(folding.fold(dict.fromkeys(map(_block, names))))
        what = f"{known}: no line speaks of these blocks, {len(names)} arrays (the table has {block} alone)"
        lines += [what] if len(arrays) > SEVERAL else [line for _, own in arrays for line in own]
    others = folding.fold(name for names in groups.values() for name in names)
    near = folding.nearest(others, [label for label in labels if label in missing])
    for name in others:
        where = f" (nearest: line {labels[near[name]]}, {near[name]})" if name in near else ""
        lines.append(f"{name}: no line speaks of it{where}")
    if others and drop:
        example = next(reversed(groups.values()))[-1]
        lines[-1] += f": if the other side needs none, the line {drop.format(example)} leaves it out"
    return [*folding.capped(lines, "arrays without a line"), *advice]


def _fixed(labels: Iterable[str]) -> dict[str, str]:
    """Return {a name of a Table with # for its numbers: the name}, of names with numbers that count nothing."""
    plain = ((label, re.sub(r"\{[^}]*\}", "", label)) for label in labels)
    return {_level_numbers(label): label for label, rest in plain if LISTED.search(label) or LEVEL.search(rest)}


def _of_other_blocks(unexpected: Iterable[str], table: Table) -> int:
    """Count the names that differ from a Table's in numbers alone, as of a model with more blocks."""
    fixed = _fixed(array.label for line in table.lines for array in line.left.arrays)
    return sum(_level_numbers(name) in fixed for name in unexpected)


def _block(name: str) -> str:
    """Return a name up to its first level that is a number: "encoder.0" of "encoder.0.norm.weight"."""
    first = LEVEL.search(name)
    return name[: first.end()] if first else name


def _level_numbers(name: str) -> str:
    """Return a name with each level that is a number, or counts, as #: "layers/{i}/ln1" is "layers/#/ln1"."""
    return LEVEL.sub("#", re.sub(r"\{[^}=]*\}", "0", LISTED.sub("0", name)))
