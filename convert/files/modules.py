"""Describe the modules of torch's own that a model pickled whole contains: their settings are numbers in the pickle."""

from collections.abc import Mapping
from typing import Any, NamedTuple

PACKAGE = "torch.nn.modules."  # of every module of torch's own
ACTIVATIONS = f"{PACKAGE}activation."
AT_OUTPUTS = {"MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax"}  # among them, and none inside
ATTRIBUTES = ("eps", "momentum", "approximate")  # that are read: a file may have millions of others
MAX_MODULES = 50_000  # of one file: as many as tensors


class Module(NamedTuple):
    """One of torch's own modules inside a pickled one.

    Args:
      path: as the names of its arrays begin in the file.
      name: of its class, with its Python module.
      values: those of its ATTRIBUTES that are numbers or texts.
    """

    path: str
    name: str
    values: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Return the name of its class alone."""
        return self.name.rpartition(".")[2]

    @property
    def activation(self) -> str:
        """Return which activation it is, as in "ReLU", "GELU" or "GELU tanh"; "" if it is none."""
        if not self.name.startswith(ACTIVATIONS) or self.kind in AT_OUTPUTS:
            return ""
        approximate = self.values.get("approximate", "none")  # which early versions of torch did not have
        return self.kind if approximate == "none" else f"{self.kind} {str(approximate)[:20]}"

    def of_norm(self, attribute: str) -> int | float | None:
        """Return "eps", or as "momentum" the share that running statistics keep, of a norm; None of other modules."""
        value = self.values.get(attribute) if "Norm" in self.kind else None
        if not isinstance(value, (int, float)):
            return None
        return 1 - value if attribute == "momentum" else value
