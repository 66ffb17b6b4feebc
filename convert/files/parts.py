"""Recognise by their names the files into which several processes divide one model, each with a part of its arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from convert.errors import FormatError
from specs.words import first_few

from .base import shown

# The number of a part. Megatron, NeMo and DeepSpeed name folders and files so, Llama's authors and PaddleNLP files.
DIVIDED = (
    re.compile(r"(?:^|_)(?:mp|tp|pp)_rank_(\d+)"),
    re.compile(r"(?:^|_)mp_rank_\d+_(\d+)"),
    re.compile(r"^consolidated\.(\d+)\."),
    re.compile(r"\.tp(\d+)\."),
    re.compile(r"^(\d+)_\d+\.distcp$"),  # of paddle.distributed.save_state_dict
    re.compile(r"^shard-(\d+)-"),  # of torch's HuggingFaceStorageWriter
)
RANKED = (re.compile(r"(?<![a-z])rank[_-]?(\d+)"),)  # of a process, which may store a part, or all
ZERO = re.compile(r"zero_pp_rank_\d")  # of DeepSpeed, whose own program joins them; see inside.PARTS
NAMED = 8  # entries of a folder that a message names
JOIN = "join them with the program that wrote them"


def check(path: str) -> tuple[str, ...]:
    """Return a warning for a file that may be a part of a model; () for any other.

    Raises: FormatError for one that is named as a part, where the others are there too.
    """
    if not os.path.exists(os.path.dirname(path) or os.curdir):  # which its reader reports
        return ()
    others = _others(path, DIVIDED)
    if others and os.path.exists(path):
        problem = f"is named as a part of a model that several processes divide; other parts: {listed(others)}"
        raise FormatError(path, problem, f"{JOIN}; a copy of this file alone, in another folder, is read as it is")
    if others := _others(path, RANKED):
        what = "is named as the file of one of several processes"
        return (f"warning: {path} {what}, as is {listed(others)}: if each has a part of the model, {JOIN}",)
    return ()


def divided(names: Iterable[str]) -> list[str]:
    """Return those of several names in a folder that are named as parts of one model; [] if there is one alone."""
    models = list(names)
    return [name for name in models if _alike(name, models, DIVIDED)]


def _others(path: str, patterns: Iterable[re.Pattern[str]]) -> list[str]:
    """Return the other parts, beside a file or beside its folder, where the same file is in each."""
    whole = os.path.abspath(path)
    folder, name = os.path.split(whole)
    if _named(name, patterns):
        return _alike(name, os.listdir(folder), patterns)
    root, inner = os.path.split(folder)
    if not _named(inner, patterns):
        return []
    return [
        os.path.join(other, name)
        for other in _alike(inner, os.listdir(root), patterns)
        if os.path.exists(os.path.join(root, other, name))
    ]


def _named(name: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    return not ZERO.search(name) and any(pattern.search(name) for pattern in patterns)


def _alike(name: str, names: Iterable[str], patterns: Iterable[re.Pattern[str]]) -> list[str]:
    """Return the names that differ from `name` in its number alone, if the numbers begin at 0, or are all from 1 on."""
    others, numbered = list(names), set[str]()
    for match in (match for pattern in patterns for match in pattern.finditer(name) if not ZERO.search(name)):
        same = re.compile(re.escape(name[: match.start(1)]) + r"(\d+)" + re.escape(name[match.end(1) :]))
        numbers = {other: int(number[1]) for other in others if (number := same.fullmatch(other))}
        all_from_1 = sorted(numbers.values()) == [*range(1, len(numbers) + 1)]
        numbered.update(numbers if 0 in numbers.values() or all_from_1 else ())
    return sorted(numbered - {name})


def listed(names: list[str]) -> str:
    """List entries of a folder for a message, and how many more there are."""
    return first_few([shown(name)[1:-1] for name in names], NAMED)
