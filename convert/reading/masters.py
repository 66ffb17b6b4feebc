"""Find float32 masters of half-precision weights, and what paddle stores beside weights: an optimizer, numbers."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterable

from convert.documents import document
from convert.errors import ConvertError, command_or_call
from convert.files import open_checkpoint
from convert.files.base import PDOPT, Reader, Tensor
from convert.files.inside import JOIN_ZERO
from specs.words import count

from . import exchanged
from .nesting import AVERAGES, has_word

HALF = ("float16", "bfloat16")
IN_TORCH = "Half-precision weights in torch"
NUMBERS = ".pdstates"  # of PaddleClas
OF_MASTER = "_fp32_master_0_"  # between paddle's name of a parameter and that of a moment of its master
PADDLE = "master_weights"
PLACES = {  # where the state of an optimizer has masters -> part of docs/training.md that saves them as weights
    PADDLE: "To paddle and from it",
    **dict.fromkeys(("fp32_from_fp16", "fp32_from_fp16_params"), IN_TORCH),  # of apex and Megatron
    **dict.fromkeys(("fp32_groups", "fp32_groups_flat", "single_partition_of_fp32_groups"), IN_TORCH),  # of DeepSpeed
}
OLDER = "model_state.pdparams", "optimizer.pdopt"  # of PaddleNLP, before its unified checkpoints
UNIFIED = r"master_weights\.safetensors(\.index\.json)?"
GUIDE = f"see {document('training')}, {PLACES[PADDLE]}"
MIXED = (
    "it was trained in mixed precision, and paddle's float32 master_weights here are not converted: "
    f"save them as the model's weights, and the state without them: {GUIDE}"
)
WITHOUT = (
    "it was trained in mixed precision, and these are moments of float32 master_weights, which are not in the file: "
    f"if the weights are those, save the state without _fp32_master_0 in its names: {GUIDE}"
)
ZERO = r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt"  # the masters of DeepSpeed's ZeRO-1 and ZeRO-2


def suffixed(added: str) -> str:
    """Say why names of moments have more than the name of their weight: _fp32_master_0, or an optimizer's own name."""
    if f"{added}_".startswith(OF_MASTER):
        return WITHOUT
    what = f"weights of these names without {added} are in the file, and an optimizer with name={added[1:]!r} adds that"
    return f"{what}: save the state without {added} in its names"


def optimizer_file(reader: Reader) -> str:
    """Return the .pdopt beside a .pdparams, in which paddle stores the optimizer; "" if there is none."""
    beside = optimizer_place(reader)
    return beside if os.path.isfile(beside) else ""


def optimizer_place(reader: Reader) -> str:
    """Return where paddle stores the optimizer of these weights, whether it is there or not; "" for other formats."""
    folder, name = os.path.split(reader.path)
    beside = os.path.join(folder, OLDER[1]) if name == OLDER[0] else os.path.splitext(reader.path)[0] + PDOPT
    return beside if reader.format == "pdparams" and reader.on_disk and beside != reader.path else ""


def left_beside(reader: Reader, optimizer: bool = True) -> list[str]:
    """Name what lies beside a file with more of the training: an optimizer, averages of the weights, numbers.

    Beside a .pdparams these are files, and beside the item "state" of an Orbax CheckpointManager it is the item "ema".
    """
    if reader.format == "orbax" and reader.on_disk:
        folder, own = os.path.split(reader.path.rstrip("/"))
        names = sorted(name.rstrip("/") for name in glob.glob("*/", root_dir=folder or None))
        others = [os.path.join(folder, name) for name in names if name != own and has_word(name, AVERAGES)]
        return [f"{path} lies beside it, by its name an average of the weights: convert it alone" for path in others]
    if reader.format != "pdparams" or not reader.on_disk:
        return []
    stem, path = os.path.splitext(reader.path)[0], optimizer_file(reader)
    lines = exchanged.beside(reader)
    if os.path.isfile(numbers := stem + NUMBERS):
        lines.append(f"{numbers} lies beside it, by its name the epoch and metrics of the training: set aside")
    what = "by its name the state of the optimizer: --with-optimizer converts it too"
    return [*([f"{path} lies beside it, {what}"] if optimizer and path else []), *lines]


