"""`make demo`: a Google Mixer checkpoint becomes the same model in three frameworks, and the table shows it."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile

import numpy as np

import ports
from convert.files import open_checkpoint
from convert.files.base import Reader
from convert.planning import plan

from .prove import TOLERANCE, relative_error


def main(case: str) -> int:
    """Convert, run and compare; 0 if every error is within TOLERANCE."""
    with open_checkpoint(os.path.join(case, "io.safetensors")) as reader:
        images = _array(reader, "input_nchw")
        truth = _array(reader, "eval/logits.f64")
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for framework in ports.available():
            out = os.path.join(folder, f"mixer.{framework}.safetensors")
            with plan(os.path.join(case, "weights.npz"), dst=framework) as made:
                made.write(out)
                print(f"{made.src}2{framework}: {len(made.steps)} tensors, {made.parameters:,} parameters")
            logits[framework] = ports.load(out, framework, dtype="float64")(images)
    with open(os.path.join(case, "case.json"), encoding="utf-8") as file:
        about = json.load(file)
    print(f"\nfloat64 logits of {len(images)} images against {about['upstream']['repo']}'s own code")
    rows = [(name, relative_error(truth, found)) for name, found in logits.items()]
    rows += [(f"{a} - {b}", relative_error(logits[a], logits[b])) for a, b in itertools.combinations(logits, 2)]
    for name, error in rows:
        print(f"  {name:16} largest relative error {error:.1e}  {'ok' if error <= TOLERANCE else 'OFF'}")
    for name in sorted({"flax", "torch", "paddle"} - logits.keys()):
        print(f"  {name:16} not installed: pip install '.[{name}]'")
    return 0 if rows and all(error <= TOLERANCE for _, error in rows) else 1


def _array(reader: Reader, name: str) -> np.ndarray:
    tensor = reader.tensors[name]
    return np.frombuffer(reader.read(name), tensor.dtype).reshape(tensor.shape)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
