"""Read settings off the modules of a model, pickled whole or in memory, as its architecture's page says how.

Torch's own modules are read, and the epsilons of norms of anybody's code, as a LayerNorm over channels. Some norms may
state none: `share` says how many do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from convert.errors import ConvertError, UsageError, command_or_call, is_saving
from convert.files.modules import Module
from convert.folding import summarised
from convert.reading.readings import Reading
from specs.numbers import exact
from specs.spec import Spec
from specs.words import in_a_row

from .conventions import rounded, same
from .settings import Settings, spelled

STRANGE = ""  # in place of a field, of what no Config field varies
STATE_DICT = "if these are not part of what the network computes, save its state_dict() alone and state the settings"


class Stated(NamedTuple):
    """What modules state of one Config field: its value, and the paths of the modules."""

    field: str
    value: Any
    paths: list[str]

    def __str__(self) -> str:
        return f"{self.field}={exact(self.value)} ({summarised(self.paths)})"


def stated(path: str, reading: Reading, modules: Iterable[Module]) -> dict[str, Stated]:
    """Return what the modules of the model that a file is read as state of its Config, by field.

    Raises: ConvertError where no Config has it: several values of one field, or what the network never computes.
    """
    found: dict[tuple[str, Any], Stated] = {}
    for module in modules:
        if module.path.startswith(reading.place):
            for field, value in _says(module, reading):
                found.setdefault((field, rounded(value)), Stated(field, value, [])).paths.append(module.path)
    fields: dict[str, list[Stated]] = {}
    for one in found.values():
        fields.setdefault(one.field, []).append(one)
    problems = [f"{one.value} ({summarised(one.paths)})" for one in fields.pop(STRANGE, [])]
    several = [some for some in fields.values() if some[1:]]
    problems += [f"{in_a_row(some)}, where {reading.architecture} has one value" for some in several]
    if problems:
        what = f"{_whose()} are of another network than {reading.architecture}"
        raise ConvertError(f"{path}: {what}", [*problems, STATE_DICT])
    return {field: some[0] for field, some in fields.items()}


def _whose() -> str:
    """Return how a sentence about the modules begins."""
    return "its modules" if is_saving() else "the model in it was pickled whole, and its modules"


def _says(module: Module, reading: Reading) -> Iterator[tuple[str, Any]]:
    """Yield (Config field, value) of all that a module states; (STRANGE, what) of what the architecture never has."""
    norms, activations = reading.spec.norms, reading.spec.activations
    for attribute, field in norms.items():
        value = module.of_norm(attribute)
        if value is not None and isinstance(field, str):
            yield field, value
        elif value is not None and not same(value, field):
            yield STRANGE, f"{attribute}={exact(value)} where {reading.architecture} has {exact(field)}"
    if module.activation in activations:
        yield from activations[module.activation].items()
    elif module.activation and activations:
        yield STRANGE, f"{module.activation} where {reading.architecture} has {' or '.join(activations)}"


def share(spec: Spec, config: Any, field: str, stating: int) -> str:
    """Return " (1 of 14 norms)" for a field of norms that fewer modules state than the network has norms, else ""."""
    attribute = next((name for name, stated in spec.norms.items() if stated == field), "")
    kinds = {"eps": "norm", "momentum": "batch_norm"}
    norms = sum(layer.kind.endswith(kinds[attribute]) for layer in spec.layers(config)) if attribute else 0
    return f" ({stating} of {norms} norms)" if stating < norms else ""


def check(
    path: str, reading: Reading, own: Mapping[str, Stated], says: Mapping[str, Mapping[str, Any]], settings: Settings
) -> None:
    """Check that nothing contradicts what modules state.

    Args:
      says: origin -> {field: value} of the "user", the "record" and the "dialect".
    Raises: UsageError that names every contradiction, of the user before the others.
    """
    asked, recorded, fixed = says["user"], says["record"], says["dialect"]

    def differing(values: Mapping[str, Any]) -> list[str]:
        return [field for field, one in own.items() if field in values and not same(values[field], one.value)]

    what = f"{_whose()} state"
    if fields := differing(asked):
        problems = [f"{f}={exact(asked[f])} {settings.how(f)}; the modules state {own[f]}" for f in fields]
        raise UsageError(f"{path}: {what} other settings", problems)
    if fields := [field for field in differing(recorded) if field not in asked]:
        problems = [f"{f}={exact(recorded[f])} is of its record; the modules state {own[f]}" for f in fields]
        raise UsageError(f"{path}: {what} other settings than its record: remove the record", problems)
    if fields := [field for field in differing(fixed) if field not in asked]:
        problems = [f"{reading.dialect}'s own code computes {f}={exact(fixed[f])}; the modules state {own[f]}"
                    for f in fields]  # fmt: skip
        confirmed = " ".join(spelled(field, own[field].value) for field in fields)
        values = ", ".join(f"{field}={_spelled(own[field].value)}" for field in fields)
        problems.append(f"to use what the modules state: {command_or_call(confirmed, f'settings=dict({values})')}")
        raise UsageError(f"{path}: {what} other settings than {reading.dialect}'s own code", problems)


def _spelled(value: Any) -> str:
    """Spell a value as Python reads it."""
    return repr(value) if isinstance(value, str) else exact(value)
