"""Match the states of two optimizers of torch, which number parameters, by the names of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from convert import folding
from convert.config.conventions import same
from convert.files.base import Reader, Tensor
from convert.optimizer.from_torch import by_rank
from convert.reading.families import MOMENTS
from convert.reading.optimizers import GROUP
from specs.words import in_a_row

LISTS = ("params", "param_names")  # of a group: what says whose it is, and not how it is trained
ALONE = "parameters of one optimizer alone"  # the key of a difference
IN_GROUP = re.compile(r"(?:^|/)param_groups/[^/]+/(?P<key>.+)$")


class Numbered(NamedTuple):
    """The state of an optimizer of torch in a file.

    Args:
      root: prefix of all its names. groups: its groups of parameters, as torch stores them.
    """

    root: str
    groups: tuple[Mapping[str, Any], ...]

    @property
    def order(self) -> list[Any]:
        """Return the numbers of each group's parameters."""
        return [group.get("params") for group in self.groups]

    @property
    def sizes(self) -> list[int]:
        """Return how many parameters each group has."""
        return [len(group["params"]) for group in self.groups]

    def named(self, names: Iterable[str]) -> Numbered:
        """Return the same with names of its parameters, in the order of the groups."""
        each = iter(names)
        groups = ({**group, "param_names": list(islice(each, len(group["params"])))} for group in self.groups)
        return self._replace(groups=tuple(groups))

    @property
    def names(self) -> dict[str, str]:
        """Return {number of a parameter: its name}; {} where the file does not name all."""
        pairs = {
            str(number): name
            for group in self.groups
            for number, name in zip(group["params"], group.get("param_names", ()), strict=False)
        }
        total = sum(len(group["params"]) for group in self.groups)
        return pairs if len(pairs) == total == len(set(map(str, pairs.values()))) else {}

    def hyperparameters(self) -> dict[str, dict[str, Any]]:
        """Return {hyperparameter: {name of a parameter: its value}}."""
        each: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            for key in group.keys() - set(LISTS):
                each.setdefault(key, {}).update(dict.fromkeys(group["param_names"], group[key]))
        return each

    def entries(self, names: Iterable[str]) -> dict[str, str]:
        """Return {name of a plain entry of the file that a group holds: its key there}."""
        base = f"{self.root}param_groups/"
        return {name: name.rpartition("/")[2] for name in names if name.startswith(base)}


def numbered(reader: Reader) -> Numbered | None:
    """Read the groups of the one optimizer of torch in a file; None where there is none, or several."""
    values = reader.skipped.load()
    roots = {name[: match.start()] for name in values if (match := GROUP.search(name))}
    if len(roots) != 1:
        return None
    (root,) = roots
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        number, slash, key = name.removeprefix(f"{root}param_groups/").partition("/")
        if slash and name.startswith(f"{root}param_groups/"):
            groups.setdefault(number, {})[key] = value
    listed = all(isinstance(group.get("params"), list) for group in groups.values())
    return Numbered(root, tuple(groups.values())) if listed else None


class Match(NamedTuple):
    """How the numbers of two optimizers correspond.

    Args:
      a, b: the two; None where they number alike, or where their names do not say which numbers correspond.
      notes: on the numbers.
      known: whether that is known, or assumed as the notes say; else the notes say why nothing tells.
    """

    a: Numbered | None = None
    b: Numbered | None = None
    notes: tuple[str, ...] = ()
    known: bool = True


def matched(a: Reader, b: Reader) -> Match:
    """Match two optimizers by the names of their parameters, where they number or group these differently.

    Names decide also where one optimizer lists more parameters than the other.
    """
    one, two = numbered(a), numbered(b)
    if one is None or two is None:
        return Match()
    ours, theirs = one.names, two.names
    if one.order == two.order and (ours == theirs or not (ours and theirs)):
        return Match()
    both = set(ours.values()) & set(theirs.values())
    if both and not (one.order == two.order and _respelled((a, ours), (b, theirs))):
        return Match(one, two, _by_names(ours, theirs))
    silent = [side for side, names in (("A", ours), ("B", theirs)) if not names]
    if silent:
        return _unnamed((a, one), (b, two), f"{in_a_row(silent)} store{'s' * (len(silent) == 1)} no param_names")
    how = "group" if one.sizes != two.sizes else "name" if one.order == two.order else "number"
    first = next((f" ({n} in A is {theirs[k]} in B)" for k, n in ours.items() if theirs.get(k, n) != n), "")
    detail = f" ({_sizes(one, two)})" if how == "group" else first
    what = f"the two optimizers {how} their parameters differently{detail}, and are compared by number"
    return Match(notes=(f"{what}, as their param_names are not the same: one number may be of two parameters",))


def _by_names(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, ...]:
    """Say that names decide which parameters correspond. Args: ours, theirs: {number: name} of A and B."""
    back = {name: number for number, name in theirs.items()}
    moved = [(number, name) for number, name in ours.items() if back.get(name, number) != number]
    if not moved:
        return ()
    number, name = moved[0]
    what = "the two optimizers number their parameters differently, and are matched by param_names"
    return (f"{what}: {number} in A is {back[name]} in B, {name}",)


