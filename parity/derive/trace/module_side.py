"""Share what sides of torch modules and of paddle layers do alike: list a model's arrays, call and record it."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convert.errors import UsageError
from parity.running.ended import without_end

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
    recorder: Callable[[Tape], Any]  # of operations, while it is `installed`
    voided = False
    unset: Sequence[str] = ()

    def __init__(self, model: Any, call: Call, state: Mapping[str, Any], trained: Collection[str]):
        self.model, self.call, self.named = model, call, Named()
        self.given: Any = None  # the user's own model
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
        """Yield each module with its path, the model itself with ""."""

    @abstractmethod
    def _after(self, module: Any, hook: Callable[..., None]) -> Any:
        """Let a module call a hook at the end of each of its own calls; return what removes it."""

    @abstractmethod
    def _state(self) -> Mapping[str, Any]:
        """Return the tensors of the model by name."""

    @abstractmethod
    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Compute in float64, by operations that a tape shows, and undo at the end what modules store meanwhile."""

    @abstractmethod
    def _floats(self, tensor: Any) -> Array | None:
        """Return a tensor's numbers, without copying them if that is possible; None for what is no parameter."""

    @abstractmethod
    def _load(self, parameters: Mapping[str, Array]) -> None:
        """Give parameters of the model these values."""

    @abstractmethod
    def _tensor(self, array: Array) -> Any:
        """Return a tensor with an array's values."""

    @abstractmethod
    def _as_given(self) -> Any:
        """Return a copy of the user's model in its own dtypes. Raises: UsageError; see Side.run_as_given."""

    @abstractmethod
    def _plain(self, tensor: Any) -> Array:
        """Return the values of a tensor in float64."""

    def run_as_given(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of the user's own code for weights of their given dtypes; see Side."""
        own = copy.copy(self)
        own.model = self._as_given()
        own._set(parameters)
        with self._uncompiled():
            return [own._plain(tensor) for tensor in own._run(own._tensors(inputs))]

    def _uncompiled(self) -> contextlib.AbstractContextManager[Any]:
        """Run code as it is written, where the framework would compile it."""
        return contextlib.nullcontext()

    @abstractmethod
    def _set(self, parameters: Mapping[str, Array]) -> None:
        """Copy values to parameters of the model, whose dtypes stay."""

    def fix(self, names: Sequence[str]) -> None:
        """Take parameters as arrays that are none: they keep the model's own values."""
        kept = {name: self.parameters.pop(name) for name in names}
        self.others |= kept
        self._load(kept)

    def record(self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        self._load(parameters)
        tape = Tape()
        recorder, state, tensors = self.recorder(tape), self._state(), self._tensors(inputs)
        for name in self.parameters:
            tape.parameters[name] = recorder.adopt(state[name], tape.number())
        tape.inputs = [recorder.adopt(tensor, tape.number()) for tensor in tensors.values()]
        with self._alone(), self._sites(recorder.path), recorder.installed():
            outputs = self._run(tensors)
        tape.outputs = [recorder.value(tensor) for tensor in outputs]
        floats = [k for k, tensor in zip(tape.inputs, tensors.values(), strict=True) if tensor.is_floating_point()]
        tape.reads_numbers = tape.depends(recorder.numbers, {*floats, *tape.parameters.values()})
        return tape

    @contextlib.contextmanager
    def _sites(self, path: list[str]) -> Iterator[None]:
        """Let `path` end with the name of the module that runs."""
        handles = []
        for name, module in self._modules():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
            handles.append(self._after(module, lambda *_: (path.pop(), None)[1]))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _tensors(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        return {name: self._tensor(np.array(array)) for name, array in inputs.items()}

    def _run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Call the model with tensors by name, and return its result as tensors."""
        args, kwargs = self.call.bind(inputs)
        method = self.model if self.call.method == "__call__" else getattr(self.model, self.call.method)
        with without_end():
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
