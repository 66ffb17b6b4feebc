"""Parse, load and save Tables. What a line consists of is parsed by paths.py (names, holes) and axes.py."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Integral

from .axes import parse_axes
from .dtype_kinds import SIGNIFICANT, misfit
from .line_checks import check_line
from .lines import MAX_LINE, MAX_ORDER, MAX_ORDER_TEXT, MAX_TEXT, VERSION, Constant, Line, Lines, Side, TableError
from .paths import parse_path
from .signature import Signature

HEADER = r"table\s+(\d{1,9})(?:\s*:\s*(\S+)\s+<->\s+(\S+))?"
COMMENT = r"(?:^|(?<=\s))#.*$"
NUMBER = r"(?a:-?(?:\d{1,18}|\d{0,18}\.\d{1,18}|\d{1,18}\.)(?:e[+-]?\d{1,3})?)"
PATH = re.compile(r"(?:.*[^\\])?(?:\\\\)*:")  # its last colon is not part of the name
SCALAR = re.compile(PATH.pattern + ",")  # without axes, and with another array after it
ARROWS = ("<->", "<-", "->")
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
DROP = "drop"
REMEDY = "a table begins with the line: table 1"
RECORDED = "convert.table.file.load(PATH) reads the Table in a record (.json) or in a checkpoint that has one"


def parse(text: str, orders: Mapping[str, tuple[int, ...]], name: str) -> Lines:
    """Parse a Table; arguments and errors as in Table.parse."""
    if len(text) > MAX_TEXT:
        raise TableError(f"{name}: is over {MAX_TEXT >> 20} MB long: no table is")
    sides, lines, above, problems = None, [], [], []
    for number, written in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        content = re.sub(COMMENT, "", written[:MAX_LINE]).strip()
        comment = written.strip()[len(content) :].strip() if content else ""
        try:
            if len(written) > MAX_LINE:
                raise ValueError(f"is over {MAX_LINE:,} characters long")
            if not content:
                above += [written.strip()] if written.strip() else []
            elif sides is None:
                sides = header(content)
            else:
                line = parse_line(content)
                check_line(line)
                lines.append(
                    replace(line, number=number, above=tuple(above), comment=comment.removeprefix("#").strip())
                )
                above = []
        except ValueError as error:
            if sides is None:
                raise TableError(f"{name}:{number}: {error}") from None
            problems.append(f"line {number}: {error}")
    if sides is None:
        raise TableError(f"{name}: is empty: {REMEDY}")
    if problems:
        shown = problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])
        raise TableError(f"{name}: cannot be read as a table", shown)
    table = Lines(tuple(lines), sides, dict(orders), name, tuple(above))
    for line, order in named_orders(table):
        if order not in orders:
            raise TableError(f"{name}:{line.number}: [@{order}]: the numbers of this order are not given")
        if problem := not_an_order(orders[order]):
            raise TableError(f"{name}:{line.number}: [@{order}] {problem}")
    return table


def header(text: str) -> tuple[str, str]:
    """Return the names of the sides. Raises: ValueError where the text is no header of this version."""
    parsed = re.fullmatch(HEADER, text)
    if not parsed:
        raise ValueError(f"{text[:60]!r}: {REMEDY}")
    if int(parsed[1]) != VERSION:
        raise ValueError(f"is a table of version {int(parsed[1])}: this program reads version {VERSION}")
    return (parsed[2], parsed[3]) if parsed[2] else ("left", "right")


def parse_line(text: str) -> Line:
    """Parse "left arrays <-> right arrays". Raises: ValueError."""
    words = text.split()
    at = [k for k, word in enumerate(words) if word in ARROWS]
    if len(at) != 1:
        raise ValueError("write path: axes <-> path: axes, with one arrow between white space")
    sides = [_side(words[: at[0]]), _side(words[at[0] + 1 :])]
    return Line(sides[0], sides[1], words[at[0]])


def _side(words: list[str]) -> Side:
    if words in ([], [DROP]):
        return Side()
    arrays, joins, constant = list[Signature](), set(), None
    for join, group in _arrays(words):
        if join == "=" and not (group[0].endswith(":") or _ties(arrays, group)):
            constant = _constant(group)
        elif constant is not None:
            raise ValueError("nothing follows a constant")
        else:
            arrays.append(_array(group))
            joins |= {join} - {""}
    if len(joins) > 1:
        raise ValueError(f"one side joins its arrays in one way, not by {' and '.join(sorted(joins))}")
    if constant is not None and joins - {","}:
        raise ValueError("a constant is one array, or several with commas between")
    return Side(tuple(arrays), next(iter(joins), ","), constant)


def _ties(arrays: list[Signature], group: list[str]) -> bool:
    """Tell whether this is a name without axes that is tied to the first array, and no constant."""
    return arrays[0].axes is None and len(group) == 1 and not re.fullmatch(NUMBER, group[0])


def _arrays(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each array with what joins it to the one before."""
    join, group, depth = "", list[str](), 0
    for word in words:
        path = not group and join != "="  # a path may hold any sign
        depth += 0 if path else word.count("(") - word.count(")")
        if word in ("=", "+") and group and not depth:
            yield join, group
            join, group = word, []
        elif word.endswith(",") and not depth and (not path or SCALAR.fullmatch(word)):
            yield join, [*group, word[:-1]]
            join, group = ",", []
        else:
            group.append(word)
    if not group:
        raise ValueError(f"an array is missing after {join!r}")
    yield join, group


