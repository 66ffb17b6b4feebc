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
        tensor = torch.from_numpy(np.require(array, requirements=("C", "W")))
        dtype = getattr(torch, self.dtype) if tensor.is_floating_point() else tensor.dtype
        return tensor.to("cuda" if self.device == "gpu" else "cpu", dtype)

    def _forward(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
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
        named = dict(self.model.named_parameters())
        with self._training():
            logits = self.model(x)
            loss = logits.square().mean()
            *grads, dx = torch.autograd.grad(loss, [*named.values(), x], materialize_grads=True)
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        found = dict(zip(named, map(_numpy, grads), strict=True))
        return common.Gradients(loss.item(), _numpy(logits), found, _numpy(dx), statistics)

    def train(self, batches: Sequence[np.ndarray], optimizer: common.Optimizer) -> common.Training:
        losses, before = [], {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        with self._training(), self._counted() as counts:
            stepper = OPTIMIZERS[optimizer.name](self.model.parameters(), optimizer)
            for images in batches:
                loss = self.model(self._tensor(self._checked(images))).square().mean()
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                losses.append(loss.item())
            parameters = {name: _numpy(parameter) for name, parameter in self.model.named_parameters()}
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        for path, (n, momentum) in counts.items():
            name = f"{path}.running_var"
            old = (1 - momentum) ** len(batches) * before[name]
            statistics[name] = old + (statistics[name] - old) * ((n - 1) / n)  # linear in each step's variance
        return common.Training(losses, parameters, statistics)

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Training mode, left without a trace: weights, statistics, gradients, mode."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        mode = self.model.training
        self.model.train()
        try:
            yield
        finally:
            self.model.train(mode)
            self.model.zero_grad()
            self.model.load_state_dict(before, strict=True)

    @contextmanager
    def _counted(self) -> Iterator[dict[str, tuple[int, float]]]:
        """(values that each BatchNorm normalises over, its momentum), filled in by forward passes."""
        counts: dict[str, tuple[int, float]] = {}

        def hook(path: str) -> Any:
            def count(module: Any, args: Any) -> None:
                counts[path] = args[0].numel() // args[0].shape[1], module.momentum

            return count

        norms = [(path, m) for path, m in self.model.named_modules() if isinstance(m, _BatchNorm)]
        hooks = [m.register_forward_pre_hook(hook(path)) for path, m in norms if m.track_running_stats]
        try:
            yield counts
        finally:
            for registered in hooks:
                registered.remove()

    def drops(self, images: np.ndarray, seed: int) -> list[common.Drop]:
        found: list[common.Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            out = original(x, p, training)
            if training and p:
                found.append(common.kept(_numpy(x), _numpy(out), p))
            return out

        functional: Any = F
        functional.dropout = dropout
        try:
            with self._training(), torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(seed)
                self.model(self._tensor(self._checked(images)))
        finally:
            functional.dropout = original
        return found

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(tensor) for name, tensor in self.model.state_dict().items()}


def _arrays(values: Any) -> tuple[np.ndarray, ...]:
    values = values if isinstance(values, tuple | list) else (values,)
    return tuple(_numpy(value) for value in values if isinstance(value, torch.Tensor))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    return tensor.cpu().numpy().copy()
