"""Look into a folder, or for a file whose suffix was left out: which checkpoint does the user mean?

One rule for all commands. What stores the state of an optimizer or of a training run is set aside by its name; of what
is left, the newest step is taken, or the one that the user names; a model in several formats is taken once.
"""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from convert.errors import FormatError, UsageError, option

from . import pointers
from .base import INCOMPLETE, shown
from .entry_names import (
    NUMBERED,
    OPTIMIZER_FILES,
    PROGRAM,
    index_of,
    is_shard,
    is_training,
    preferred,
    step_of,
    steps_of,
)
from .parts import JOIN, NAMED, divided, listed

MAX_DEPTH = 4  # folders within each other: a run, its step, an item, and one more
MAX_ENTRIES = 20_000  # looked at in all folders together: more are not the checkpoints of one run

JOIN_ZERO = "in the folder with zero_to_fp32.py run: python zero_to_fp32.py . joined"
JOIN_PADDLE = (
    "in paddle fill state = model.state_dict() by paddle.distributed.load_state_dict(state, folder), and save it by "
    'paddle.save(state, "model.pdparams")'
)
PARTS = (  # files that are parts of one checkpoint, what wrote them, and what joins them
    (r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt", "the parts of a checkpoint of DeepSpeed's ZeRO-3", JOIN_ZERO),
    (r"\d+_\d+\.distcp", "a distributed checkpoint of paddle", JOIN_PADDLE),
)
BOOKKEEPING = {"_CHECKPOINT_METADATA", "commit_success.txt", "descriptor"}
_UNFINISHED = r"\.orbax-checkpoint-tmp|\.tmp$|\.part$|^tmp"


PATTERN = re.compile(r"[*?[]")


class Found(NamedTuple):
    """What a path means.

    Args:
      path: of the checkpoint. notes: what was looked into and not taken, for people.
    """

    path: str
    notes: tuple[str, ...] = ()


class Several(FormatError):
    """A folder holds several checkpoints and nothing shows which is meant.

    Attributes:
      folder: which, or the path to which suffixes are missing.
    """

    def __init__(self, folder: str, problem: str, remedy: str):
        super().__init__(folder, problem, remedy)
        self.folder = folder


def look(path: str, step: int | None = None) -> Found:
    """Find the checkpoint that a path means: the path itself, unless it is a folder of others or lacks its suffix.

    Args:
      step: of a training run, whose folder holds several; None takes the newest.
    Raises: Several; UsageError where there is no such step; FormatError for what cannot be listed.
    """
    from . import folder_format

    if os.path.isdir(path) and not folder_format(path):
        return _in_folder(path, step)
    if step is not None:
        raise UsageError(f"{_asked(step)}: {path} is one checkpoint, not a folder of steps")
    if os.path.lexists(path):
        return Found(path)
    return _matching(path, step) if PATTERN.search(path) else _with_suffix(path)


def _matching(pattern: str, step: int | None) -> Found:
    """Find the one checkpoint that a pattern means. Raises: Several, or FormatError where nothing has such a name."""
    matches = [name for name in matching(pattern) if not _is_record(name)]
    if len(matches) > 1:
        raise Several(pattern, f"means several checkpoints: {listed(matches)}", "give one of them")
    location = look(matches[0], step)
    return Found(location.path, (f"{pattern} means {matches[0]}", *location.notes))


def matching(pattern: str) -> list[str]:
    """Return the paths that a pattern means. Raises: UsageError where there is none."""
    from glob import glob

    if not (matches := sorted(glob(pattern, recursive=True))):
        raise UsageError(f"{pattern}: no file has such a name (check the pattern)")
    return matches


def _is_record(path: str) -> bool:
    """Tell whether a file is the .json beside another one."""
    return path.endswith(".json") and os.path.exists(path.removesuffix(".json"))


def looks(paths: Iterable[str], steps: Sequence[int]) -> list[Found]:
    """Find the checkpoints that several paths mean.

    Args:
      steps: as many as paths, or one for each path that is a folder of steps, or none.
    Raises: as `look` does; UsageError where the one step is of no path, or their number is another.
    """
    from . import folder_format

    listed = list(paths)
    if len(steps) in (0, len(listed)):
        each: Sequence[int | None] = steps or [None] * len(listed)
        return [look(path, step) for path, step in zip(listed, each, strict=True)]
    if len(steps) > 1:
        raise UsageError(f"{_asked(steps[0])}: {len(steps)} steps of {len(listed)} checkpoints: give one, or one each")
    of_steps = [os.path.isdir(path) and not folder_format(path) for path in listed]
    if not any(of_steps):
        raise UsageError(f"{_asked(steps[0])}: {' and '.join(listed)} are no folders of steps")
    return [look(path, steps[0] if has else None) for path, has in zip(listed, of_steps, strict=True)]


def _asked(step: int) -> str:
    return option("step", str(step))


def _with_suffix(path: str) -> Found:
    """Return the file beside a path that only lacks its suffix, as paddle names files."""
    from . import suffixes

    known = [suffix for suffix in suffixes() if suffix not in OPTIMIZER_FILES]
    there = [path + suffix for suffix in known if os.path.exists(path + suffix)]
    if not there and os.path.exists(path + PROGRAM):
        there = [path + PROGRAM]
    if len(there) > 1:
        names = [os.path.basename(name) for name in there]
        raise Several(path, f"there is no such file, but there are {listed(names)}", "name one of them")
    return Found(there[0], (f"{path} names {there[0]}",)) if there else Found(path)


def _in_folder(path: str, step: int | None) -> Found:
    entries = _Walk(path).candidates(path, MAX_DEPTH)
    named = {*entries, *os.listdir(path)}
    for pattern, what, remedy in PARTS:
        if any(re.fullmatch(pattern, entry) for entry in named):
            raise FormatError(path, f"holds {what}", remedy)
    models = [name for name in entries if not is_training(name)]
    models = [name for name in models if not name.endswith(PROGRAM)] or models
    prefix = _prefix(path, models)
    name = _chosen(path, models, step, prefix)
    name, remarks = (name, []) if step is not None else pointers.followed(path, models, name)
    if name is None:
        _refuse_several(path, models, step)
        for inner, what in _incomplete(path).items():
            raise FormatError(os.path.join(path, inner), what, INCOMPLETE)
        return Found(path)
    number = step_of(name.removeprefix(prefix))
    numbered = number is not None and (step is None or number == step)
    inner = os.path.join(path, name)
    if step is not None and not numbered and not os.path.isdir(inner):
        raise UsageError(f"{_asked(step)}: {path} has no numbered steps")
    further = look(inner, None if numbered else step) if os.path.isdir(inner) else Found(inner)
    shards = {os.path.basename(shard) for shard in _files_of(further.path)}
    others = [e for e in sorted(os.listdir(path)) if e not in (name, f"{name}.json", *BOOKKEEPING, *shards)]
    others = [e for e in others if e[0] != "."]
    beside = f"; beside it: {listed(others)}" if others else ""
    lacks = remarks + [f"{inner} {what} ({INCOMPLETE})" for inner, what in _incomplete(path).items()]
    lacks += _newer(path, name, [e for e in others if e not in entries], prefix) if step is None else []
    return Found(further.path, (f"took {name} of {path}{beside}", *lacks, *_described(path), *further.notes))


def _refuse_several(path: str, models: list[str], step: int | None) -> None:
    """Refuse a folder of several checkpoints, none of which is meant before the others. Raises: FormatError."""
    if parts := divided(models):
        raise FormatError(path, f"holds parts of a model that several processes divide: {listed(parts)}", JOIN)
    if step is not None:
        raise UsageError(f"{_asked(step)}: {path} has no numbered steps")
    if len(models) > 1 and (index := index_of(models)):
        raise FormatError(path, f"holds shards of a model, {listed(models)}, and lacks {index}", "download it too")
    if len(models) > 1:
        raise Several(path, f"is a folder of several checkpoints: {listed(models)}", "give one of them")


def _newer(path: str, taken: str, others: list[str], prefix: str) -> list[str]:
    """Report folders of later steps than the one that is taken, in which nothing is a whole checkpoint."""
    last = step_of(taken.removeprefix(prefix))
    folders = [entry for entry in others if os.path.isdir(os.path.join(path, entry))]
    later = [entry for entry in folders if (step_of(entry.removeprefix(prefix)) or 0) > (last or 0)]
    return [f"passed over {listed(later)}: it holds no complete checkpoint"] if last is not None and later else []


def _files_of(path: str) -> list[str]:
    """Return an index of shards and these; [] for any other checkpoint, and for an index that is damaged."""
    from . import INDEX, files_of

    try:
        return files_of(path) if INDEX.search(path) else []
    except FormatError:
        return []


def _incomplete(path: str) -> dict[str, str]:
    """Return {folder in a folder: what it lacks} of those that hold parts of a checkpoint and are none."""
    from . import folder_format, lacking

    inner = {name: os.path.join(path, name) for name in sorted(os.listdir(path))}
    lacks = {name: lacking(whole) for name, whole in inner.items() if not folder_format(whole)}
    return {name: what for name, what in lacks.items() if what}


def _described(path: str) -> list[str]:
    """Describe what the config.json of a Hugging Face folder says of the model: timm's has its name and classes."""
    from . import bounded_json
    from .base import record_at

    try:
        about = bounded_json.loads(record_at(os.path.join(path, "config.json")) or "{}")
    except (ValueError, FormatError):
        return []
    fields = {key: about[key] for key in ("architecture", "num_classes") if isinstance(about, dict) and key in about}
    facts = [
        f"{key}={shown(value)[1:-1] if isinstance(value, str) else value}"
        for key, value in fields.items()
        if isinstance(value, (str, int))
    ]
    return [f"config.json says: {' '.join(facts)}"] if facts else []


def _prefix(path: str, models: list[str]) -> str:
    """Return what stands before the numbers of the steps that one CheckpointManager of Orbax wrote: its step_prefix."""
    names = [re.fullmatch(r"(.+_)\d{1,18}", name) for name in models]
    prefixes = {match[1] if match else "" for match in names}
    managed = all(os.path.isfile(os.path.join(path, name, "_CHECKPOINT_METADATA")) for name in models)
    return prefixes.pop() if len(prefixes) == 1 and managed else ""


def _chosen(path: str, models: list[str], step: int | None, prefix: str = "") -> str | None:
    """Return the one of several checkpoints that is meant, if that shows. Raises: UsageError without such a step.

    Args:
      prefix: of every name, before the number of its step.
    """
    if prefix:
        chosen = _chosen(path, [name.removeprefix(prefix) for name in models], step)
        return chosen and prefix + chosen
    steps = steps_of(models)
    if step is None or not steps:
        return preferred(models)
    if not (names := [name for name, number in steps.items() if number == step]):
        have = ", ".join(map(str, sorted(set(steps.values()))[-NAMED:]))
        raise UsageError(f"{_asked(step)}: {path} has the steps {have}")
    if len(names) > 1:
        raise Several(path, f"has several checkpoints of step {step}: {listed(names)}", "give one of them")
    return names[0]


class _Walk:
    """Looks at entries of a folder and of its folders, up to MAX_ENTRIES. Raises: FormatError beyond."""

    def __init__(self, root: str):
        self.root, self.left = root, MAX_ENTRIES

    def candidates(self, path: str, depth: int) -> list[str]:
        """Return entries of a folder that are checkpoints or hold one; shards are found through their index."""
        names = sorted(entry.name for entry in self._entries(path) if self._is_checkpoint(entry, depth))
        listed = set(names)
        return [name for name in names if not is_shard(name, listed)]

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(path) as scan:
                entries = list(islice(scan, self.left + 1))
        except OSError as error:
            raise FormatError(path, f"cannot be read: {error.strerror}", "chmod +rx it, or copy it") from None
        self.left -= len(entries)
        if self.left < 0:
            raise FormatError(self.root, f"holds over {MAX_ENTRIES:,} entries", "give the checkpoint itself")
        return [e for e in entries if not e.name.startswith(".") and not re.search(_UNFINISHED, e.name)]

    def _is_checkpoint(self, entry: os.DirEntry[str], depth: int) -> bool:
        from . import folder_format, is_msgpack, is_named_as_checkpoint

        if entry.is_dir():
            if folder_format(entry.path):
                return True
            inner = self._entries(entry.path) if depth > 1 and not entry.is_symlink() else []
            return any(self._is_checkpoint(one, depth - 1) for one in inner)
        if not entry.is_file():
            return False
        if is_named_as_checkpoint(entry.name) or entry.name.endswith(PROGRAM):
            return True
        return re.match(NUMBERED, entry.name) is not None and "." not in entry.name and is_msgpack(entry.path)
