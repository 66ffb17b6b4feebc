"""Describe the modules whose settings can be read: in a model that was pickled whole, or in one in memory.

Of a pickle these are numbers in it, so that nothing runs. Modules in memory are described as torch names their kinds.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PACKAGE = "torch.nn.modules."  # of every module of torch's own
ACTIVATIONS = f"{PACKAGE}activation."
AT_OUTPUTS = {"MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax"}  # among them, and none inside
NORM = "Norm"  # in the name of every norm's class
ATTRIBUTES = ("eps", "momentum", "approximate")  # that are read: a file may have millions of others
MAX_MODULES = 50_000  # of one file: as many as tensors


def is_read(name: str) -> bool:
    """Tell whether the settings of modules of a class are read: of torch's own, and of norms of anybody's code.

    torch.nn.utils has classes such as SpectralNorm, which compute no norm of activations.
    """
    return name.startswith(PACKAGE) or (NORM in name.rpartition(".")[2] and not name.startswith("torch."))


class Module(NamedTuple):
    """A module inside a model: the framework's own, or a norm of anybody's code.

    Args:
      path: as the names of its arrays begin.
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
        """Return "eps", or as "momentum" the share that running statistics keep, of a norm; None of other modules.

        The momentum of anybody's code may be that share or the rest: it is not read.
        """
        value = self.values.get(attribute) if NORM in self.kind else None
        if not isinstance(value, (int, float)) or (attribute == "momentum" and not self.name.startswith(PACKAGE)):
            return None
        return 1 - value if attribute == "momentum" else value


def of_torch(model: Any) -> Iterator[Module]:
    """Yield the modules of a torch model in memory whose settings can be read."""
    for path, module in model.named_modules():
        kind = type(module)
        if is_read(name := f"{kind.__module__}.{kind.__qualname__}"):
            values = {key: getattr(module, key) for key in ATTRIBUTES if hasattr(module, key)}
            yield Module(path, name, {key: v for key, v in values.items() if isinstance(v, int | float | str)})


PADDLE_NORMS, PADDLE_ACTIVATIONS = "paddle.nn.layer.norm", "paddle.nn.layer.activation"
AS_TORCH = {"Silu": "SiLU", "Swish": "SiLU"}  # activations that torch calls otherwise


def of_paddle(model: Any) -> Iterator[Module]:
    """Yield paddle's own norms and activations in a model in memory, as torch's modules that compute the same."""
    for path, layer in model.named_sublayers():
        kind = type(layer).__name__
        if type(layer).__module__ == PADDLE_ACTIVATIONS:
            approximate = "tanh" if getattr(layer, "_approximate", False) else "none"
            yield Module(path, ACTIVATIONS + AS_TORCH.get(kind, kind), {"approximate": approximate})
        elif type(layer).__module__ == PADDLE_NORMS:
            values = {"eps": getattr(layer, "_epsilon", None)}
            if (kept := getattr(layer, "_momentum", None)) is not None:
                values["momentum"] = 1 - kept  # torch's is the share that is replaced
            yield Module(path, f"{PACKAGE}norm.{kind}", values)
