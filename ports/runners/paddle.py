"""Run Paddle layers behind the common call."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from ..frameworks import PortError, Unavailable, unfit
from . import base, hooked
from .hooked import WITHOUT_PARAMETERS
from .inputs import Inputs
from .misfits import misfits
from .paddle_norms import exact
from .records import Drop, Gradients, Module, Optimizer, Training, classes, describe_drop
from .tracing import name_outputs

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, o: paddle.optimizer.Momentum(o.rate, o.momentum, p, weight_decay=o.decay),
    "adam": lambda p, o: paddle.optimizer.Adam(o.rate, o.beta1, o.beta2, o.epsilon, p, weight_decay=o.decay),
    "adamw": lambda p, o: paddle.optimizer.AdamW(o.rate, o.beta1, o.beta2, o.epsilon, p, weight_decay=o.decay),
}

TRACKING = "When training, we now always track"  # a warning of each BatchNorm at each step, on what parity compares


def _is_array(value: Any) -> bool:
    return isinstance(value, paddle.Tensor)


def _numpy(tensor: paddle.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy()


class Runner(hooked.Runner):
    framework = library = "paddle"
    model: paddle.nn.Layer
    shallow = "include_sublayers"
    is_array, numpy = staticmethod(_is_array), staticmethod(_numpy)

    @classmethod
    def own(cls, model: paddle.nn.Layer, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's layer as it is, in its own dtype and on its own device."""
        return cls(model, *(cls.where(model) or WITHOUT_PARAMETERS), training)

    @staticmethod
    def where(model: paddle.nn.Layer) -> tuple[str, str] | None:
        first = next((p for p in model.parameters() if is_inexact(p)), None)
        if first is None:
            return None
        return _real_of(first), "gpu" if first.place.is_gpu_place() else "cpu"

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        runner = cls(None, dtype, device)
        with _undrawn():
            runner.model = network(config)
        runner.model.to(dtype=dtype)
        unfilled, given = runner.model.state_dict(), {}
        shapes = {name: tuple(array.shape) for name, array in unfilled.items()}
        for name, array in tensors:
            given[name] = tuple(array.shape)
            if shapes.get(name) == given[name]:
                unfilled[name].set_value(runner.tensor(array))
        if wrong := misfits(given, shapes):
            raise PortError(unfit("paddle", network), wrong)
        runner.model.eval()
        return runner

    def settle(self) -> None:
        if self.device == "gpu" and not paddle.is_compiled_with_cuda():
            raise Unavailable("paddle", "built without GPU support")
        self.place = paddle.CUDAPlace(0) if self.device == "gpu" else paddle.CPUPlace()
        paddle.set_device(self.device)

    def cast(self, dtype: str) -> Runner:
        return type(self)(in_dtype(copy.deepcopy(self.model), dtype), dtype, self.device, self.training)

    def tensor(self, array: np.ndarray) -> paddle.Tensor:
        tensor = paddle.to_tensor(np.ascontiguousarray(array), place=self.place)
        return tensor.astype(self.dtype) if np.issubdtype(np.asarray(array).dtype, np.floating) else tensor

    def _outputs(self, tensors: Inputs) -> dict[str, np.ndarray]:
        with paddle.no_grad():
            return name_outputs(self.results(self.model(*tensors.args, **tensors.kwargs), _is_array), _numpy)

    @staticmethod
    def _bare() -> paddle.nn.Layer:
        return paddle.nn.Layer()

    def _named_modules(self) -> Iterable[tuple[str, paddle.nn.Layer]]:
        return self.model.named_sublayers(include_self=True)

    @staticmethod
    def _after(module: paddle.nn.Layer, hook: Any) -> Any:
        return module.register_forward_post_hook(hook)

    @staticmethod
    def _seed(seed: int) -> None:
        paddle.seed(seed)

    def modules(self, inputs: Inputs) -> dict[str, Module]:
        state, modules = self.state(), {}
        for path, layer in self.model.named_sublayers(include_self=True):
            prefix = f"{path}." if path else ""
            own = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
            leaves = {leaf: name for leaf, name in own.items() if "." not in leaf}
            modules[path] = Module(classes(layer), leaves, bool(layer.parameters()))
        return modules

    def _trained(self) -> dict[str, paddle.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if not p.stop_gradient}

    def gradients(self, inputs: Inputs) -> Gradients:
        tensors = inputs.map(self.tensor)
        free = {name: x for name, x in tensors.named(_is_array).items() if is_inexact(x)}
        for x in free.values():
            x.stop_gradient = False
        named = self._trained()
        with self._training():
            results = self.results(self.model(*tensors.args, **tensors.kwargs), _is_array)
            loss = _loss(results)
            base.require_gradient(not loss.stop_gradient)
            wanted = [*named.values(), *free.values()]
            grads = paddle.grad(loss, wanted, allow_unused=True)
            statistics = {name: array for name, array in self.state().items() if name not in named}
        whole = iter(np.zeros(x.shape) if g is None else _numpy(g) for x, g in zip(wanted, grads, strict=True))
        parameters, into = ({name: next(whole) for name in names} for names in (named, free))
        return Gradients(float(loss), name_outputs(results, _numpy), parameters, into, statistics)

    def train(self, batches: Sequence[Inputs], optimizer: Optimizer) -> Training:
        losses, named = [], self._trained()
        with self._training():
            stepper = OPTIMIZERS[optimizer.name](list(named.values()), optimizer)
            for tensors in (batch.map(self.tensor) for batch in batches):
                loss = _loss(self.results(self.model(*tensors.args, **tensors.kwargs), _is_array))
                base.require_gradient(not loss.stop_gradient)
                stepper.clear_grad()
                loss.backward()
                stepper.step()
                losses.append(float(loss))
            parameters = {name: _numpy(parameter) for name, parameter in named.items()}
            statistics = {name: array for name, array in self.state().items() if name not in named}
        return Training(losses, parameters, statistics)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Set training or evaluation mode, with norms that do not round; restore modes, buffers, attributes and random
        numbers when the block ends.
        """
        layers = self.model.sublayers(include_self=True)
        with base.attributes_kept(layers, _is_array) as tensors, _undrawn():
            # an RNN's state of dropout has no memory before it is drawn
            tensors = [tensor for tensor in tensors if tensor._is_initialized()]
            values = [tensor.detach().clone() for tensor in tensors]
            (self.model.train if training else self.model.eval)()
            try:
                with exact(self.dtype, self.notes), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", TRACKING, UserWarning, r"paddle\.")
                    yield
            finally:
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.set_value(value)

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Set training mode; restore also weights and gradients when the block ends."""
        before = [(parameter, parameter.detach().clone()) for parameter in self.model.parameters()]
        grads = [(p, None if p.grad is None else p.grad.clone()) for p in self.model.parameters()]
        try:
            with self._mode(True):
                yield
        finally:
            for parameter, grad in grads:
                parameter.clear_gradient(False)
                if grad is not None:
                    parameter.grad = grad
            for parameter, value in before:
                parameter.set_value(value)

    @contextmanager
    def no_dropout(self) -> Iterator[None]:
        with _dropout(lambda x, *_, **__: x):
            yield

    def dropout_calls(self, inputs: Inputs, seed: int) -> list[Drop]:
        calls: list[Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, axis: Any = None, training: bool = True, **more: Any) -> Any:
            out = original(x, p, axis, training, **more)
            if training and p:
                axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
                calls.append(describe_drop(_numpy(x), _numpy(out), p, [k for k in range(x.ndim) if k not in axes]))
            return out

        tensors = inputs.map(self.tensor)
        with _dropout(dropout), self._training(), paddle.no_grad():
            paddle.seed(seed)
            self.model(*tensors.args, **tensors.kwargs)
        return calls

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(tensor) for name, tensor in self.model.state_dict().items()}

    def jittered(self, share: float, seed: int) -> Runner:
        runner = self.cast(self.dtype)
        parameters = runner.model.parameters()
        for parameter, factor in zip(parameters, base.factors(parameters, share, seed), strict=True):
            parameter.set_value(parameter * runner.tensor(factor))
        return runner