def _respelled(one: tuple[Reader, Mapping[str, str]], two: tuple[Reader, Mapping[str, str]]) -> bool:
    """Tell whether two files spell the names of one model in two ways: by the numbers, and by the model of each.

    Names that both have stand for the same numbers, and neither model has a parameter of a name that only the other
    optimizer lists.
    """
    (a, ours), (b, theirs) = one, two
    both = set(ours.values()) & set(theirs.values())
    strangers = ((a, set(theirs.values()) - both), (b, set(ours.values()) - both))
    stored = any(name.endswith(f"/{other}") for file, others in strangers for name in file.tensors for other in others)
    return not stored and all(theirs.get(number) == name for number, name in ours.items() if name in both)


def _unnamed(a: tuple[Reader, Numbered], b: tuple[Reader, Numbered], why: str) -> Match:
    """Match two optimizers of which one names no parameters as a conversion does, by places within groups.

    Groups of the same sizes go together, and one group of all parameters with several that divide them.
    """
    (_, one), (_, two) = a, b
    assumed = "as a conversion orders them: assumed, not known"
    if one.sizes == two.sizes:
        known = [*one.names.values()] or [*two.names.values()] or [*map(str, chain(*one.order))]
        groups = f"groups of {in_a_row(map(str, one.sizes))} parameters are"
        how = f"{groups} matched by the places within each, {assumed}"
        note = f"the two optimizers number their parameters differently, and {why}: {how}"
        return Match(one.named(known), two.named(known), (note,))
    what = f"the two optimizers group their parameters differently ({_sizes(one, two)}), and {why}"
    for (several, whole), is_a in (((a, b), True), ((b, a), False)):
        names, how = _divided(several, whole)
        if names:
            every = [*whole[1].names.values()] or map(str, chain(*whole[1].order))
            both = several[1].named(names), whole[1].named(every)
            return Match(*(both if is_a else both[::-1]), (f"{what}: groups are matched by {how}, {assumed}",))
    return Match(notes=(f"{what}: which of their numbers are of one parameter is not known",), known=False)


def _divided(several: tuple[Reader, Numbered], whole: tuple[Reader, Numbered]) -> tuple[list[str], str]:
    """Name the parameters of groups that divide those of one group: by their numbers of axes, or one after the other.

    Returns: also by what; [] where neither gives each moment the shape of its name's moment.
    """
    (reader, groups), (other, one) = several, whole
    numbers = [*chain(*one.order)]
    moments = {one.names.get(str(n), str(n)): _moment(other, one, n) for n in numbers}
    known = {name: moment for name, moment in moments.items() if moment}
    if len(one.groups) != 1 or groups.names or len(known) < len(numbers):
        return [], ""
    own = [_moment(reader, groups, number) for number in chain(*groups.order)]
    for how, names in (
        ("the numbers of axes, and by the places within each", by_rank(reader, groups.root, groups.groups, known)),
        ("the order of all parameters, which they divide", [*known]),
    ):
        pairs = zip(own, names, strict=False)
        if len(own) == len(names) and all(mine and mine.shape == known[name].shape for mine, name in pairs):
            return names, how
    return [], ""


def _moment(reader: Reader, optimizer: Numbered, number: object) -> Tensor | None:
    """Return a moment of a parameter, which has its shape; None where it has no state."""
    names = (f"{optimizer.root}state/{number}/{slot.torch}" for slot in MOMENTS.values())
    return next((reader.tensors[name] for name in names if name in reader.tensors), None)


def _sizes(one: Numbered, two: Numbered) -> str:
    return " and ".join("+".join(map(str, of.sizes)) for of in (one, two))


def in_group(name: str) -> bool:
    """Tell whether an entry of a file belongs to a group of parameters of torch's optimizers."""
    return IN_GROUP.search(name) is not None


def is_list(name: str) -> bool:
    """Tell whether an entry lists parameters of a group: it says whose its values are."""
    entry = IN_GROUP.search(name)
    return entry is not None and entry["key"] in LISTS


def is_implied(name: str, values: tuple[object, object]) -> bool:
    """Tell whether a value of a group that one file alone stores says nothing of the training.

    These are numbers and names of parameters, and a flag that is off, which older versions of torch do not store.
    """
    return is_list(name) or (in_group(name) and _is_off(values))


def _is_off(values: tuple[object, object]) -> bool:
    """Tell whether one file stores a flag that is off, and the other one does not store it."""
    return any(value is None for value in values) and any(value is False for value in values)


def compared(one: Numbered, two: Numbered) -> tuple[frozenset[str], dict[str, tuple[Any, Any]]]:
    """Compare the hyperparameters of each parameter, by its name.

    Returns: those that were compared, and {"lr of a.weight, b.weight": its values in A and in B} of those that differ,
      None where a file stores none, with the parameters that one optimizer alone lists.
    """
    ours, theirs = one.hyperparameters(), two.hyperparameters()
    a, b = (set(of.names.values()) for of in (one, two))
    differing: dict[str, tuple[Any, Any]] = {}
    if a != b:
        differing[ALONE] = folding.listed(sorted(a - b)) or "none", folding.listed(sorted(b - a)) or "none"
    for key in ours.keys() | theirs.keys():
        unlike: dict[str, list[str]] = {}
        of_a, of_b = ours.get(key, {}), theirs.get(key, {})
        for name in (name for name in one.names.values() if name in b):
            values = of_a.get(name), of_b.get(name)
            if not (same(*values) or _is_off(values)):
                unlike.setdefault(repr(values), []).append(name)
        for names in unlike.values():
            differing[f"{key} of {folding.listed(names)}"] = of_a.get(names[0]), of_b.get(names[0])
    return frozenset(ours.keys() | theirs.keys()), dict(sorted(differing.items()))