def remarks(reader: Reader, weights: Collection[Tensor]) -> list[str]:
    """Report that weights in half precision are converted while their float32 masters lie beside or in their file."""
    dtypes = sorted({tensor.dtype for tensor in weights if tensor.dtype in HALF})
    kept = (inside(reader) or _beside(reader, weights)) if dtypes else None
    if kept is None:
        return []
    place, remedy = kept
    what = f"{' and '.join(dtypes)} weights are by their names rounded copies of the float32 master weights"
    return [f"{what} {place}: to save those as the weights, {remedy}"]


def check(reader: Reader, weights: Iterable[Tensor]) -> None:
    """Check that a training can go on from weights: half-precision ones are none where it has masters of them.

    Args:
      reader: of the optimizer's state.
    Raises: ConvertError with the remedy.
    """
    kept = inside(reader) if any(tensor.dtype in HALF for tensor in weights) else None
    if kept:
        what = f"the float32 master weights {kept[0]} are the ones that the optimizer trains, and not converted"
        raise ConvertError(f"{reader.path}: {what}: to save them as the weights, {kept[1]}")


def check_unified(reader: Reader, weights: Collection[Tensor]) -> None:
    """Check as `check` for a state of PaddleNLP's, whose unified checkpoints have masters in a file of their own."""
    path = unified(reader) if any(tensor.dtype in HALF for tensor in weights) else ""
    if path:
        what = f"the float32 master weights in {path} are the ones that the optimizer trains"
        remedy = command_or_call(f"--optimizer {reader.path}", f"optimizer={reader.path!r}")
        raise ConvertError(f"{reader.path}: {what}: {_remedy(path, weights)}, with {remedy}")


def _remedy(path: str, weights: Iterable[Tensor]) -> str:
    """Say how masters in a file of their own are converted: with the weights that have none, as norms in float32."""
    without: list[str] = []
    with (
        contextlib.suppress(ConvertError),
        open_checkpoint(path) as masters,
    ):  # which says of a damaged file what is wrong
        without = [tensor.name for tensor in weights if tensor.name not in masters.tensors]
    if not without:
        return "convert that file"
    joined = f"convert both in one file, see {document('training')}, {PLACES[PADDLE]}"
    return f"{count(len(without), 'weight')} {'has' if len(without) == 1 else 'have'} none there, so {joined}"


def unified(reader: Reader) -> str:
    """Return the file of master weights that a unified checkpoint of PaddleNLP has beside another file; else ""."""
    folder = os.path.dirname(reader.path)
    names = os.listdir(folder or os.curdir) if reader.format == "safetensors" and reader.on_disk else []
    found = [name for name in sorted(names) if re.fullmatch(UNIFIED, name)]
    return os.path.join(folder, found[0]) if found else ""


def beside_unified(reader: Reader) -> str:
    """Return the file of the weights that a unified checkpoint has beside its master weights, if these are read."""
    folder, name = os.path.split(reader.path)
    if not (reader.on_disk and re.fullmatch(UNIFIED, name)):
        return ""
    places = (os.path.join(folder, f"model.safetensors{suffix}") for suffix in ("", ".index.json"))
    return next(filter(os.path.isfile, places), "")


def inside(reader: Reader) -> tuple[str, str] | None:
    """Say where a file has float32 masters, and how to save them as weights."""
    for name in reader.tensors:
        levels = name.split("/")[:-1]
        if level := next((level for level in levels if level in PLACES), None):
            place = "/".join(levels[: levels.index(level) + 1])
            return f"under {place}/", f"see {document('training')}, {PLACES[level]}"
    return None


def _beside(reader: Reader, weights: Iterable[Tensor]) -> tuple[str, str] | None:
    """Say which file beside the weights has their masters, as of paddle and of DeepSpeed's ZeRO, and the remedy."""
    if path := optimizer_file(reader):
        try:
            with open_checkpoint(path) as optimizer:
                kept = inside(optimizer)
        except ConvertError:  # a damaged file beside the weights is no fault of theirs
            return None
        return (f"{kept[0]} in {path}", kept[1]) if kept else None
    if path := unified(reader):
        return f"in {path}", _remedy(path, weights)
    folder = os.path.dirname(reader.path)
    names = os.listdir(folder or os.curdir) if reader.format == "torch" and reader.on_disk else []
    parts = sorted(name for name in names if re.fullmatch(ZERO, name))
    return (f"in {os.path.join(folder, parts[0])}", JOIN_ZERO) if parts else None
