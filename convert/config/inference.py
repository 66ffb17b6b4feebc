"""Read Config fields off the names and shapes of a file's arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from convert import folding
from convert.dialect_lines import placing, sizes_of
from convert.errors import ConvertError, Unconfigured
from convert.files.skipped import Skipped
from convert.reading.readings import Reading
from convert.reading.recognise import dialects, for_own_models, lines
from specs import config as configs
from specs.dialects import Stored, beside, place
from specs.kinds import BUFFERS
from specs.layer import Parameter, Sizes, parameters
from specs.notation.paths import fill, match
from specs.words import in_a_row

from .conventions import computing, required


def unshown(reading: Reading) -> set[str]:
    """Return Config fields that change what is computed and that this file's arrays do not show."""
    return computing(reading.spec) | (required(reading.spec) - inferred("", reading).keys())


def inferred(path: str, reading: Reading) -> dict[str, Any]:
    """Return the Config fields that a file's arrays determine, by the architecture's `infer`.

    Raises: KeyError, IndexError for arrays that are missing; ConvertError for any other fault, which is the page's.
    """
    try:
        return dict(_inferred(reading))
    except (KeyError, IndexError):
        raise
    except Exception as error:
        page = reading.spec.infer.__code__.co_filename if hasattr(reading.spec.infer, "__code__") else "its page"
        what = f"{page}: `infer` of {reading.architecture} cannot read these arrays"
        raise ConvertError(f"{path}: {what}: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=8)  # a reading is configured many times over where it leaves fields open
def _inferred(reading: Reading) -> Mapping[str, Any]:
    return reading.spec.infer(sizes(reading))


def whole_config(
    path: str, reading: Reading, error: Exception, stated: dict[str, Any], is_guess: bool, none: Collection[str] = ()
) -> dict[str, Any]:
    """Return {} if user and record state a whole Config, where an array that `infer` needs is missing.

    Args:
      is_guess: whether the names alone suggest the architecture, and no record and no page that the user names.
      none: names under which the file has None, which whoever catches the error says.
    Raises: Unconfigured that names the array.
    """
    try:
        configs.build(reading.spec.config, stated)
        return {}
    except ValueError:
        absent = error.args[0] if error.args else error
        unknown = [name for name in reading.tensors if not _placed(reading, name)]
        theirs = in_their_terms(reading, str(absent)) or f"{absent} (in our terms)"
        near = folding.nearest([theirs], sorted(unknown)).get(theirs)
        beside = f" (nearest unused: {near})" if near else ""
        problem = f"missing {theirs}{beside}, from which the configuration would follow"
        misfit = theirs in reading.tensors
        if misfit:
            problem = f"{theirs} has shape {list(reading.tensors[theirs].shape)}, from which no configuration follows"
        where = f" in {reading.prefix}" * bool(reading.place)
        what = f"{path}: no complete {reading.dialect} checkpoint of {reading.architecture}{where}"
        if is_guess and (unknown or misfit or reading.place):
            size, near = len(reading.tensors), f"{reading.architecture} ({reading.dialect})"
            fits = f"which has {size - len(unknown)} of {size} names{where}, and does not fit"
            what = f"{path}: no architecture is recognised: the nearest is {near}, {fits}; {for_own_models()}"
        problems = [] if theirs in none else [problem]
        raise Unconfigured(what, [*problems, *folding.unexpected(unknown)]) from None


def without_array(reading: Reading, skipped: Skipped) -> list[str]:
    """Return the names that the dialect places and under which the file has None."""
    below = (name.removeprefix(reading.place) for name in skipped.none if name.startswith(reading.place))
    return [name for name in below if _placed(reading, name)]


def headless(none: Collection[str]) -> str:
    """Say that a file has no head, which under these names has None in place of its arrays."""
    why = f", as {in_a_row(folding.fold(none))} {'is' if len(none) == 1 else 'are'} None in it" if none else ""
    return f"the file has no head{why}: read as classes=0, whose outputs are pooled features and no logits"


def unmatched(reading: Reading, config: Any) -> tuple[list[str], list[str]]:
    """Return the names that a dialect gives the arrays of a Config and a file lacks, and the file's other names."""
    own, tensors = dialects(reading.architecture)[reading.dialect], reading.tensors
    missing, used = list[str](), {name for one in beside(own, config) for name in one.names.values()}
    for parameter, stored in _stored(reading, config):
        ties = [list(one.names.values()) for one in stored.alternatives]
        used.update(chain.from_iterable(ties))
        if parameter.leaf != "count" and all(tensors.keys().isdisjoint(names) for names in ties):
            missing += ties[0]
    return missing, [name for name in tensors if name not in used]


def outvoted(reading: Reading, shown: dict[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file's arrays show of its Config, corrected where the array that shows it is itself damaged.

    `infer` reads each size off one array. Where record or user state another, that is taken instead if an array fits it
    that does not fit the size shown, and no fewer fit in all, or if no network has the size shown: the error then names
    the damaged array.
    """
    other = {k: v for k, v in stated.items() if k in shown and configs.tuples(v) != configs.tuples(shown[k])}
    if not other:
        return shown
    corrected = {**shown, **other}
    unfit = list[set[str] | None]()
    for values in (shown, corrected):
        try:
            unfit.append(_unfit(reading, configs.build(reading.spec.config, {**example(reading), **stated, **values})))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):  # no such network exists
            unfit.append(None)
    before, after = unfit
    if after is None:
        return shown
    return corrected if before is None or (before - after and len(before) >= len(after)) else shown


def example(reading: Reading) -> dict[str, Any]:
    """Return the fields of one network of an architecture, for those that change no shape and that nobody states."""
    return next(map(configs.as_dict, reading.spec.named.values()), {})


def _unfit(reading: Reading, config: Any) -> set[str]:
    """Return our names of the arrays of a Config that a file lacks or has in another shape, and its names of others."""
    unfit = set(unmatched(reading, config)[1])
    for parameter, stored in _stored(reading, config):
        tied = [(name, one.shape) for one in stored.alternatives for name in one.names.values()]
        there = [(reading.tensors[name].shape, shape) for name, shape in tied if name in reading.tensors]
        if parameter.leaf != "count" and (not there or any(tuple(has) != tuple(shape) for has, shape in there)):
            unfit.add(parameter.name)
    return unfit


def _stored(reading: Reading, config: Any) -> Iterator[tuple[Parameter, Stored]]:
    """Yield each array of a Config that a file's dialect stores, and how."""
    own = dialects(reading.architecture)[reading.dialect]
    for parameter in parameters(list(reading.spec.layers(config))):
        if stored := place(parameter, own, config):
            yield parameter, stored


def _placed(reading: Reading, name: str) -> bool:
    """Tell whether the dialect places an array of this very name: "fc2" has the form of "fc1", and is another one."""
    return bool(placing(lines(reading.architecture, reading.dialect), name))


@lru_cache(maxsize=8)
def sizes(reading: Reading) -> Sizes:
    """Return sizes of a file's arrays in the hub's terms, read off names and shapes, for the spec's `infer`."""
    known = lines(reading.architecture, reading.dialect)
    return sizes_of(known, {name: tensor.shape for name, tensor in reading.tensors.items()})


def in_their_terms(reading: Reading, name: str) -> str | None:
    """Return one of our names as a file's dialect has it; None where that depends on the Config."""
    for line in chain.from_iterable(lines(reading.architecture, reading.dialect).values()):
        if matched := match(line.ours.path, name):
            with contextlib.suppress(AttributeError):  # the Config's, which is not known
                return fill(line.theirs.path, matched[0])
    return None


def trained(reading: Reading) -> int:
    """Count trained parameters in a file by name: running statistics and what has no known name aside."""
    counted = dict[tuple[Any, ...], int]()  # by our name and the numbers in theirs: tied arrays are one
    known = lines(reading.architecture, reading.dialect)
    for name, tensor in reading.tensors.items():
        for line, numbers in placing(known, name)[:1]:
            if line.ours.label.rpartition(".")[2] not in BUFFERS:
                counted[line.ours.label, *sorted(numbers.items()), *line.listed] = tensor.size
    return sum(counted.values())
