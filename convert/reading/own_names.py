"""Recognise paddle's own names of parameters, as linear_0.w_0, which say nothing of where in a model they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from convert.files.base import Reader
from convert.records.altered import WARNING

from .nesting import LONGEST, MAX_ARRAYS

OWN = re.compile(r"(?:.*/)?[a-z]\w*_\d+\.[wb]_\d+")  # of a kind of layer, its number in the process, and an array of it
REASON = "under paddle's own names of parameters: save it under those of model.state_dict()"


def is_own(name: str) -> bool:
    """Tell whether a name is one that paddle gives."""
    return len(name) <= LONGEST and OWN.fullmatch(name) is not None


def of_paddle(reader: Reader) -> str:
    """Return one of paddle's own names of a file's tensors, which only a layer of paddle gives; "" without any."""
    return next(filter(is_own, reader.parameter_names.values()), "")


def unusual_layout(reader: Reader, dialect: str, framework: str, usual: str) -> str:
    """Note that arrays are read in a layout that is not of the format's usual framework.

    Args:
      dialect: as which they are read, of `framework`. usual: framework of the format.
    """
    what = f"the arrays of this {reader.called} fit {dialect}, a dialect of {framework}"
    if usual == "paddle" and (own := of_paddle(reader)):
        layer = f"they have paddle's own names of parameters ({own}), which a layer of paddle gives"
        return f"{WARNING}{what}, but {layer}: in its layout matrices are transposed"
    return f"{what}: where names are alike, shapes alone tell them from those of {usual}"


def own_names(names: Iterable[str]) -> str:
    """Say that most of these names are paddle's own, and what to save instead; "" where they are not."""
    listed = list(islice(names, MAX_ARRAYS))
    own = [name for name in listed if is_own(name)]
    if 2 * len(own) <= len(listed):
        return ""
    what = f"{own[0]} is paddle's own name of a parameter (.name), as {len(own):,} of {len(listed):,} names are"
    return f"{what}: save the arrays, also those of an average, under the names of model.state_dict()"
