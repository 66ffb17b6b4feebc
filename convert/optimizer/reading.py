"""Read the state of an optimizer from a checkpoint: optax's, torch's or paddle's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from convert import folding
from convert.errors import ConvertError
from convert.files.base import Reader, Tensor
from convert.reading.families import MOMENTS
from convert.reading.optimizers import Found
from specs.notation.dtype_kinds import kind

from .from_optax import read_optax
from .from_paddle import read_paddle
from .from_torch import read_torch
from .state import State


def read(
    reader: Reader,
    location: Found,
    parameters: Mapping[str, Tensor],
    own: Mapping[str, str],
    stated: Any,
    order: str,
    dropped: Collection[str] = (),
    repeated: Collection[str] = (),
) -> State:
    """Read a state.

    Args:
      parameters: the trained arrays of the source by name.
      order: what shows that they are in the order in which torch counts them, as "the state_dict"; "" if nothing does.
      dropped: those of them that the target has no place for, which may be buffers.
      repeated: those of them that are another name of an earlier one, as of a tied head.
      own: parameter -> paddle's own name of it.
      stated: what the user states of the optimizer: steps and betas, where the file does not say them.
    Raises: ConvertError for what no other library keeps alike; UsageError for what has to be stated.
    """
    if location.library == "torch":
        state = read_torch(reader, location, parameters, stated, order, dropped, repeated)
    elif location.library == "paddle":
        state = read_paddle(reader, location, parameters, own, stated)
    else:
        state = read_optax(reader, location, parameters, stated)
    some = {name for arrays in state.moments.values() for name in arrays}
    for slot, arrays in state.moments.items():
        if lacking := sorted(some - arrays.keys()):
            other = next(one for one, some in state.moments.items() if lacking[0] in some)
            one, missing = (MOMENTS[name].of(location.library) for name in (other, slot))
            what = f"has {one} of {folding.listed(lacking)} and no {missing}"
            raise ConvertError(f"{reader.path}: {what}: its optimizer is incomplete")
        for name, moment in arrays.items():
            if kind(moment.dtype) not in ("float", "complex"):
                what = f"{moment.name} has dtype {moment.dtype}, and moments are floating-point numbers"
                raise ConvertError(f"{reader.path}: {what}: its optimizer quantizes them, or is another one")
            if moment.shape != parameters[name].shape:
                what = f"has shape {list(moment.shape)}, and {name}, whose {slot} moment it is, "
                raise ConvertError(
                    f"{reader.path}: {moment.name} {what}{list(parameters[name].shape)}: the optimizer is another "
                    "model's, or its parameters are in another order"
                )
    return state
