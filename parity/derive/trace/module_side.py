"""Share what sides of torch modules and of paddle layers do alike: list a model's arrays, and call it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convert.errors import UsageError

from .call import Call
from .frames import message
from .outputs import Named, listed
from .tape import Array, Tape


class ModuleSide(ABC):
    """A module whose state_dict has its arrays; see Side.

    Args:
      model: a copy of the user's, which arrays are loaded into.
      state: of the user's own model: its tensors by name. trained: the names of those that are no buffers.
    """

    tensor: type  # of the framework
    voided = False

    def __init__(self, model: Any, call: Call, state: Mapping[str, Any], trained: Collection[str]):
        self.model, self.call, self.named = model, call, Named()
        self.extra: Sequence[str] = ()
        self.ties: dict[str, str] = {}
        self.parameters: dict[str, Array] = {}
        self.others: dict[str, Array] = {}
        first: dict[object, str] = {}
        for name, tensor in state.items():
            if (same := self._identity(tensor)) in first:
                self.ties[name] = first[same]
            elif (array := self._floats(tensor)) is not None:
                self.parameters[name] = array
            else:
                self.others[name] = np.array(tensor.detach().numpy())
            first.setdefault(same, name)
        self.buffers: Collection[str] = set(self.parameters).difference(trained)
        self.complex: Sequence[str] = [
            name for name, array in self.others.items() if array.dtype.kind == "c" and name in trained
        ]
        self.classes: Mapping[str, str] = {name: type(module).__name__ for name, module in self._modules() if name}

    def _identity(self, tensor: Any) -> object:
        """Return what tied tensors have in common."""
        return id(tensor)

    @abstractmethod
    def _modules(self) -> Iterable[tuple[str, Any]]:
        """Yield each module with its path."""

    @abstractmethod
    def _floats(self, tensor: Any) -> Array | None:
        """Return a tensor's numbers, without copying them if that is possible; None for what is no parameter."""

    @abstractmethod
    def _load(self, parameters: Mapping[str, Array]) -> None:
        """Give parameters of the model these values."""

    @abstractmethod
    def _tensor(self, array: Array) -> Any:
        """Return a tensor with an array's values."""

    def fix(self, names: Sequence[str]) -> None:
        """Take parameters as arrays that are none: they keep the model's own values."""
        kept = {name: self.parameters.pop(name) for name in names}
        self.others |= kept
        self._load(kept)

    def _note_numbers(self, tape: Tape, numbers: Collection[int], inputs: Mapping[str, Any]) -> None:
        """Note on a tape whether some numbers that the model's code took out depend on floats of the user's.

        Args:
          numbers: those of the values. inputs: the tensors by name, in the order of the tape.
        """
        floats = [k for k, tensor in zip(tape.inputs, inputs.values(), strict=True) if tensor.is_floating_point()]
        tape.reads_numbers = tape.depends(numbers, {*floats, *tape.parameters.values()})

    def _run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Call the model with tensors by name, and return its result as tensors."""
        args, kwargs = self.call.bind(inputs)
        method = self.model if self.call.method == "__call__" else getattr(self.model, self.call.method)
        result = self.call.output(method(*args, **kwargs))
        leaves = listed(result, lambda leaf: isinstance(leaf, self.tensor))
        self.named = Named.of(leaves)
        arrays = [leaf for _, leaf in leaves if leaf is not None]
        return [leaf if isinstance(leaf, self.tensor) else self._tensor(leaf) for leaf in arrays]


@contextlib.contextmanager
def copying(framework: str, model: Any) -> Iterator[None]:
    """Raise UsageError for whatever copying the attributes of a user's model raises."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        why = f"the {framework} model {type(model).__name__} cannot be copied: {message(error)}"
        remedy = "let its attributes be copied (copy.deepcopy), or set those that cannot be after the derivation"
        raise UsageError(f"{why}: {remedy}") from error