def _array(words: list[str]) -> Signature:
    path, *axes = words
    if PATH.fullmatch(path):
        return Signature(parse_path(path[:-1]), parse_axes(" ".join(axes)))
    if axes:
        text = " ".join(words)
        raise ValueError(f"{text!r} has no colon: write {path}: {' '.join(axes)}, or \\u0020 for a space in a path")
    return Signature(parse_path(path), None)


def _constant(words: list[str]) -> Constant:
    number, *dtype = words
    if not re.fullmatch(NUMBER, number) or dtype[1:] or not set(dtype) <= set(DTYPES):
        raise ValueError(f"{' '.join(words)!r} is no constant: write = 0, or with a dtype, = 0 int64")
    value = float(number) if re.search(r"[.e]", number) else int(number)
    if abs(value) > 1e300:
        raise ValueError(f"{number} is too large")
    if dtype and (problem := misfit(value, dtype[0]) or _rounded(value, dtype[0])):
        raise ValueError(problem)
    return Constant(value, *dtype)


def _rounded(value: float, dtype: str) -> str:
    """Say that a floating-point dtype rounds a number that is written as a whole one; "" if it does not."""
    if not value or not isinstance(value, int) or dtype not in SIGNIFICANT:
        return ""
    bits = (abs(value) // (value & -value)).bit_length()
    rounds = f"{dtype} rounds {value}: write {value}.0 if it may be rounded"
    return rounds if bits > SIGNIFICANT[dtype] else ""


def named_orders(table: Lines) -> Iterator[tuple[Line, str]]:
    """Yield each order that a line names."""
    for line in table.lines:
        for array in (*line.left.arrays, *line.right.arrays):
            yield from ((line, part.order) for part in array.parts() if part.order)


def not_an_order(numbers: tuple[int, ...]) -> str:
    """Return what keeps numbers from being a permutation of 0 to n-1; "" if nothing does."""
    if odd := [number for number in numbers if isinstance(number, bool) or not isinstance(number, Integral)]:
        return f"is no order of {len(numbers)} elements: {odd[0]} is no integer"
    if sorted(numbers) == list(range(len(numbers))):
        return ""
    seen = set[int]()
    for number in numbers:
        if number in seen or not 0 <= number < len(numbers):
            what = "stands twice" if number in seen else f"is not between 0 and {len(numbers) - 1}"
            return f"is no order of {len(numbers)} elements: {number} {what}"
        seen.add(number)
    return ""


def load(path: str, text: str | None = None, known: Mapping[str, tuple[int, ...]] | None = None) -> Lines:
    """Load a Table; arguments and errors as in Table.load."""
    if text is None:
        text = _text(path, MAX_TEXT, "a table", f"; {RECORDED}")
        if text.lstrip().startswith("{"):
            raise TableError(f"{path}: is JSON: {RECORDED}")
    folder = os.path.dirname(path)
    words = dict.fromkeys(
        re.findall(r"\[@([^\[\]\s]+)\]", "\n".join(re.sub(COMMENT, "", line) for line in text.split("\n")))
    )
    orders = {word: _order(os.path.join(folder, word)) for word in words} if known is None else dict(known)
    return parse(text, orders, path)


def _order(path: str) -> tuple[int, ...]:
    words = _text(path, MAX_ORDER_TEXT, "an order").split()
    if len(words) > MAX_ORDER or not all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in words):
        raise TableError(f"{path}: is no order: write the numbers from 0 on, one a line")
    return tuple(map(int, words))


def _text(path: str, limit: int, what: str, remedy: str = "") -> str:
    try:
        if not os.path.isfile(path):
            raise TableError(f"{path}: {'is a folder' if os.path.isdir(path) else 'there is no such file'}")
        if os.path.getsize(path) > limit:
            raise TableError(f"{path}: is over {limit >> 20} MB long: is it {what}?")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError:
        raise TableError(f"{path}: is no text in UTF-8: is it {what}?{remedy}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path}: cannot be read: {error}") from None


def save(table: Lines, path: str) -> None:
    """Save a Table; arguments and errors as in Table.save."""
    folder = os.path.dirname(path)
    for name in dict.fromkeys(order for _, order in named_orders(table)):
        beside = os.path.join(folder, name)
        if os.path.exists(beside) and _order(beside) != table.orders[name]:
            raise TableError(f"{beside}: exists with other numbers: save the table into another folder")
        with open(beside, "w", encoding="utf-8") as file:
            file.write("".join(f"{number}\n" for number in table.orders[name]))
    with open(path, "w", encoding="utf-8") as file:
        file.write(str(table))
