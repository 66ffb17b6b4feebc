"""Read the files in which training programs note which checkpoint of a folder is the last one that they saved."""

from __future__ import annotations

import os
import re

POINTERS = {  # file -> what of its text names an entry of the folder
    "latest": r"([^\n]+)",  # of DeepSpeed: "global_step5"
    "last_checkpoint": r"(?:[^\n]*[/\\])?([^\n/\\]+)",  # of mmengine and detectron2: the path or name of a file
    "latest_checkpointed_iteration.txt": r"(\d{1,12}|release)",  # of Megatron: of iter_0000005
    "checkpoint": r'model_checkpoint_path: "(?:[^"\n]*/)?([^"\n/]+)"[\s\S]*',  # of TensorFlow, and flax before Orbax
}
LONGEST = 4096  # bytes of such a file


def followed(folder: str, models: list[str], newest: str | None) -> tuple[str | None, list[str]]:
    """Return the checkpoint that a folder's own program would load, and notes where that is not the newest.

    Args:
      models: entries of the folder. newest: the one of them that is meant by its name, if that shows.
    """
    for file, pattern in POINTERS.items():
        said = re.fullmatch(pattern, _text(os.path.join(folder, file)))
        if said is None or not models:
            continue
        entry = said[1]
        if entry.isdecimal() and entry not in models:
            entry = f"iter_{int(entry):07d}"
        where = os.path.join(folder, file)
        if entry in models:
            return entry, [f"{where} names {entry}, and not {newest}"] if newest not in (None, entry) else []
        if re.fullmatch(r"[\w.=-]+", entry):
            return newest, [f"{where} names {entry}, which is no checkpoint here"]
    return newest, []


def _text(path: str) -> str:
    """Return what a small file says, without white space around it; "" where it is none."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LONGEST:
            return ""
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
