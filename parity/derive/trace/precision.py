"""Give models that run in float64 the numbers of float32 where they ask for those of their dtype, as for an epsilon.

A model that is trained in float32 has these: 1.2e-7 is an epsilon that shows, and 2.2e-16, that of float64, is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from .tape import Array


@contextmanager
def numbers_of_float32(library: Any, parameters: Mapping[str, Array]) -> Iterator[None]:
    """Let `finfo` of torch, jax.numpy or paddle describe float32 where code asks for float64.

    Args:
      parameters: of a model, with their own dtypes: one that has float64 among them asks for that.
    """
    finfo = library.finfo

    def own(*args: Any, **kwargs: Any) -> Any:
        given = finfo(*args, **kwargs)
        return finfo(library.float32) if given.bits == 64 else given

    wide = any(array.dtype == np.float64 for array in parameters.values())
    with mock.patch.object(library, "finfo", finfo if wide else own):
        yield
