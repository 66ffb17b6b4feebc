"""PyTorch behind the common call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .. import network
from .. import port as common

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.rate, momentum=o.momentum, weight_decay=o.decay),
    "adam": lambda p, o: torch.optim.Adam(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
}


class Port(common.Port):
    framework = "torch"
    model: torch.nn.Module

    def _create(self, tensors: Iterable[tuple[str, np.ndarray]]) -> torch.nn.Module:
        if self.device == "gpu":
            if not torch.cuda.is_available():
                raise common.Unavailable("torch finds no GPU here: use device='cpu'")
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with torch.device("meta"):  # the checkpoint fills everything: nothing is allocated or drawn twice
            model = network(self.architecture, "torch")(self.config)
        model.load_state_dict({name: self._tensor(array) for name, array in tensors}, strict=True, assign=True)
        return model.eval().requires_grad_(True)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """A copy: a model may work in place on what it is given."""
        tensor = torch.from_numpy(np.array(array, order="C"))
        dtype = getattr(torch, self.dtype) if tensor.is_floating_point() else tensor.dtype
        return tensor.to("cuda" if self.device == "gpu" else "cpu", dtype)

    def _forward(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():  # a tensor of inference mode that forward caches could never train
            return _numpy(self.model(self._tensor(images)))

    def _trace(self, images: np.ndarray, feed: Mapping[str, Sequence[np.ndarray]]) -> list[common.Tap]:
        trace = common.Trace(feed)

        def enter(path: str) -> Any:
            def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
                given = trace.enter(path, _arrays(args))
                return None if given is None else self._replaced(args, given)

            return hook

        def leave(module: torch.nn.Module, into: Any, out: Any) -> None:
            trace.leave(_arrays(out))

        hooks = []
        for path, module in self.model.named_modules():
            if self._is_tap(path):
                hooks += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave)]
        try:
            self._forward(images)
        finally:
            for registered in hooks:
                registered.remove()
        return [common.Tap(*found) for found in trace.found]

    def _replaced(self, args: tuple[Any, ...], given: Sequence[np.ndarray]) -> tuple[Any, ...]:
        left = iter(given)
        return tuple(self._tensor(next(left)) if isinstance(a, torch.Tensor) else a for a in args)

    def gradients(self, images: np.ndarray) -> common.Gradients:
        x = self._tensor(self._checked(images)).requires_grad_()
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        with self._training():
            logits = self.model(x)
            loss = logits.square().mean()
            *grads, dx = torch.autograd.grad(loss, [*named.values(), x], materialize_grads=True)
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        found = dict(zip(named, map(_numpy, grads), strict=True))
        return common.Gradients(loss.item(), _numpy(logits), found, _numpy(dx), statistics)

    def train(self, batches: Sequence[np.ndarray], optimizer: common.Optimizer) -> common.Training:
        losses = []
        with self._training(), self._biased() as variances:
            stepper = OPTIMIZERS[optimizer.name](self.model.parameters(), optimizer)
            for images in batches:
                loss = self.model(self._tensor(self._checked(images))).square().mean()
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                losses.append(loss.item())
            parameters = {name: _numpy(parameter) for name, parameter in self.model.named_parameters()}
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        for name, variance in variances.items():
            statistics[name] = _numpy(variance).astype(statistics[name].dtype)
        return common.Training(losses, parameters, statistics)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Training mode or not; afterwards each module is in its own mode again."""
        before = {module: module.training for module in self.model.modules()}
        self.model.train(training)
        try:
            yield
        finally:
            for module, mode in before.items():
                module.training = mode

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Training mode, left without a trace: weights, statistics, gradients, modes, random numbers."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        grads = {parameter: parameter.grad for parameter in self.model.parameters()}
        devices = [torch.cuda.current_device()] if self.device == "gpu" else []
        try:
            with self._mode(True), torch.random.fork_rng(devices):
                for parameter in grads:
                    parameter.grad = None
                yield
        finally:
            for parameter, grad in grads.items():
                parameter.grad = grad
            self.model.load_state_dict(before, strict=True)

    @contextmanager
    def _biased(self) -> Iterator[dict[str, torch.Tensor]]:
        """Running variances of each BatchNorm as they would be without torch's n / (n - 1), call by call."""
        found: dict[str, torch.Tensor] = {}
        last: dict[str, torch.Tensor] = {}  # torch's own

        def hook(name: str) -> Any:
            def follow(module: Any, args: Any, out: torch.Tensor) -> None:
                if not module.training:
                    return
                n = out.numel() // out.shape[1]
                share = 1 / module.num_batches_tracked.item() if module.momentum is None else module.momentum
                new = module.running_var.to(torch.float64, copy=True)
                change = new - (1 - share) * last[name]
                found[name], last[name] = (1 - share) * found[name] + change * ((n - 1) / n), new

            return follow

        norms = {f"{path}.running_var".lstrip("."): m for path, m in self.model.named_modules() if _tracks(m)}
        for name, module in norms.items():
            found[name] = last[name] = module.running_var.to(torch.float64, copy=True)
        hooks = [module.register_forward_hook(hook(name)) for name, module in norms.items()]
        try:
            yield found
        finally:
            for registered in hooks:
                registered.remove()

    @contextmanager
    def undropped(self) -> Iterator[common.Port]:
        with _dropout(lambda x, p=0.5, training=True, inplace=False: x):
            yield self

    def drops(self, images: np.ndarray, seed: int) -> list[common.Drop]:
        found: list[common.Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            out = original(x, p, training)
            if training and p:
                found.append(common.kept(_numpy(x), _numpy(out), p))
            return out

        with _dropout(dropout), self._training(), torch.no_grad():
            torch.manual_seed(seed)
            self.model(self._tensor(self._checked(images)))
        return found

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(tensor) for name, tensor in self.model.state_dict().items()}

    def jittered(self, share: float, seed: int) -> common.Port:
        port = self.with_dtype(self.dtype)
        parameters = [p for p in port.model.parameters() if p.is_floating_point()]
        with torch.no_grad():
            for parameter, factor in zip(parameters, common.factors(parameters, share, seed), strict=True):
                parameter.mul_(torch.from_numpy(factor).to(parameter))
        return port


@contextmanager
def _dropout(other: Any) -> Iterator[None]:
    """Another function in the place of the one that all dropout comes down to."""
    functional: Any = F
    original, functional.dropout = F.dropout, other
    try:
        yield
    finally:
        functional.dropout = original


def _tracks(module: torch.nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_var is not None


def _arrays(values: Any) -> tuple[np.ndarray, ...]:
    values = values if isinstance(values, tuple | list) else (values,)
    return tuple(_numpy(value) for value in values if isinstance(value, torch.Tensor))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    return tensor.cpu().numpy().copy()
