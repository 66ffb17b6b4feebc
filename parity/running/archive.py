"""Write recordings to .npz files and read them: arrays and one JSON text, no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ports.runners.records import Tap

from .recording import Recording

# fields of a Recording that JSON can hold
PLAIN = (
    "label", "framework", "dtype", "device", "architecture", "kinds", "cause", "unable", "masks", "origin", "holds",
    "random", "notes", "file",
)  # fmt: skip


def save(recording: Recording, path: str) -> None:
    """Write a recording."""
    arrays: dict[str, np.ndarray] = {}
    about = json.dumps(_pack(recording, arrays))
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, about=np.array(about), **arrays)


def load(path: str) -> Recording:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return _unpack(json.loads(str(file["about"])), file)


def _pack(r: Recording, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Describe a recording in JSON types; add its arrays to `arrays` under keys that stand in their places."""

    def store(array: np.ndarray) -> str:
        key = f"a{len(arrays)}"
        arrays[key] = array
        return key

    return {
        **{name: getattr(r, name) for name in PLAIN},
        "arrays": {name: store(array) for name, array in r.arrays.items()},
        "weights": {name: store(array) for name, array in r.weights.items()},
        "spread": {name: store(array) for name, array in r.spread.items()},
        "taps": [[t.name, [store(a) for a in t.inputs], [store(a) for a in t.outputs], list(t.keys)] for t in r.taps],
        "truth": _pack(r.truth, arrays) if r.truth else None,
    }


def _unpack(about: dict[str, Any], file: Mapping[str, np.ndarray]) -> Recording:
    return Recording(
        **{name: about[name] for name in PLAIN},
        arrays={name: file[key] for name, key in about["arrays"].items()},
        weights={name: file[key] for name, key in about["weights"].items()},
        spread={name: file[key] for name, key in about["spread"].items()},
        taps=[
            Tap(name, tuple(file[k] for k in i), tuple(file[k] for k in o), tuple(keys))
            for name, i, o, keys in about["taps"]
        ],
        truth=_unpack(about["truth"], file) if about["truth"] else None,
    )
