"""Find what paddle stores beside weights: an optimizer, averages, numbers, and float32 masters of half precision."""

from __future__ import annotations

import os
from collections.abc import Iterable

from convert.documents import document
from convert.errors import ConvertError
from convert.files import open_checkpoint
from convert.files.base import PDOPT, Reader, Tensor

HALF = ("float16", "bfloat16")
AVERAGES = (".pdema", ".ema.pdparams")  # of PaddleDetection and PaddleClas
NUMBERS = ".pdstates"  # of PaddleClas
PLACE = "master_weights/"  # in the state_dict of a paddle.optimizer that trains in mixed precision


def optimizer_file(reader: Reader) -> str:
    """Return the .pdopt beside a .pdparams, in which paddle stores the optimizer; "" if there is none."""
    beside = optimizer_place(reader)
    return beside if os.path.isfile(beside) else ""


def optimizer_place(reader: Reader) -> str:
    """Return where paddle stores the optimizer of these weights, whether it is there or not; "" for other formats."""
    beside = os.path.splitext(reader.path)[0] + PDOPT
    return beside if reader.format == "pdparams" and reader.on_disk and beside != reader.path else ""


def left_beside(reader: Reader, optimizer: bool = True) -> list[str]:
    """Name the files beside a .pdparams with more of the training: an optimizer, averages of the weights, numbers."""
    if reader.format != "pdparams" or not reader.on_disk:
        return []
    stem, path = os.path.splitext(reader.path)[0], optimizer_file(reader)
    averages = [one for suffix in AVERAGES if os.path.isfile(one := stem + suffix) and one != reader.path]
    lines = [f"{one} lies beside it, by its name an average of the weights: convert it by itself" for one in averages]
    if os.path.isfile(numbers := stem + NUMBERS):
        lines.append(f"{numbers} lies beside it, by its name the epoch and metrics of the training: set aside")
    what = "by its name the state of the optimizer: --with-optimizer converts it too"
    return [*([f"{path} lies beside it, {what}"] if optimizer and path else []), *lines]


def remarks(reader: Reader, weights: Iterable[Tensor]) -> list[str]:
    """Report that weights in half precision are converted while their float32 masters lie beside or in their file."""
    dtypes = sorted({tensor.dtype for tensor in weights if tensor.dtype in HALF})
    if reader.format != "pdparams" or not dtypes:
        return []
    place = next((name.partition(PLACE)[0] + PLACE for name in reader.tensors if PLACE in name), "")
    if not place and (path := optimizer_file(reader)):
        try:
            with open_checkpoint(path) as optimizer:
                place = f"{PLACE} in {path}" if any(name.startswith(PLACE) for name in optimizer.tensors) else ""
        except ConvertError:  # a damaged file beside the weights is no fault of theirs
            return []
    what = f"{' and '.join(dtypes)} weights are rounded copies of the float32 master weights under {place}"
    remedy = f"to save those as the weights, see {document('training')}, To paddle and from it"
    return [f"{what}: {remedy}"] if place else []
