"""Record tapes of torch modules: list their tensors, refuse what no tape can be recorded of, and copy them."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from convert.errors import UsageError
from parity.derive.limits import LARGE_COPY, LARGE_GRADIENT
from ports.runners.torch import in_dtype
from ports.runners.torch_ties import computed, copied, memory

from .caches import forgotten
from .call import SHORT_WEIGHTS, Call
from .cotangents import GradientSink, Take, cotangents
from .module_side import ModuleSide, copying
from .outputs import Outputs
from .precision import numbers_of_float32
from .tape import Tape
from .torch_dense import LinearGradients
from .torch_norms import norms_of_own_epsilon
from .torch_recorder import Lifted, Recorder
from .torch_values import numpy_of

EXTRA = "_extra_state"  # how torch names what get_extra_state returns


class TorchSide(ModuleSide):
    """A torch module, called in evaluation mode and float64."""

    framework = "torch"
    output_axis = 0

    tensor = torch.Tensor
    recorder = Recorder

    def __init__(self, model: torch.nn.Module, call: Call):
        _check(model)
        own = in_dtype(_hollow(model), "float64").train().eval()  # which empties caches of models that have such
        trained = dict(model.named_parameters(remove_duplicate=False))
        super().__init__(own, call, _tensors_of(model), trained)
        self.given = model
        self.extra = _extra_states(model)
        self._lowers: frozenset[str] = frozenset()  # of the last tape

    def _identity(self, tensor: torch.Tensor) -> object:
        return memory(tensor)

    def _modules(self) -> Iterable[tuple[str, torch.nn.Module]]:
        return self.model.named_modules()

    def _after(self, module: torch.nn.Module, hook: Callable[..., None]) -> Any:
        return module.register_forward_hook(hook, always_call=True)

    def _state(self) -> Mapping[str, torch.Tensor]:
        return self.model.state_dict(keep_vars=True)

    def _floats(self, tensor: torch.Tensor) -> np.ndarray | None:
        return numpy_of(tensor, copied=False, wide=False) if tensor.is_floating_point() else None

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def _load(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self._state()
        with torch.no_grad():
            for name, array in parameters.items():
                if array.size >= LARGE_COPY and array.dtype == np.float64 and array.flags.carray:
                    state[name].data = torch.from_numpy(array.reshape(state[name].shape))
                else:
                    plain = array.flags.carray  # torch reads no negative steps, and warns of what it must not write to
                    state[name].copy_(torch.from_numpy(array if plain else np.array(array)).reshape(state[name].shape))

    def _as_given(self) -> torch.nn.Module:
        if any(t.is_floating_point() and t.itemsize < 4 for t in _tensors_of(self.given).values()):
            raise UsageError(SHORT_WEIGHTS)
        with copying("torch", self.given):
            return copied(self.given).train().eval()

    def _plain(self, tensor: torch.Tensor) -> np.ndarray:
        return numpy_of(tensor)

    def _set(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self._state()
        with torch.no_grad():
            for name, array in parameters.items():
                state[name].copy_(torch.from_numpy(np.array(array)).reshape(state[name].shape))

    def release(self) -> None:
        """Drop the large arrays that the last run left in the model."""
        for name, tensor in self._state().items():
            if name in self.parameters and tensor.numel() >= LARGE_COPY:
                tensor.data = torch.empty_like(tensor)

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as the user's own code computes them."""
        self._load(parameters)
        with torch.no_grad(), self._alone():
            return [numpy_of(t) for t in self._written(inputs)]

    def _written(self, inputs: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
        """Run the user's own code; with its casts to lower precision void, if it takes no float64 beside them."""
        try:
            if not self.voided:
                return self._run(self._tensors(inputs))
        except RuntimeError:
            with contextlib.suppress(Exception), Lifted():
                self._run(self._tensors(inputs))
                self.voided = True
            if not self.voided:
                raise
        with Lifted():
            return self._run(self._tensors(inputs))

    def gradients(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], take: Take) -> Outputs:
        """Return the outputs; give `take` each gradient as soon as it is computed; see Side."""
        self._load(parameters)
        state, sink = self._state(), GradientSink(take)
        wanted = {name: state[name] for name in parameters if state[name].requires_grad}
        without = dict(wanted)  # parameters that no gradient has come for

        def given(name: str, gradient: Any) -> None:
            del without[name]
            sink(name, gradient)

        def taken(tensor: torch.Tensor, name: str) -> None:
            if tensor.grad is not None:  # else it was found as a product, or there is none
                given(name, tensor.grad.numpy())
                tensor.grad = None

        large = {
            name: tensor for name, tensor in wanted.items() if tensor.ndim == 2 and tensor.numel() >= LARGE_GRADIENT
        }
        dense = LinearGradients(large, given) if large else contextlib.nullcontext()
        written = self._without_casts(inputs) if self._lowers and not self.voided else None
        with sink.from_model(), self._alone(), dense, Lifted() if written else contextlib.nullcontext():
            outputs = self._written(inputs)
        weights = map(torch.from_numpy, map(np.asarray, cotangents(outputs, lambda t: np.isfinite(numpy_of(t)))))
        total = torch.stack([(t * weight).sum() for t, weight in zip(outputs, weights, strict=True)]).sum()

        handles = [
            tensor.register_post_accumulate_grad_hook(functools.partial(taken, name=name))
            for name, tensor in wanted.items()
        ]
        try:
            with sink.from_model():
                total.backward(inputs=list(wanted.values()))
        finally:
            for handle in handles:
                handle.remove()
        for name, tensor in without.items():
            take(name, np.zeros(tensor.shape))
        arrays = [numpy_of(t, copied=False) for t in outputs]
        return Outputs(written or arrays, arrays)

    def _without_casts(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as written, if the user's code computes by the same operations without its casts too."""
        tensors, names = list[list[torch.Tensor]](), list[list[str]]()
        for mode in (Lifted(), Lifted(void=False)):
            with contextlib.suppress(RuntimeError), self._alone(), mode:
                tensors.append(self._run(self._tensors(inputs)))
            names.append(mode.names)
        return [numpy_of(t) for t in tensors[1]] if len(tensors) == 2 and names[0] == names[1] else []

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run; see Side."""
        tape = super().record(parameters, inputs)
        self._lowers = tape.lowers
        return tape

    def _uncompiled(self) -> contextlib.AbstractContextManager[Any]:
        compiles = "torch._dynamo" in sys.modules  # it is imported where a model is compiled
        return torch.compiler.set_stance("force_eager") if compiles else contextlib.nullcontext()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        before, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
        torch.set_default_dtype(torch.float64)
        torch.backends.mha.set_fastpath_enabled(False)  # of attention, whose inside no tape shows
        math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        numbers = numbers_of_float32(torch, self.parameters)
        try:
            with math, self._uncompiled(), numbers, norms_of_own_epsilon(), forgotten(self.model.modules()):
                yield
        finally:
            torch.set_default_dtype(before)
            torch.backends.mha.set_fastpath_enabled(fast)


def _tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a module's state_dict, as they are."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}


def _extra_states(model: torch.nn.Module) -> list[str]:
    """Name what get_extra_state returns, unless it is a tensor."""
    state = model.state_dict(keep_vars=True)
    return [name for name, value in state.items() if name.endswith(EXTRA) and not isinstance(value, torch.Tensor)]


def _check(model: torch.nn.Module) -> None:
    """Raise UsageError for a module that cannot be recorded, or whose parameters have no values that can be read."""
    own = f"the torch model {type(model).__name__}"
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError("a ScriptModule runs no code of Python that could be recorded: give it before scripting")
    if not isinstance(state := model.state_dict(keep_vars=True), Mapping):
        raise UsageError(f"{own}: its state_dict is no mapping, but of type {type(state).__name__}: mend its hooks")
    extra = _extra_states(model)
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            if problem := _problem(value):
                raise UsageError(f"{own}: {name} {problem}")
        elif name not in extra:
            kind = type(value).__name__
            raise UsageError(f"{own}: {name} is no tensor, but of type {kind}: give the model before it was quantized")


def _problem(tensor: torch.Tensor) -> str:
    """Say what is wrong with a tensor of a module, and what to do; "" if nothing is."""
    if is_lazy(tensor):
        return "has no values before the first call: call the model once on the inputs"
    if tensor.device.type != "cpu":
        remedy = "build it without that device" if tensor.device.type == "meta" else "give model.cpu()"
        return f"is on device {tensor.device.type}, where derive reads no values: {remedy}"
    if tensor.layout is not torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return f"has the layout {kind}, which derive does not read: store it dense, as by to_dense()"
    return "is quantized, which derive does not read: give the model before that" if tensor.is_quantized else ""


def _hollow(model: torch.nn.Module) -> torch.nn.Module:
    """Copy a module, with memory for its large parameters that is not used before they get values.

    Raises: UsageError for a module that cannot be copied.
    """
    memo = computed(model, hooked=False)
    for tensor in _tensors_of(model).values():
        if tensor.is_floating_point() and tensor.numel() >= LARGE_COPY:
            empty = torch.empty(tensor.shape, dtype=torch.float64)
            leaf = isinstance(tensor, torch.nn.Parameter)
            memo[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if leaf else empty
    with copying("torch", model):
        return copied(model, memo)
