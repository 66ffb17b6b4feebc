"""Record tapes of paddle layers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import paddle
from paddle.nn.layer.rnn import RNNBase

from convert.errors import UsageError
from parity.derive.limits import LARGE_COPY, LARGE_GRADIENT
from ports.runners.paddle import in_dtype

from .caches import forgotten
from .call import SHORT_WEIGHTS, Call
from .cotangents import GradientSink, Take, cotangents
from .module_side import ModuleSide, copying
from .outputs import Outputs
from .paddle_dense import LinearGradients
from .paddle_recorder import Recorder
from .paddle_values import numpy_of
from .precision import numbers_of_float32


class PaddleSide(ModuleSide):
    """A paddle layer, called in evaluation mode and float64."""

    framework = "paddle"
    output_axis = -1

    tensor = paddle.Tensor
    recorder = Recorder

    def __init__(self, model: paddle.nn.Layer, call: Call):
        copied = in_dtype(_hollow(model), "float64")
        copied.eval()
        self._shared: dict[str, Any] = {}  # tensors whose memory the model reads
        super().__init__(copied, call, model.state_dict(), dict(model.named_parameters()))
        self.given = model

    def _floats(self, tensor: Any) -> np.ndarray | None:
        if "float" not in str(tensor.dtype):
            return None
        wide = str(tensor.dtype) in ("paddle.float32", "paddle.float64")
        return np.from_dlpack(tensor.detach()) if wide else tensor.astype("float64").numpy()

    def _tensor(self, array: np.ndarray) -> Any:
        return paddle.to_tensor(array)

    def _load(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self._state()
        for name, array in parameters.items():
            if array.size >= LARGE_COPY:
                wide = np.ascontiguousarray(array, np.float64)
                self._share(name, state[name], wide.reshape(state[name].shape))
            else:
                state[name].set_value(paddle.to_tensor(np.array(array), dtype=state[name].dtype))

    def _as_given(self) -> paddle.nn.Layer:
        if any(str(t.dtype).endswith("float16") for t in self.given.state_dict().values()):
            raise UsageError(SHORT_WEIGHTS)
        with copying("paddle", self.given):
            own = copy.deepcopy(self.given)
        own.eval()
        return own

    def _plain(self, tensor: Any) -> np.ndarray:
        return numpy_of(tensor.detach())

    def _set(self, parameters: Mapping[str, np.ndarray]) -> None:
        state = self._state()
        for name, array in parameters.items():
            state[name].set_value(paddle.to_tensor(np.array(array), dtype=state[name].dtype))

    def _share(self, name: str, tensor: Any, array: np.ndarray) -> None:
        """Let a tensor read an array without copying it."""
        self._shared[name] = paddle.utils.dlpack.from_dlpack(array if array.flags.writeable else array.copy())
        tensor.get_tensor()._share_data_with(self._shared[name].get_tensor())

    def release(self) -> None:
        """Drop the large arrays that the last run left in the model."""
        _empty(self.model, self.parameters)
        self._shared.clear()

    def _modules(self) -> Iterable[tuple[str, paddle.nn.Layer]]:
        return self.model.named_sublayers(include_self=True)

    def _after(self, module: paddle.nn.Layer, hook: Callable[..., None]) -> Any:
        return module.register_forward_post_hook(hook)

    def _state(self) -> Mapping[str, Any]:
        return self.model.state_dict()

    def run(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs as the user's own code computes them."""
        self._load(parameters)
        with paddle.no_grad(), self._alone():
            return [tensor.numpy() for tensor in self._run(self._tensors(inputs))]

    def gradients(self, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], take: Take) -> Outputs:
        """Return the outputs; give `take` the gradients; see Side."""
        self._load(parameters)
        state, sink = self._state(), GradientSink(take)
        wanted = {name: state[name] for name in parameters if not state[name].stop_gradient}
        dense = LinearGradients({name: t for name, t in wanted.items() if t.ndim == 2 and t.size >= LARGE_GRADIENT})
        with self._alone(), self._recurrent_in_training(), dense.installed():
            tensors = self._tensors(inputs)
            for tensor in tensors.values():
                tensor.stop_gradient = "float" not in str(tensor.dtype)
            # 0 is added, as a model may change its inputs in place
            inner = {name: t if t.stop_gradient else t + 0 for name, t in tensors.items()}
            with sink.from_model():
                outputs = self._run(inner)
            weights = zip(outputs, cotangents(outputs, lambda t: np.isfinite(numpy_of(t))), strict=True)
            total = sum((t * paddle.to_tensor(w)).sum() for t, w in weights)
        # of the inputs too: without that, paddle's own code of PReLU's gradient ends the process
        leaves = [tensor for tensor in tensors.values() if not tensor.stop_gradient]
        with sink.from_model():
            grads = paddle.grad(total, [*wanted.values(), *leaves], allow_unused=True)
        for name, tensor in wanted.items():
            grad = grads.pop(0)
            grad = dense.gradient(name, None if grad is None else np.from_dlpack(grad.detach()))
            sink(name, np.zeros(tensor.shape) if grad is None else grad)
            del grad
        arrays = [t.detach().numpy() for t in outputs]
        return Outputs(arrays, arrays)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        before = paddle.get_default_dtype()
        paddle.set_default_dtype("float64")
        try:
            with numbers_of_float32(paddle, self.parameters), forgotten(self.model.sublayers(include_self=True)):
                yield
        finally:
            paddle.set_default_dtype(before)

    @contextlib.contextmanager
    def _recurrent_in_training(self) -> Iterator[None]:
        """Set recurrent layers without dropout in training mode: they compute the same, and have no gradients else."""
        recurrent = [layer for _, layer in self._modules() if isinstance(layer, RNNBase)]
        chosen = [layer for layer in recurrent if not layer.dropout and not layer.training]
        for layer in chosen:
            layer.training = True
        try:
            yield
        finally:
            for layer in chosen:
                layer.training = False


def _hollow(layer: paddle.nn.Layer) -> paddle.nn.Layer:
    """Copy a layer, with memory for its large parameters that is not used before they get values."""
    with copying("paddle", layer):
        layer = copy.deepcopy(layer)
    _empty(layer, layer.state_dict())
    return layer


def _empty(layer: paddle.nn.Layer, names: Collection[str]) -> None:
    for name, tensor in layer.state_dict().items():
        if name in names and "float" in str(tensor.dtype) and tensor.size >= LARGE_COPY:
            empty = paddle.empty(tensor.shape, "float64")  # has to outlive the call
            tensor.get_tensor()._share_data_with(empty.get_tensor())
