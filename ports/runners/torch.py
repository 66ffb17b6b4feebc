"""Run PyTorch modules behind the common call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from convert.errors import UsageError

from ..frameworks import DEVICES, PortError, Unavailable, unfit
from . import base, hooked
from .hooked import WITHOUT_PARAMETERS
from .inputs import Inputs
from .misfits import misfits
from .records import Drop, Gradients, Module, Optimizer, Training, classes, describe_drop
from .torch_ties import copied, shared
from .tracing import name_outputs

UNBIASED = (
    "torch's BatchNorms were trained with the biased variance in their running variances, as flax and paddle have it; "
    "torch itself takes n / (n - 1) times that, n = batch x positions"
)

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.rate, momentum=o.momentum, weight_decay=o.decay),
    "adam": lambda p, o: torch.optim.Adam(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.rate, (o.beta1, o.beta2), o.epsilon, o.decay),
}


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor; bfloat16 and float8, which NumPy lacks, become float32, and a sparse tensor becomes dense.

    What torch leaves open in memory, as whether complex numbers are conjugated, is computed.
    """
    tensor = tensor.detach().resolve_conj().resolve_neg()
    tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    known = not tensor.is_floating_point() or tensor.dtype in (torch.float16, torch.float32, torch.float64)
    return (tensor if known else tensor.float()).cpu().numpy().copy()


def _check_runs(model: torch.nn.Module) -> None:
    """Check that a user's module can be cast, traced and switched between modes. Raises: UsageError."""
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise UsageError("a ScriptModule cannot be cast or traced: give the module that it was made from")
    if any(getattr(vars(m).get("train"), "__module__", "").startswith("torch.export") for m in modules):
        raise UsageError("a module of torch.export has no modes: give the module that was exported")
    if any(type(module).__module__.startswith("torch.ao.nn.quantized") for module in modules):
        raise UsageError("a quantized module cannot be cast: give the module before it was quantized")
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):
        raise UsageError("the model is on device meta, without values: load its weights first")


