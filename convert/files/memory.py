"""Offer the arrays of a model in memory as a file's are, so that they are written as a conversion is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convert.errors import ConvertError

from .base import ITEMSIZE, Reader, Tensor, shown
from .modules import Module

if TYPE_CHECKING:
    import numpy as np


class MemoryReader(Reader):
    """A model's arrays by name.

    Args:
      path: what messages call the model.
      arrays: name -> (dtype, array); of a dtype that numpy lacks, an array of its bits.
      modules: those of the model whose settings can be read.
    Raises: ConvertError for a dtype that no checkpoint holds.
    """

    format = "memory"
    on_disk = False

    def __init__(self, path: str, arrays: Mapping[str, tuple[str, np.ndarray]], modules: Iterable[Module] = ()):
        import numpy as np

        if odd := [name for name, (dtype, _) in arrays.items() if dtype not in ITEMSIZE]:
            raise ConvertError(f"{path}: {shown(odd[0])} is {arrays[odd[0]][0]}, which no checkpoint holds")
        self.path, self.metadata, self.modules = path, {}, [*modules]
        self.tensors = {name: Tensor(name, array.shape, dtype) for name, (dtype, array) in arrays.items()}
        self._arrays = {name: np.ascontiguousarray(array) for name, (_, array) in arrays.items()}

    @property
    def called(self) -> str:
        return "model in memory"

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        return self._arrays[name].reshape(-1).view("u1").data[start:stop]

    def close(self) -> None:
        self._arrays = {}
