"""Small checkpoints for tests of commands, and what is asked of files and processes; `run` is a fixture of conftest."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from convert.files import open_checkpoint

from .golden import Case

ROOT = Path(__file__).parent.parent
GOOGLE = Case("flax_mixer").folder / "weights.npz"
# What a conversion of it says.
IDLE = "; padding=SAME (no effect at the model's own image size)"
GOOGLE_NOTE = f"note: the file does not say, assumed as google's own code computes: gelu=tanh, norm_eps=1e-6{IDLE}\n"
TIMM = Case("timm_mixer").folder / "weights.pth"


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def metadata(path):
    with open_checkpoint(path) as reader:
        return reader.metadata


def spoiled(tmp_path, change):
    """The Google checkpoint with its arrays changed, as .npz."""
    arrays = dict(np.load(GOOGLE))
    change(arrays)
    np.savez(tmp_path / "spoiled.npz", **arrays)
    return tmp_path / "spoiled.npz"


def python_path(*folders):
    """Return PYTHONPATH with these folders and ours before what it has: site-packages may come by it."""
    there = filter(None, [os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), str(ROOT), *there])}


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
