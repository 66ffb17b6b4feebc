"""The proof behind `convert --prove`: source and target both run in float64 on the same images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import ports
from convert.aside import as_json
from convert.casting import is_exact
from convert.errors import ConvertError
from convert.plans import Plan
from convert.recognise import dialects
from convert.replicas import FirstReplica
from convert.steps import sources_of
from specs.config import as_dict

from .numbers import draw, relative_error
from .tolerance import FLOAT64

TOLERANCE = FLOAT64["layers"]


def prove(plan: Plan, written: str) -> dict[str, Any]:
    """Run a plan's source and the file written from it, in our ports; {"error", "worst", "taps", ...}.

    "not_covered" lists the arrays of the source that are in neither model.

    Each runs in its own framework, if there is a port; the second in another than the first, if there are two, as it
    would otherwise be the same arrays in the same code.

    Raises: UsageError if no framework here has a port; ConvertError if any tap differs by more than TOLERANCE (where no
      dtype was given up).
    """
    tables = dialects(plan.architecture)
    settings = as_dict(plan.config)
    able = ports.ported(plan.architecture)
    ported = [tables[name].framework for name in (plan.src, plan.dst) if tables[name].framework in able]
    source = next(iter([*ported[:1], *able]), tables[plan.src].framework)
    target = next((name for name in [*ported[1:], *able] if name != source), source)
    part = plan.reading.prefix or "/"
    with warnings.catch_warnings(action="ignore"):  # the plan's notes say what is doubtful
        one = isinstance(plan.reader, FirstReplica)
        before = ports.load(
            plan.reader.path, source, "float64", src=plan.src, weights=part, unreplicate=one, **settings
        )
        after = ports.load(written, target, "float64", src=plan.dst, **settings)
    images = draw(2, plan.reading.spec.input_shape(plan.config))
    left, right = before.taps(images), after.taps(images)
    left["output"], right["output"] = before(images), after(images)
    if left.keys() != right.keys():
        raise ConvertError(f"{written}: the two sides ran different layers: {sorted(left.keys() ^ right.keys())}")
    errors = {name: relative_error(left[name], right[name]) for name in left}
    worst = max(errors, key=lambda name: errors[name])
    exact = all(
        is_exact(plan.sources[name].dtype, tensor.dtype)
        for tensor, filling in plan.steps
        for name in sources_of(filling)
    )
    if exact and not errors[worst] <= TOLERANCE:
        first = next(name for name, error in errors.items() if not error <= TOLERANCE)
        problem = f"{first} differs by {errors[first]:.1e} between {source} and {target}"
        if not np.isfinite(left[first]).all():
            problem = f"{first} comes out as NaN or infinity, of which nothing can be proven: convert without --prove"
        raise ConvertError(f"{plan.reader.path}: not proven: {problem}; nothing was written")
    return {
        "source": source,
        "target": target,
        "exact": exact,
        "error": errors[worst],
        "worst": worst,
        "taps": len(errors),
        "tolerance": TOLERANCE,
        "not_covered": as_json(plan.aside),
        "skipped": plan.skipped(),
    }