class Runner(hooked.Runner):
    framework = library = "torch"
    model: torch.nn.Module
    shallow = "recurse"
    is_array, numpy = staticmethod(_is_array), staticmethod(_numpy)

    @classmethod
    def own(cls, model: torch.nn.Module, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's module as it is, in its own dtype and on its own device. Raises: UsageError."""
        _check_runs(model)
        return cls(model, *(cls.where(model) or WITHOUT_PARAMETERS), training)

    @staticmethod
    def where(model: torch.nn.Module) -> tuple[str, str] | None:
        first = next((p for p in model.parameters() if is_inexact(p)), None)
        if first is None:
            return None
        return str(first.dtype.to_real()).removeprefix("torch."), "gpu" if first.is_cuda else first.device.type

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        with torch.device("meta"):  # the checkpoint fills everything: nothing is allocated or drawn twice
            runner = cls(network(config), dtype, device)
        filled = {name: runner.tensor(array) for name, array in tensors}
        page, port = (  # a single number may have an axis, as load_state_dict allows
            {name: tuple(tensor.shape) or (1,) for name, tensor in arrays.items()}
            for arrays in (filled, runner.model.state_dict())
        )
        if wrong := misfits(page, port):
            raise PortError(unfit("torch", network), wrong)
        runner.model.load_state_dict(filled, strict=True, assign=True)
        runner.model.eval().requires_grad_(True)
        return runner

    def settle(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"the model is on device {self.device}: move it to cpu or cuda, or call it yourself")
        if self.device == "gpu":
            if not torch.cuda.is_available():
                raise Unavailable("torch")
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def cast(self, dtype: str) -> Runner:
        runner = type(self)(in_dtype(copied(self.model), dtype), dtype, self.device, self.training)
        for (name, _), (first, _) in shared(self.model):
            runner.notes.append(f"{first} and {name} share their memory: they are taken as one parameter")
        return runner

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array: a model may work in place on its inputs."""
        tensor = torch.from_numpy(np.array(array, order="C"))
        dtype = getattr(torch, self.dtype) if tensor.is_floating_point() else tensor.dtype
        return tensor.to("cuda" if self.device == "gpu" else "cpu", dtype)

    @torch.no_grad()  # a tensor of inference mode that forward caches could never train
    def _outputs(self, tensors: Inputs) -> dict[str, np.ndarray]:
        return name_outputs(self.results(self.model(*tensors.args, **tensors.kwargs), _is_array), _numpy)

    @staticmethod
    def _bare() -> torch.nn.Module:
        return torch.nn.Module()

    def _named_modules(self) -> Iterable[tuple[str, torch.nn.Module]]:
        return self.model.named_modules()

    @staticmethod
    def _after(module: torch.nn.Module, hook: Any) -> Any:
        return module.register_forward_hook(hook)

    @staticmethod
    def _seed(seed: int) -> None:
        torch.manual_seed(seed)

    def modules(self, inputs: Inputs) -> dict[str, Module]:
        modules = {}
        for path, module in self.model.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            leaves = {leaf: f"{path}.{leaf}".lstrip(".") for leaf, _ in own}
            trained = any(True for _ in module.parameters())
            modules[path] = Module(classes(module), leaves, trained)
        return modules

    def gradients(self, inputs: Inputs) -> Gradients:
        tensors = inputs.map(self.tensor)
        free = {name: x.requires_grad_() for name, x in tensors.named(_is_array).items() if is_inexact(x)}
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        with self._training():
            results = self.results(self.model(*tensors.args, **tensors.kwargs), _is_array)
            loss = _loss(results)
            base.require_gradient(loss.requires_grad)
            grads = iter(torch.autograd.grad(loss, [*named.values(), *free.values()], materialize_grads=True))
            parameters, into = ({name: _numpy(next(grads)) for name in names} for names in (named, free))
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        return Gradients(loss.item(), name_outputs(results, _numpy), parameters, into, statistics)

    def train(self, batches: Sequence[Inputs], optimizer: Optimizer) -> Training:
        losses = []
        with self._training(), self._biased() as variances:
            stepper = OPTIMIZERS[optimizer.name](self.model.parameters(), optimizer)
            for tensors in (batch.map(self.tensor) for batch in batches):
                loss = _loss(self.results(self.model(*tensors.args, **tensors.kwargs), _is_array))
                base.require_gradient(loss.requires_grad)
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                losses.append(loss.item())
            parameters = {name: _numpy(parameter) for name, parameter in self.model.named_parameters()}
            statistics = {name: _numpy(buffer) for name, buffer in self.model.named_buffers()}
        for name, variance in variances.items():
            statistics[name] = _numpy(variance).astype(statistics[name].dtype)
        return Training(losses, parameters, statistics, (UNBIASED,) if variances else ())

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Set a mode; restore modes, buffers, attributes and random numbers when the block ends."""
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
        """Set training mode; restore also weights and gradients when the block ends."""
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
        """Compute the running variance of each BatchNorm without torch's n / (n - 1), call by call."""
        variances: dict[str, torch.Tensor] = {}
        last: dict[str, torch.Tensor] = {}  # torch's own

        def hook(name: str) -> Any:
            def follow(module: Any, args: Any, out: torch.Tensor) -> None:
                if not module.training:
                    return
                n = out.numel() // out.shape[1]
                share = 1 / module.num_batches_tracked.item() if module.momentum is None else module.momentum
                new = module.running_var.to(torch.float64, copy=True)
                change = new - (1 - share) * last[name]
                variances[name], last[name] = (1 - share) * variances[name] + change * ((n - 1) / n), new

            return follow

        norms = {f"{path}.running_var".lstrip("."): m for path, m in self.model.named_modules() if _tracks(m)}
        for name, module in norms.items():
            variances[name] = last[name] = module.running_var.to(torch.float64, copy=True)
        hooks = [module.register_forward_hook(hook(name)) for name, module in norms.items()]
        try:
            yield variances
        finally:
            for registered in hooks:
                registered.remove()

    @contextmanager
    def no_dropout(self) -> Iterator[None]:
        with _dropout(lambda x, p=0.5, training=True, inplace=False: x):
            yield

    def dropout_calls(self, inputs: Inputs, seed: int) -> list[Drop]:
        calls: list[Drop] = []
        original = F.dropout

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            out = original(x, p, training)
            if training and p:
                calls.append(describe_drop(_numpy(x), _numpy(out), p))
            return out

        tensors = inputs.map(self.tensor)
        with _dropout(dropout), self._training(), torch.no_grad():
            torch.manual_seed(seed)
            self.model(*tensors.args, **tensors.kwargs)
        return calls

    def state(self) -> dict[str, np.ndarray]:
        return {name: _numpy(value) for name, value in self.model.state_dict().items() if _is_array(value)}

    def jittered(self, share: float, seed: int) -> Runner:
        runner = self.cast(self.dtype)
        parameters = [p for p in runner.model.parameters() if is_inexact(p)]
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
    """Replace the function that all dropout calls."""
    functional: Any = F
    original, functional.dropout = F.dropout, other
    try:
        yield
    finally:
        functional.dropout = original


def _tracks(module: torch.nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_var is not None


def is_inexact(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has real or complex numbers, no integers."""
    return tensor.is_floating_point() or tensor.is_complex()


def in_dtype(model: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """Cast a module in place, with tensors that are plain attributes, which Module.to leaves.

    Complex tensors become complex ones: Module.to would drop their imaginary parts.
    """
    real, wide = getattr(torch, dtype), getattr(torch, base.complex_of(dtype))
    done: dict[int, torch.Tensor] = {}  # a buffer and an attribute that are one tensor stay one
    parameters = set(map(id, model.parameters()))  # whose attributes follow them: they are cast in place

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        if not is_inexact(tensor):
            return tensor
        if id(tensor) not in done:
            done[id(tensor)] = tensor.to(real if tensor.is_floating_point() else wide)
        return done[id(tensor)]

    for module in model.modules():
        own = {name: v for name, v in vars(module).items() if _is_array(v) and id(v) not in parameters}
        vars(module).update({name: cast(v) for name, v in own.items()})
    return model._apply(cast)


def _loss(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    squares = [(out * out.conj()).real.mean() for out in outputs.values() if is_inexact(out)]
    return base.sum_of(squares)
