"""PyTorch modules behind the common call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from convert.errors import ConvertError

from . import base, hooked

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.rate, momentum=o.momentum, weight_decay=o.decay),
    "adam": lambda p, o: torch.optim.Adam(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
}


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    return tensor.cpu().numpy().copy()


class Runner(hooked.Runner):
    framework = library = "torch"
    model: torch.nn.Module
    is_array, numpy = staticmethod(_is_array), staticmethod(_numpy)

    @classmethod
    def own(cls, model: torch.nn.Module, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's module as it is, in its own dtype and on its own device."""
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        dtype = "float32" if first is None else str(first.dtype).removeprefix("torch.")
        return cls(model, dtype, "gpu" if first is not None and first.is_cuda else "cpu", training)

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        with torch.device("meta"):  # the checkpoint fills everything: nothing is allocated or drawn twice
            runner = cls(network(config), dtype, device)
        filled = {name: runner.tensor(array) for name, array in tensors}
        try:
            runner.model.load_state_dict(filled, strict=True, assign=True)
        except RuntimeError as error:  # lists every array that the network lacks or does not take
            first, *problems = str(error).splitlines()
            raise ConvertError(f"torch's {network.__name__} does not fit: {first}", map(str.strip, problems)) from None
        runner.model.eval().requires_grad_(True)
        return runner

    def settle(self) -> None:
        if self.device == "gpu":
            if not torch.cuda.is_available():
                raise base.Unavailable("torch finds no GPU here: use device='cpu'")
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def cast(self, dtype: str) -> Runner:
        return type(self)(copy.deepcopy(self.model).to(getattr(torch, dtype)), dtype, self.device, self.training)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array: a model may work in place on what it is given."""
        tensor = torch.from_numpy(np.array(array, order="C"))
        dtype = getattr(torch, self.dtype) if tensor.is_floating_point() else tensor.dtype
        return tensor.to("cuda" if self.device == "gpu" else "cpu", dtype)

    @torch.no_grad()  # a tensor of inference mode that forward caches could never train
    def _outputs(self, given: base.Inputs) -> dict[str, np.ndarray]:
        return base.named_outputs(self.model(*given.args, **given.kwargs), _is_array, _numpy)

    def _named_modules(self) -> Iterable[tuple[str, torch.nn.Module]]:
        return self.model.named_modules()

    @staticmethod
    def _after(module: torch.nn.Module, hook: Any) -> Any:
        return module.register_forward_hook(hook)

    @staticmethod
    def _seed(seed: int) -> None:
        torch.manual_seed(seed)

    def modules(self, inputs: base.Inputs) -> dict[str, base.Module]:
        found = {}
        for path, module in self.model.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            leaves = {leaf: f"{path}.{leaf}".lstrip(".") for leaf, _ in own}
            trained = any(True for _ in module.parameters())
            found[path] = base.Module(base.classes(module), leaves, trained)
        return found

    def gradients(self, inputs: base.Inputs) -> base.Gradients:
        given = inputs.map(self.tensor)
        free = {name: x.requires_grad_() for name, x in given.named(_is_array).items() if x.is_floating_point()}
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        with self._training():
            found = base.visible(base.OUTPUT, self.model(*given.args, **given.kwargs), _is_array)
            loss = _loss(found)
            grads = iter(torch.autograd.grad(loss, [*named.values(), *free.values()], materialize_grads=True))
            parameters, into = ({name: _numpy(next(grads)) for name in names} for names in (named, free))
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        return base.Gradients(loss.item(), base.named(found, _numpy), parameters, into, statistics)

    def train(self, batches: Sequence[base.Inputs], optimizer: base.Optimizer) -> base.Training:
        losses = []
        with self._training(), self._biased() as variances:
            stepper = OPTIMIZERS[optimizer.name](self.model.parameters(), optimizer)
            for given in (batch.map(self.tensor) for batch in batches):
                loss = _loss(base.visible(base.OUTPUT, self.model(*given.args, **given.kwargs), _is_array))
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                losses.append(loss.item())
            parameters = {name: _numpy(parameter) for name, parameter in self.model.named_parameters()}
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        for name, variance in variances.items():
            statistics[name] = _numpy(variance).astype(statistics[name].dtype)
        return base.Training(losses, parameters, statistics)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Training mode or not; afterwards modes, buffers, attributes and random numbers are as before."""
        modules = list(self.model.modules())
        modes = [module.training for module in modules]
        devices = [torch.cuda.current_device()] if self.device == "gpu" else []
        with base.attributes_kept(modules, _is_array) as tensors, torch.random.fork_rng(devices):
            values = [tensor.detach().clone() for tensor in tensors]
            self.model.train(training)
            try:
                yield
            finally:
                for module, mode in zip(modules, modes, strict=True):
                    module.training = mode
                _restore(tensors, values)

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Training mode, left without a trace: weights and gradients too."""
        grads = {parameter: parameter.grad for parameter in self.model.parameters()}
        before = [parameter.detach().clone() for parameter in grads]
        try:
            with self._mode(True):
                for parameter in grads:
                    parameter.grad = None
                yield
        finally:
            for parameter, grad in grads.items():
                parameter.grad = grad
            _restore(grads, before)

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
    def undropped(self) -> Iterator[None]:
        with _dropout(lambda x, p=0.5, training=True, inplace=False: x):
            yield

    def drops(self, inputs: base.Inputs, seed: int) -> list[base.Drop]:
        found: list[base.Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            out = original(x, p, training)
            if training and p:
                found.append(base.kept(_numpy(x), _numpy(out), p))
            return out

        given = inputs.map(self.tensor)
        with _dropout(dropout), self._training(), torch.no_grad():
            torch.manual_seed(seed)
            self.model(*given.args, **given.kwargs)
        return found

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(tensor) for name, tensor in self.model.state_dict().items()}

    def jittered(self, share: float, seed: int) -> Runner:
        runner = self.cast(self.dtype)
        parameters = [p for p in runner.model.parameters() if p.is_floating_point()]
        with torch.no_grad():
            for parameter, factor in zip(parameters, base.factors(parameters, share, seed), strict=True):
                parameter.mul_(torch.from_numpy(factor).to(parameter))
        return runner


@torch.no_grad()
def _restore(tensors: Iterable[torch.Tensor], values: Iterable[torch.Tensor]) -> None:
    """Write values back where they are others: writing a tensor spoils the graphs that it is part of."""
    for tensor, value in zip(tensors, values, strict=True):
        if tensor.layout != torch.strided or not torch.equal(tensor, value):
            tensor.copy_(value)


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


def _loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return base.sum_of([out.square().mean() for out in outputs.values() if out.is_floating_point()])
