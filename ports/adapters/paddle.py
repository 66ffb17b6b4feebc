"""PaddlePaddle behind the common call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from convert.errors import ConvertError

from .. import network
from .. import port as common
from .paddle_norms import exact

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, o: paddle.optimizer.Momentum(o.rate, o.momentum, p, weight_decay=o.decay),
    "adam": lambda p, o: paddle.optimizer.Adam(o.rate, o.beta1, o.beta2, o.epsilon, p, weight_decay=o.decay),
    "adamw": lambda p, o: paddle.optimizer.AdamW(o.rate, o.beta1, o.beta2, o.epsilon, p, weight_decay=o.decay),
}


class Port(common.Port):
    framework = "paddle"
    model: paddle.nn.Layer

    def _create(self, tensors: Iterable[tuple[str, np.ndarray]]) -> paddle.nn.Layer:
        if self.device == "gpu" and not paddle.is_compiled_with_cuda():
            raise common.Unavailable("this paddle is built without GPU support: use device='cpu'")
        self._settle()
        with _undrawn():
            model = network(self.architecture, "paddle")(self.config)
        model.to(dtype=self.dtype)
        held = model.state_dict()
        for name, array in tensors:
            if name not in held or list(array.shape) != list(held[name].shape):
                raise ConvertError(f"paddle's {self.architecture} has no array {name!r} of shape {array.shape}")
            held.pop(name).set_value(self._tensor(array))
        if held:
            raise ConvertError(f"arrays without a value: {', '.join(held)}")
        model.eval()
        return model

    def _settle(self) -> None:
        self.place = paddle.CUDAPlace(0) if self.device == "gpu" else paddle.CPUPlace()
        paddle.set_device(self.device)

    def _tensor(self, array: np.ndarray) -> paddle.Tensor:
        return paddle.to_tensor(np.ascontiguousarray(array), place=self.place).astype(self.dtype)

    def _forward(self, images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return _numpy(self.model(self._tensor(images)))

    def _trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]]) -> list[common.Tap]:
        trace = common.Trace(feed)

        def enter(path: str) -> Any:
            def hook(layer: paddle.nn.Layer, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
                given = trace.enter(path, _arrays(args))
                return None if given is None else self._replaced(args, given)

            return hook

        def leave(layer: paddle.nn.Layer, into: Any, out: Any) -> None:
            trace.leave(_arrays(out))

        hooks = []
        for path, layer in self.model.named_sublayers(include_self=True):
            if self._is_tap(path):
                hooks += [layer.register_forward_pre_hook(enter(path)), layer.register_forward_post_hook(leave)]
        try:
            self._forward(images)
        finally:
            for registered in hooks:
                registered.remove()
        return [common.Tap(*found) for found in trace.found]

    def _replaced(self, args: tuple[Any, ...], given: Sequence[np.ndarray]) -> tuple[Any, ...]:
        left = iter(given)
        return tuple(self._tensor(next(left)) if isinstance(a, paddle.Tensor) else a for a in args)

    def _trained(self) -> dict[str, paddle.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if not p.stop_gradient}

    def gradients(self, images: np.ndarray) -> common.Gradients:
        x = self._tensor(self._checked(images))
        x.stop_gradient = False
        named = self._trained()
        with self._training():
            logits = self.model(x)
            loss = logits.square().mean()
            *grads, dx = paddle.grad(loss, [*named.values(), x], allow_unused=True)
            statistics = {name: array for name, array in self.state().items() if name not in named}
        found = {
            name: np.zeros(p.shape, self.dtype) if g is None else _numpy(g)
            for (name, p), g in zip(named.items(), grads, strict=True)
        }
        return common.Gradients(float(loss), _numpy(logits), found, _numpy(dx), statistics)

    def train(self, batches: Sequence[np.ndarray], optimizer: common.Optimizer) -> common.Training:
        losses, named = [], self._trained()
        with self._training():
            stepper = OPTIMIZERS[optimizer.name](list(named.values()), optimizer)
            for images in batches:
                loss = self.model(self._tensor(self._checked(images))).square().mean()
                stepper.clear_grad()
                loss.backward()
                stepper.step()
                losses.append(float(loss))
            parameters = {name: _numpy(parameter) for name, parameter in named.items()}
            statistics = {name: array for name, array in self.state().items() if name not in named}
        return common.Training(losses, parameters, statistics)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Training mode or not, with norms that do not round; afterwards each layer is in its own mode again."""
        before = [(layer, layer.training) for layer in self.model.sublayers(include_self=True)]
        (self.model.train if training else self.model.eval)()
        try:
            with exact(self.dtype, self.notes):
                yield
        finally:
            for layer, mode in before:
                layer.training = mode

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Training mode, left without a trace: weights, statistics, gradients, modes, random numbers."""
        before = {name: tensor.clone().detach() for name, tensor in self.model.state_dict().items()}
        grads = [(p, None if p.grad is None else p.grad.clone()) for p in self.model.parameters()]
        try:
            with self._mode(True), _undrawn():
                yield
        finally:
            for parameter, grad in grads:
                parameter.clear_gradient(False)
                if grad is not None:
                    parameter.grad = grad
            for name, tensor in self.model.state_dict().items():
                tensor.set_value(before[name])

    @contextmanager
    def undropped(self) -> Iterator[common.Port]:
        with _dropout(lambda x, *_, **__: x):
            yield self

    def drops(self, images: np.ndarray, seed: int) -> list[common.Drop]:
        found: list[common.Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, axis: Any = None, training: bool = True, **more: Any) -> Any:
            out = original(x, p, axis, training, **more)
            if training and p:
                axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
                found.append(common.kept(_numpy(x), _numpy(out), p, [k for k in range(x.ndim) if k not in axes]))
            return out

        with _dropout(dropout), self._training(), paddle.no_grad():
            paddle.seed(seed)
            self.model(self._tensor(self._checked(images)))
        return found

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(tensor) for name, tensor in self.model.state_dict().items()}

    def jittered(self, share: float, seed: int) -> common.Port:
        port = self.with_dtype(self.dtype)
        for parameter, factor in zip(p := port.model.parameters(), common.factors(p, share, seed), strict=True):
            parameter.set_value(parameter * self._tensor(factor))
        return port


@contextmanager
def _dropout(other: Any) -> Iterator[None]:
    """Another function in the place of the one that all dropout comes down to."""
    original, F.dropout = F.dropout, other
    try:
        yield
    finally:
        F.dropout = original


@contextmanager
def _undrawn() -> Iterator[None]:
    """Afterwards paddle draws the random numbers that it would have drawn before."""
    before = paddle.get_rng_state()
    try:
        yield
    finally:
        paddle.set_rng_state(before)


def _arrays(values: Any) -> tuple[np.ndarray, ...]:
    values = values if isinstance(values, tuple | list) else (values,)
    return tuple(_numpy(value) for value in values if isinstance(value, paddle.Tensor))


def _numpy(tensor: paddle.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy()
