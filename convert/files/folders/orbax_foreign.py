"""Arrays of an Orbax checkpoint that are not in the layout Orbax writes by itself, read through tensorstore.

Zarr 3; in Zarr 2 other compressors and filters, Fortran order, big-endian numbers, other fill values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

from convert.errors import FormatError
from convert.files.base import ITEMSIZE, Tensor, shown
from convert.files.folders.extras import orbax_needs
from convert.files.folders.store import REMEDY

UNREADABLE = (ValueError, OSError, IndexError, NotImplementedError, RuntimeError)  # what tensorstore raises


def opened(
    path: str, root: str, ocdbt: bool, zarr: str, zeros: bool, kept: dict[str, str]
) -> Iterator[tuple[str, ForeignArray]]:
    """(name, array) of {name: where it is kept}, all opened at once. Raises: FormatError where one is missing.

    Args:
      path: the checkpoint, for messages.
      root: where its arrays lie; in a database if `ocdbt`.
      zarr: "zarr" or "zarr3".
      zeros: may chunks be missing?
    """
    ts = orbax_needs("tensorstore")
    base, context = {"driver": "file", "path": os.path.join(os.path.abspath(root), "")}, ts.Context()

    def spec(where: str) -> dict[str, Any]:
        database = {"driver": "ocdbt", "base": base, "path": f"{where}/"}
        store = database if ocdbt else {**base, "path": f"{base['path']}{where}/"}
        return {"driver": zarr, "kvstore": store, "fill_missing_data_reads": zeros}

    opening = {name: ts.open(spec(where), read=True, context=context) for name, where in kept.items()}
    for name, future in opening.items():
        try:
            array = future.result()
        except UNREADABLE as error:
            problem = f"the array {shown(name)} cannot be read: {shown(str(error))[1:-1]}"
            raise FormatError(path, problem, REMEDY) from None
        if array.dtype.name not in ITEMSIZE:
            problem = f"the array {shown(name)} has dtype {array.dtype.name}"
            raise FormatError(path, problem, "save numbers only")
        yield name, ForeignArray(name, array)


class ForeignArray:
    """Like a ZarrArray."""

    direct = False

    def __init__(self, name: str, array: Any):
        self._array, layout = array, array.chunk_layout
        self.tensor = Tensor(name, tuple(array.shape), array.dtype.name)
        read, write = (tuple(chunk.shape or ()) for chunk in (layout.read_chunk, layout.write_chunk))
        self.chunk = Tensor(name, max(read, write, key=math.prod), self.tensor.dtype)
        self.rows = (read or (1,))[0] or 1
        self.grid = (-(-(self.tensor.shape or (1,))[0] // self.rows),)  # of bands

    def read(self, band: int, start: int, stop: int) -> bytes:
        return bytes(self.band(band)[start:stop])

    def band(self, band: int) -> memoryview:
        import numpy as np

        rows = self._array
        if self.tensor.shape:
            rows = rows[band * self.rows : min((band + 1) * self.rows, self.tensor.shape[0])]
        try:
            found = np.ascontiguousarray(rows.read().result())
        except UNREADABLE as error:
            raise ValueError(str(error)) from None
        return found.reshape(-1).view(np.uint8).data
