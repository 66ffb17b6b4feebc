"""Golden cases: checkpoints of the original implementations, with what their code made of some images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
import specs
from convert.files import open_checkpoint
from ports.port import Port
from ports.runners.inputs import OUTPUT
from specs.config import tuples
from specs.notation.paths import fill, match, parse_path
from specs.table import Table

from .conftest import needs

FOLDER = Path(__file__).parent / "goldens"
_BESIDE = [Path(home) / "goldens" for name in specs.names() if (home := specs.folder(name))]  # pages from outside
FOLDERS = {case.name: case for home in [FOLDER, *_BESIDE] if home.is_dir() for case in home.iterdir() if case.is_dir()}

MOBILE_FORMER = {"dyrelu_coefs": (1.0, 0.5), "dyrelu_consts": (1.0, 0.0), "stem_stride": 2}  # as its code computes

# What a case's file leaves open and its case.json tells in upstream's words. Cases that parity_tests/upstream.py writes
# have it in our words, as "settings".
OPEN: dict[str, dict[str, object]] = {
    "locuslab_convmixer_gelu": {"act": "gelu"},
    "paddlevit_convmixer_gelu": {"act": "gelu"},
    "raft_native": {
        "image": 64,
        "patches": (4, 2, 2, 2),
        "rafts": (2, 2, 4, 3),
        "kernels": ((4, 8), (2, 4), (2, 4), (2,)),
    },
    "raft_interp": {"image": 32, "patches": (4, 2, 2), "rafts": (4, 2, 5), "kernels": ((4, 8, 16), (2, 4), (2,))},
    "raft_mixer_sc": {"channels": 4, "image": 48, "patches": (4, 2, 2), "rafts": (1, 4, 2)},
    "mobileformer_a_base": {"lite_stride": 2, **MOBILE_FORMER},
    "mobileformer_a_groups4": {"lite_stride": 1, **MOBILE_FORMER},
}


class Case:
    """One golden case.

    Args:
      name: a folder of goldens/.
      settings: Config fields that its file leaves open.
    """

    def __init__(self, name: str, **settings: object):
        self.name, self.folder = name, FOLDERS[name]
        self.about = json.loads((self.folder / "case.json").read_text())
        recorded = {key: tuples(value) for key, value in self.about.get("settings", {}).items()}
        self.settings = {**OPEN.get(name, {}), **recorded, **settings}

    def __str__(self) -> str:
        return self.name

    @property
    def architecture(self) -> str:
        return str(self.about["architecture"])

    @property
    def files(self) -> list[Path]:
        """Its checkpoints, in their native formats."""
        return [self.folder / name for name in sorted(self.about["files"]) if name != "io.safetensors"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Recorded: "input_nchw", "eval/logits.f64", "eval/inter/...", "train/grad/...", "train/stats/..."."""
        with open_checkpoint(self.folder / "io.safetensors") as reader:
            return {
                name: np.frombuffer(bytes(reader.read(name)), tensor.dtype).reshape(tensor.shape)
                for name, tensor in reader.tensors.items()
            }

    @property
    def images(self) -> np.ndarray:
        return self.arrays["input_nchw"]

    @property
    def logits(self) -> np.ndarray:
        return self.arrays["eval/logits.f64"]

    @property
    def image_gradient(self) -> np.ndarray:
        """d loss / d images, (n, c, h, w) whatever layout the original takes."""
        gradient = self.arrays["train/grad_input.f64"]
        return gradient.transpose(0, 3, 1, 2) if self.about["input_layout"] == "NHWC" else gradient

    def intermediates(self, table: str) -> dict[str, tuple[str, np.ndarray]]:
        """{golden name: (our tap, the recorded array in the tap's axes)}, by lines "theirs: axes   ours: axes"."""
        lines = [re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines()]
        signatures = [[side.partition(": ")[::2] for side in line] for line in lines]
        found = {}
        for key, array in self.arrays.items():
            name = key.removeprefix("eval/inter/").removesuffix(".f64")
            for (theirs, their_axes), (ours, our_axes) in signatures:
                if name != key and (known := match(parse_path(theirs), name)):
                    found[name] = fill(parse_path(ours), known[0]), rearranged(array, their_axes, our_axes)
        return found


def rearranged(array: np.ndarray, left: str, right: str) -> np.ndarray:
    """An array in other axes; compositions on the right only, or on the left with one side left to compute."""
    return Table.parse(f"table 1\nx: {left} <-> y: {right}").apply({"x": array})["y"]


_OF = {
    name: str(json.loads((folder / "case.json").read_text())["architecture"])
    for name, folder in FOLDERS.items()
    if (folder / "case.json").is_file()
}
CASES = sorted(name for name, architecture in _OF.items() if architecture in specs.names())
# Pages whose files lie in one folder share its goldens/: the cases of a page that no --spec names cannot be run.
LEFT_OUT = [
    f"{FOLDERS[name]}: is a case of {architecture}: add --spec PAGE to run it too"
    for name, architecture in sorted(_OF.items())
    if name not in CASES
]


def tap_inputs(port: Port, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what went first into each layer and block of `port.taps`, under the same names."""
    return {tap.name: tap.inputs[0] for tap in port.trace(images) if tap.name != OUTPUT}


def shortest(cases: Iterable[Case]) -> set[str]:
    """Name the case of fewest layers among all of an architecture whose layers have the same names and kinds."""
    from convert.plans.planning import plan
    from specs.layer import parameters
    from specs.notation.paths import pattern

    found: dict[object, tuple[int, str]] = {}
    for case in cases:
        with plan(case.files[0], settings=case.settings) as made:
            layers = list(specs.get(case.architecture).layers(made.config))
        kind = case.architecture, frozenset((pattern(p.name), p.layer.kind) for p in parameters(layers))
        found[kind] = min(found.get(kind, (len(layers), case.name)), (len(layers), case.name))
    return {name for _, name in found.values()}


def differentiated(cases: Iterable[Case]) -> list[Any]:
    """Return every case in torch and paddle; in flax, that of fewest layers among those with the same kinds of layers.

    XLA takes 3 to 10 seconds to compile the gradient of a case; `test_goldens` compares the logits of all in flax.
    """
    cases = list(cases)
    in_flax = shortest(cases)
    return [
        pytest.param(case, framework, id=f"{case}-{framework}")
        for case in cases
        for framework in ("flax", "torch", "paddle")
        if framework != "flax" or case.name in in_flax
    ]


def load(case: Case, framework: str) -> Port:
    """Load the port of a golden case in float64."""
    needs(framework)
    return ports.load(str(case.files[0]), framework, dtype="float64", **case.settings)


def moved(array: np.ndarray, move: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array as a move of a Table lays it out."""
    return array.reshape(move.source_atoms)[move.select].transpose(move.order).reshape(shape)


def put(parameter: Any, change: Callable[[Any], Any]) -> None:
    """Change the values of a torch parameter in place."""
    parameter.data.copy_(change(parameter.data).clone())


def swap(a: Any, b: Any) -> None:
    """Exchange the values of two torch tensors."""
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)
