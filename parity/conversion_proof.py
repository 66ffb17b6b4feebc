"""Prove a conversion: run source and target in float64 on the same images, or compare their arrays without running."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

import ports
from convert.arrays.dtypes import is_exact
from convert.arrays.steps import sources_of
from convert.errors import ConvertError, called, cut
from convert.plans import planning
from convert.plans.plan import Plan
from convert.progress import Status
from convert.reading.aside import as_json
from convert.reading.recognise import dialects
from convert.reading.replicas import FirstReplica
from parity.given.quoting import some
from parity.given.random_images import draw
from parity.results.elements import Worst, worst
from parity.results.tolerance import FLOAT64
from ports.frameworks import unported
from ports.runners.inputs import OUTPUT
from ports.runners.tracing import watched
from specs.config import as_dict
from specs.dialects import HUB
from specs.numbers import short

TOLERANCE = FLOAT64["layers"]
Outputs = Mapping[str, np.ndarray]  # by the names of modules


def prove(plan: Plan, written: str) -> dict[str, Any]:
    """Run a plan's source and the file written from it, in our ports; {"error", "worst", "taps", ...}.

    "not_covered" lists the arrays of the source that are in neither model, "zeros" the modules that return zeros alone.

    Each runs in its own framework, if there is a port; the second in another than the first, if there are two, as it
    would otherwise be the same arrays in the same code. Where no framework here has a port, nothing runs: both files'
    arrays are compared in one layout, and "source" and "target" are None. "reason" says why no two frameworks ran.

    Raises: ConvertError if an array or a module's output differs by more than TOLERANCE (where no dtype was given up).
    """
    tables = dialects(plan.architecture)
    settings = as_dict(plan.config)
    able = ports.ported(plan.architecture)
    if not able:
        return _proof(plan, None, None, _array_errors(plan, written))
    ported = [tables[name].framework for name in (plan.src, plan.dst) if tables[name].framework in able]
    source = [*ported, *able][0]
    target = next((name for name in [*ported[1:], *able] if name != source), source)
    part = plan.reading.prefix or "/"
    with warnings.catch_warnings(action="ignore"):  # the plan's notes say what is doubtful
        first_only = isinstance(plan.reader, FirstReplica)
        before = ports.load(
            plan.reader.path, source, "float64", src=plan.src, weights=part, unreplicate=first_only, **settings
        )
        after = ports.load(written, target, "float64", src=plan.dst, **settings)
    images = draw(2, plan.reading.spec.input_shape(plan.config))
    left, right = (
        _outputs(plan.reader.path, before, images, f"the source in {source}"),
        _outputs(plan.reader.path, after, images, f"the target in {target}"),
    )
    if left.keys() != right.keys():
        raise ConvertError(f"{plan.reader.path}: not proven: {_called_alone(plan, (source, left), (target, right))}")
    errors = {name: worst(left[name], right[name]) for name in left}
    first = _first(errors)
    if first and _exact(plan) and not np.isfinite(left[first]).all():
        what = f"{first} comes out as NaN or infinity, of which nothing can be proven{_not_finite(plan)}"
        raise ConvertError(f"{plan.reader.path}: not proven: {what}: convert without --prove; nothing was written")
    return {**_proof(plan, source, target, errors), "zeros": [name for name in left if not left[name].any()]}


def _not_finite(plan: Plan) -> str:
    """Say which arrays of the source have NaNs or infinities, and how many; "" if none has."""
    fillings = {tensor.name: filling for tensor, filling in plan.steps}
    odd = {name: int(array.size - np.isfinite(array).sum()) for name, array in plan.arrays() if array.dtype.kind == "f"}
    texts = [f"{number:,} in {' + '.join(sources_of(fillings[name]))}" for name, number in odd.items() if number]
    return f" (NaNs or infinities of the source: {'; '.join(texts)})" if texts else ""


def _called_alone(plan: Plan, one: tuple[str, Outputs], other: tuple[str, Outputs]) -> str:
    """Say which modules one port alone calls, and where to look; each port is (framework, outputs of its modules)."""
    alone = [(a[0], [name for name in a[1] if name not in b[1]]) for a, b in ((one, other), (other, one))]
    calls = "; ".join(f"the port in {side} alone calls {some(names)}" for side, names in alone if names)
    compare = f"{called('parity')} {plan.architecture} --check layers"
    return f"{calls}: {compare} says more; nothing was written"


def _outputs(path: str, port: ports.Port, images: np.ndarray, what: str) -> dict[str, np.ndarray]:
    """Run a port and return every module's output and its own; show on a terminal which layer runs.

    Raises: ConvertError that names the layer in which the port fails.
    """
    at = ""
    with Status() as status:

        def watch(layer: str) -> None:
            nonlocal at
            at = "" if layer == OUTPUT else layer
            status.show(f"proving: runs {what} in float64" + (f": {at}" if at else ""))

        status.show(f"proving: runs {what} in float64")
        try:
            with watched(watch):
                taps = port.taps(images)
            status.show(f"proving: runs {what} in float64, as a whole")
            return {**taps, "output": port(images)}
        except ConvertError:
            raise
        except Exception as error:  # a framework may raise anything, as where memory runs out
            lines = [*filter(None, map(str.strip, str(error).splitlines())), "no message"]
            cause = f"{type(error).__name__}: {cut(lines[0])}"
            problem = f"{what} fails{f' at {at}' if at else ''}: {cause}"
            raise ConvertError(f"{path}: not proven: {problem}; nothing was written") from error


def _array_errors(plan: Plan, written: str) -> dict[str, Worst]:
    """Read both files in one layout and return the largest relative difference of each array."""
    settings = as_dict(plan.config)
    part = plan.reading.prefix or "/"
    with (
        planning.plan(
            plan.reader.path, plan.src, HUB, settings, weights=part, unreplicate=isinstance(plan.reader, FirstReplica)
        ) as before,
        planning.plan(written, plan.dst, HUB, settings) as after,
    ):
        # batch counters exist in one framework only, and nothing is computed from them
        left, right = (
            {name: array for name, array in side.arrays() if not name.endswith(".count")} for side in (before, after)
        )
    if left.keys() != right.keys():
        names = ", ".join(sorted(left.keys() ^ right.keys()))
        raise ConvertError(f"{plan.reader.path}: not proven: only one side has {names}; nothing was written")
    equal = {name for name in left if np.array_equal(left[name], right[name], equal_nan=left[name].dtype.kind == "f")}
    return {name: Worst(0.0) if name in equal else worst(left[name], right[name]) for name in left}


def _first(errors: Mapping[str, Worst]) -> str | None:
    """Return the first tap that differs by more than TOLERANCE."""
    return next((name for name, error in errors.items() if not error.error <= TOLERANCE), None)


def _exact(plan: Plan) -> bool:
    """Tell whether no step of a plan gives up a dtype."""
    return all(
        is_exact(plan.sources[name].dtype, tensor.dtype)
        for tensor, filling in plan.steps
        for name in sources_of(filling)
    )


def _proof(plan: Plan, source: str | None, target: str | None, errors: Mapping[str, Worst]) -> dict[str, Any]:
    """Judge the differences. Raises: ConvertError if one exceeds TOLERANCE where no dtype was given up."""
    exact, first = _exact(plan), _first(errors)
    if exact and first:
        left, right = (source, str(target)) if source else ("source", "target")
        error = errors[first].between(left, right)
        how = f": {error.cause}" if error.cause else f" differs by {short(error.error)} between {left} and {right}"
        problem = f"{first}{how}"
        raise ConvertError(f"{plan.reader.path}: not proven: {problem}; nothing was written")
    furthest = max(errors, key=lambda name: errors[name].error)
    return {
        "source": source,
        "target": target,
        **({"reason": unported(plan.architecture, second=source is not None)} if source == target else {}),
        "exact": exact,
        "error": errors[furthest].error,
        "worst": furthest,
        "taps": len(errors),
        "tolerance": TOLERANCE,
        "not_covered": as_json(plan.aside),
        "skipped": plan.skipped(),
    }
