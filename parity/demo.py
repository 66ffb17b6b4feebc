"""Run `make demo`: convert an original's checkpoint to three frameworks, and print how far they agree."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile

import ports
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.kinds import FRAMEWORKS
from specs.numbers import short
from specs.words import count

from . import goldens
from .conversion_proof import TOLERANCE


def main(folder: str) -> int:
    """Convert, run and compare a golden case; 0 if every error is within TOLERANCE."""
    case, logits = goldens.read(folder), {}
    with tempfile.TemporaryDirectory() as scratch:
        for framework in ports.available():
            out = os.path.join(scratch, f"model.{framework}.safetensors")
            with plan(case.weights, dst=framework, settings=case.settings) as planned:
                planned.write(out)
                tensors, parameters = count(len(planned.steps), "tensor"), count(planned.parameters, "parameter")
                print(f"{planned.src}2{framework}: {tensors}, {parameters}")
            logits[framework] = ports.load(out, framework, dtype="float64")(case.images)
    print(f"\nfloat64 logits of {len(case.images)} images against {case.about['upstream']['repo']}'s own code")
    rows = [(name, relative_error(case.logits, ours)) for name, ours in logits.items()]
    rows += [(f"{a} - {b}", relative_error(logits[a], logits[b])) for a, b in itertools.combinations(logits, 2)]
    for name, error in rows:
        print(f"  {name:16} largest relative error {short(error)}  {'ok' if error <= TOLERANCE else 'OFF'}")
    for name in sorted({*FRAMEWORKS} - logits.keys()):
        print(f"  {name:16} not installed: pip install '.[{name}]'")
    return 0 if rows and all(error <= TOLERANCE for _, error in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