@contextmanager
def _dropout(other: Any) -> Iterator[None]:
    """Replace the function that all dropout calls."""
    original, F.dropout = F.dropout, other
    try:
        yield
    finally:
        F.dropout = original


@contextmanager
def _undrawn() -> Iterator[None]:
    """Restore the state of paddle's random numbers when the block ends."""
    before = paddle.get_rng_state()
    try:
        yield
    finally:
        paddle.set_rng_state(before)


def is_inexact(tensor: paddle.Tensor) -> bool:
    """Tell whether a tensor has real or complex numbers, no integers."""
    return bool(tensor.is_floating_point() or tensor.is_complex())


def _real_of(tensor: paddle.Tensor) -> str:
    """Return the name of a tensor's dtype, of a complex one's that of its real part."""
    return str((paddle.real(tensor) if tensor.is_complex() else tensor).dtype).removeprefix("paddle.")


def in_dtype(layer: paddle.nn.Layer, dtype: str) -> paddle.nn.Layer:
    """Cast a layer in place, complex tensors to complex ones: Layer.to would make these real, and integers floats."""
    layer._to_impl(dtype=dtype, floating_only=True)

    def cast(tensor: paddle.Tensor, device: Any, wide: str, blocking: Any) -> paddle.Tensor:
        return layer._transform(tensor, device, wide, blocking) if tensor.is_complex() else tensor

    layer._apply(cast, None, base.complex_of(dtype), None)
    return layer


def _loss(outputs: Mapping[str, paddle.Tensor]) -> paddle.Tensor:
    numbers = [out for out in outputs.values() if is_inexact(out)]
    return base.sum_of([(paddle.real(x * x.conj()) if x.is_complex() else x.square()).mean() for x in numbers])
