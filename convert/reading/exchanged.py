"""Tell the trained weights from their average where a tool exchanges both on saving, so that names say the contrary.

Each tool's arrangement is a row here, with the signs by which a file shows it. Of all other files, the words in names
say what is an average (nesting.COPIES).
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from convert.errors import UsageError, option
from convert.files.base import Reader, Tensor

from .nesting import label


class Exchange(NamedTuple):
    """How a tool arranges a file with two sets of weights.

    Args:
      signs: each begins the name of an array or entry of such a file.
      average: place of the average. trained: place of the weights that the optimizer trains.
      counter: the array that counts how often the weights were averaged.
    """

    tool: str
    signs: tuple[str, ...]
    average: str
    trained: str
    counter: str


EXCHANGES = (  # by the sources of mmengine 0.10 (ema_hook.py) and Lightning 2.6 (weight_averaging.py)
    Exchange(
        "mmengine's EMAHook", ("ema_state_dict/", "meta/mmengine_version"), "state_dict/", "ema_state_dict/",
        "ema_state_dict/steps",
    ),
    Exchange(
        "Lightning's WeightAveraging", ("current_model_state/", "averaging_state/"), "state_dict/",
        "current_model_state/", "averaging_state/n_averaged",
    ),
)  # fmt: skip


class Beside(NamedTuple):
    """A file of weights that a tool writes beside a .pdparams.

    Args:
      suffix: by which it is known. trained: whether it has the weights that the optimizer trains, and not an average.
    """

    tool: str
    suffix: str
    trained: bool


BESIDE = (  # PaddleDetection exchanges both on saving (ppdet/utils/checkpoint.py)
    Beside("PaddleDetection", ".pdema", trained=True),
    Beside("PaddleClas", ".ema.pdparams", trained=False),
)


def exchange_of(reader: Reader) -> Exchange | None:
    """Return the arrangement of a file whose signs show one."""
    for one in EXCHANGES:
        if not any(name.startswith(one.trained) for name in reader.tensors):
            continue
        names = [*reader.tensors, *reader.skipped.load()]
        if all(any(name.startswith(sign) for name in names) for sign in one.signs):
            return one
    return None


def _within(weights: Iterable[Tensor], place: str) -> bool:
    return any(tensor.name.startswith(place) for tensor in weights)


def remarks(reader: Reader, weights: Iterable[Tensor]) -> list[str]:
    """Say that the weights which are converted are an average, or the trained ones, against what names say."""
    listed, one = list(weights), exchange_of(reader)
    if one is None:
        return []
    average, trained = label(one.average), label(one.trained)
    both = f"{one.tool} saves the average of the weights under {average}, and the trained weights under {trained}"
    if _within(listed, one.average):
        return [f"{both}: took the average ({option('weights', trained)} takes the others)"]
    return [f"{both}: took the trained ones"] if _within(listed, one.trained) else []


def _beside(reader: Reader) -> Iterator[tuple[Beside, str]]:
    """Yield each file of other weights beside a .pdparams, with its row."""
    stem = os.path.splitext(reader.path)[0]
    if reader.format == "pdparams" and reader.on_disk:
        paths = ((one, stem + one.suffix) for one in BESIDE)
        yield from ((one, path) for one, path in paths if path != reader.path and os.path.isfile(path))


def beside(reader: Reader) -> list[str]:
    """Name each file of other weights beside a .pdparams, and say which of both has the average."""
    lines = []
    for one, path in _beside(reader):
        trained = f"the trained weights, and {reader.path} has their average"
        holds = trained if one.trained else f"an average of the weights of {reader.path}"
        lines.append(f"{path} lies beside it: as {one.tool} saves it, it has {holds}: convert it by itself")
    stem, suffix = os.path.splitext(reader.path)
    own = next((one for one in BESIDE if one.trained and one.suffix == suffix and reader.on_disk), None)
    if own and os.path.isfile(average := f"{stem}.pdparams"):
        lines.append(f"{average} lies beside it: as {own.tool} saves it, it has the average of these trained weights")
    return lines


def check_trained(reader: Reader, weights: Iterable[Tensor]) -> None:
    """Check that weights are those that an optimizer trains, as far as a file shows it. Raises: UsageError."""
    is_of, one = "and the optimizer's state is of the trained weights", exchange_of(reader)
    if one and _within(weights, one.average):
        what = f"{one.tool} saves the average of the weights under {label(one.average)}"
        remedy = f"{option('weights', label(one.trained))} takes these, and the average goes along"
        raise UsageError(f"{reader.path}: {what}, {is_of}: {remedy}")
    for row in _beside(reader):
        if row[0].trained:
            what = f"as {row[1]} lies beside it, {row[0].tool} saved the average of the weights here"
            remedy = f"give {row[1]} (if another tool wrote both, and that is the average, rename it)"
            raise UsageError(f"{reader.path}: {what}, {is_of}: {remedy}")
