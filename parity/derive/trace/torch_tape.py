"""Record tapes of torch modules."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from parity.derive.limits import LARGE_COPY, LARGE_GRADIENT
from ports.runners.torch import in_dtype
from ports.runners.torch_ties import memory

from .caches import forgotten
from .call import Call
from .cotangents import Take, cotangents
from .module_side import ModuleSide
from .outputs import Outputs
from .tape import SHORT, Tape
from .torch_attention import written_attention
from .torch_dense import LinearGradients
from .torch_recorder import Lifted, Recorder
from .torch_state import check, extra_states, hollow, tensors_of
from .torch_values import numpy_of


class TorchSide(ModuleSide):
    """A torch module, called in evaluation mode and float64."""

    framework = "torch"
    output_axis = 0

    tensor = torch.Tensor

    def __init__(self, model: torch.nn.Module, call: Call):
        check(model)
        copied = in_dtype(hollow(model), "float64").train().eval()  # which empties caches of models that have such
        trained = dict(model.named_parameters(remove_duplicate=False))
        super().__init__(copied, call, tensors_of(model), trained)
        self.extra = extra_states(model)
        self._lowers: frozenset[str] = frozenset()  # of the last tape

    def _identity(self, tensor: torch.Tensor) -> object:
        return memory(tensor)

    def _modules(self) -> Iterable[tuple[str, torch.nn.Module]]:
        return self.model.named_modules()

    def _floats(self, tensor: torch.Tensor) -> np.ndarray | None:
        return numpy_of(tensor, copied=False, wide=False) if tensor.is_floating_point() else None

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def _load(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, array in parameters.items():
                if array.size >= LARGE_COPY and array.dtype == np.float64 and array.flags.carray:
                    state[name].data = torch.from_numpy(array.reshape(state[name].shape))
                else:
                    plain = array.flags.carray  # torch reads no negative steps, and warns of what it must not write to
                    state[name].copy_(torch.from_numpy(array if plain else np.array(array)).reshape(state[name].shape))

    def release(self) -> None:
        """Drop the large arrays that the last run left in the model."""
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if name in self.parameters and tensor.numel() >= LARGE_COPY:
                tensor.data = torch.empty_like(tensor)

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as the user's own code computes them."""
        self._load(parameters)
        with torch.no_grad(), _double(), forgotten(self.model.modules()):
            return [numpy_of(t) for t in self._written(inputs)]

    def _written(self, inputs: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
        """Run the user's own code; with its casts to lower precision void, if it takes no float64 beside them."""
        try:
            if not self.voided:
                return self._run(_tensors_of(inputs))
        except RuntimeError:
            with contextlib.suppress(Exception), Lifted():
                self._run(_tensors_of(inputs))
                self.voided = True
            if not self.voided:
                raise
        with Lifted():
            return self._run(_tensors_of(inputs))

    def gradients(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], take: Take) -> Outputs:
        """Return the outputs; give `take` each gradient as soon as it is computed; see Side."""
        self._load(parameters)
        state = self.model.state_dict(keep_vars=True)
        wanted = {name: state[name] for name in parameters if state[name].requires_grad}
        without = dict(wanted)  # parameters that no gradient has come for

        def given(name: str, gradient: Any) -> None:
            del without[name]
            take(name, gradient)

        def taken(tensor: torch.Tensor, name: str) -> None:
            if tensor.grad is not None:  # else it was found as a product, or there is none
                given(name, tensor.grad.numpy())
                tensor.grad = None

        large = {
            name: tensor for name, tensor in wanted.items() if tensor.ndim == 2 and tensor.numel() >= LARGE_GRADIENT
        }
        dense = LinearGradients(large, given) if large else contextlib.nullcontext()
        written = self._in_16_bits(inputs) if SHORT & self._lowers and not self.voided else None
        with _double(), forgotten(self.model.modules()), dense, Lifted() if written else contextlib.nullcontext():
            outputs = self._written(inputs)
        weights = zip(outputs, cotangents(outputs, lambda t: np.isfinite(numpy_of(t))), strict=True)
        total = torch.stack([(t * torch.from_numpy(w)).sum() for t, w in weights]).sum()

        handles = [
            tensor.register_post_accumulate_grad_hook(functools.partial(taken, name=name))
            for name, tensor in wanted.items()
        ]
        try:
            total.backward(inputs=list(wanted.values()))
        finally:
            for handle in handles:
                handle.remove()
        for name, tensor in without.items():
            take(name, np.zeros(tensor.shape))
        arrays = [numpy_of(t, copied=False) for t in outputs]
        return Outputs(written or arrays, arrays)

    def _in_16_bits(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as written, if the user's code computes by the same operations without its casts too."""
        found, names = list[list[torch.Tensor]](), list[list[str]]()
        for mode in (Lifted(), Lifted(void=False)):
            with contextlib.suppress(RuntimeError), _double(), forgotten(self.model.modules()), mode:
                found.append(self._run(_tensors_of(inputs)))
            names.append(mode.names)
        return [numpy_of(t) for t in found[1]] if len(found) == 2 and names[0] == names[1] else []

    def record(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Tape:
        """Record the tape of one run, with casts to lower precision voided."""
        self._load(parameters)
        tape = Tape()
        mode = Recorder(tape)
        state = self.model.state_dict(keep_vars=True)
        for name in self.parameters:
            tape.parameters[name] = mode.adopt(state[name], tape.number())
        tensors = _tensors_of(inputs)
        tape.inputs = [mode.adopt(tensor, tape.number()) for tensor in tensors.values()]
        sites = _sites(self.model, mode.path)
        with torch.no_grad(), _double(), forgotten(self.model.modules()), sites, written_attention(), mode:
            outputs = self._run(tensors)
        tape.outputs = [mode.value(tensor) for tensor in outputs]
        self._note_numbers(tape, mode.numbers, tensors)
        mode.release()
        self._lowers = tape.lowers
        return tape


def _tensors_of(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """Make float64 the default, and turn fused attention off, whose inside no tape shows."""
    before, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _sites(model: torch.nn.Module, path: list[str]) -> Iterator[None]:
    """Let `path` end with the name of the module that runs."""
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(module.register_forward_hook(lambda *_: (path.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
