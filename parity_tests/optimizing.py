"""Train the same model in each framework by its own calls, save it with its optimizer, load both again, and compare."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np

import ports
import specs
from convert.reading.families import call
from ports.frameworks import quick_forward_options
from specs import config as configs

# Sums of powers of 2: paddle rounds momentum and weight decay to float32. No defaults; an epsilon that shows its place.
HYPER = {
    "sgd": {"lr": 0.015625, "momentum": 0.875, "nesterov": True, "weight_decay": 0.0078125},
    "adam": {"lr": 0.0009765625, "beta1": 0.75, "beta2": 0.9375, "eps": 0.001953125, "weight_decay": 0.015625},
    "adamw": {"lr": 0.0009765625, "beta1": 0.75, "beta2": 0.9375, "eps": 0.001953125, "weight_decay": 0.125},
}
# The shallowest twin of each architecture that trains all kinds of its layers: XLA takes seconds to compile the others.
TINY = {"mlp_mixer": "S/32", "convmixer": "768/32", "raft_mlp": "M", "dynamixer": "two halvings",
        "mobile_former": "groups, stride 1, one channel"}  # fmt: skip
SUFFIX = {"flax": ".msgpack", "torch": ".pt", "paddle": ".pdparams"}


def loading():
    """Return what docs/training.md shows to load a file that lacks hyperparameters."""
    return shown("## Hyperparameters that a file lacks")


def shown(heading):
    """Return the first block of Python below a heading of docs/training.md."""
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    return re.findall(r"```python\n(.*?)```", text.partition(f"{heading}\n")[2], re.DOTALL)[0]


def config_of(architecture):
    return specs.get(architecture).tiny[TINY[architecture]]


def save_config(architecture, path):
    path.write_text(json.dumps(configs.as_dict(config_of(architecture))))
    return path


def trained_mixer(folder):
    """Save a tiny Mixer after 3 steps of torch's AdamW; return its file and that of its configuration."""
    model = Torch("mlp_mixer", "adamw")
    model.train(batches("mlp_mixer")[:3])
    model.save(folder / "model.pt")
    return folder / "model.pt", save_config("mlp_mixer", folder / "config.json")


def save_one_step(model, path, optimizer="AdamW"):
    """Save a model of torch with one of torch's optimizers by its name, after a step with gradients of 1."""
    import torch

    stepper = getattr(torch.optim, optimizer)(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    stepper.step()
    torch.save({"model": model.state_dict(), "optimizer": stepper.state_dict()}, path)


@functools.cache
def batches(architecture):
    """Ten batches: the images that every framework trains on, and what its outputs are drawn to."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((10, 2, *specs.get(architecture).input_shape(config_of(architecture))))
    outputs = fresh(architecture, "torch")(images[0]).shape
    return list(zip(images, rng.standard_normal((10, *outputs)), strict=True))


@functools.cache
def with_statistics():
    """flax's TrainState as its guide extends it."""
    from flax.training.train_state import TrainState

    class State(TrainState):
        batch_stats: dict

    return State


@functools.cache
def transformation(kind):
    """optax's optimizer, one object for all, by which the compiled step is known again."""
    import optax

    return eval(call(kind, "optax", HYPER[kind]), {"optax": optax})


class Flax:
    """flax's TrainState with optax."""

    def __init__(self, architecture, kind):
        from flax.training.train_state import TrainState

        module, variables = fresh(architecture, "flax").model
        tx = transformation(kind)
        stats = {"batch_stats": variables["batch_stats"]} if "batch_stats" in variables else {}
        self.state = (with_statistics() if stats else TrainState).create(
            apply_fn=module.apply, params=variables["params"], tx=tx, **stats
        )
        self.state = self.state.replace(step=np.zeros((), "int32"))  # as it is after loading: compiled once
        self.update = update(architecture, kind)

    def train(self, some):
        import jax

        self.state = jax.tree.map(jax.numpy.asarray, self.state)
        for images, targets in some:
            self.state = self.update(self.state, images.transpose(0, 2, 3, 1), targets)

    def save(self, path):
        from flax import serialization

        path.write_bytes(serialization.to_bytes(self.state))

    def load(self, path):
        from flax import serialization

        self.state = serialization.from_bytes(self.state, path.read_bytes())


@functools.cache
def update(architecture, kind):
    """Compile a step of training as a whole, as operations one by one are compiled for every shape, and quickly."""
    import jax

    module = fresh(architecture, "flax").model[0]

    def step(state, images, targets):
        stats = {"batch_stats": state.batch_stats} if hasattr(state, "batch_stats") else {}

        def loss(params):
            return ((module.apply({"params": params, **stats}, images) - targets) ** 2).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    compiled = []

    def run(*arguments):
        if not compiled:  # by hand: jit compiles again for arrays that it returned
            compiled.append(jax.jit(step, compiler_options=quick_forward_options()).lower(*arguments).compile())
        return compiled[0](*arguments)

    return run


@functools.cache
def fresh_flax(architecture):
    return ports.build(architecture, config_of(architecture), "flax", seed=1, init="random", dtype="float64")


def fresh(architecture, framework):
    """A model with random weights, the same in every framework; linen's is never changed."""
    if framework == "flax":
        return fresh_flax(architecture)
    return ports.build(architecture, config_of(architecture), framework, seed=1, init="random", dtype="float64")


class Torch:
    """A torch module with torch.optim."""

    named = False  # whether the optimizer stores names

    def __init__(self, architecture, kind):
        import torch

        self.model = fresh(architecture, "torch").model
        parameters = self.model.named_parameters() if self.named else self.model.parameters()
        build = call(kind, "torch", HYPER[kind]).replace("(", "(parameters, ", 1)
        self.optimizer = eval(build, {"torch": torch, "parameters": parameters})

    def train(self, some):
        import torch

        for images, targets in some:
            self.optimizer.zero_grad()
            ((self.model(torch.from_numpy(images)) - torch.from_numpy(targets)) ** 2).mean().backward()
            self.optimizer.step()

    def save(self, path):
        import torch

        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, path)

    def load(self, path):
        import torch

        saved = torch.load(path)
        names = [name for name, _ in self.model.named_parameters()]
        assert saved["optimizer"]["param_groups"][0].get("param_names", names) == names  # torch itself counts them only
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])


class Paddle:
    """A paddle layer with paddle.optimizer, whose state has a file of its own."""

    def __init__(self, architecture, kind):
        import paddle

        self.model = fresh(architecture, "paddle").model
        build = call(kind, "paddle", HYPER[kind]).replace("(", "(parameters=parameters, ", 1)
        self.optimizer = eval(build, {"paddle": paddle, "parameters": self.model.parameters()})

    def train(self, some):
        import paddle

        for images, targets in some:
            ((self.model(paddle.to_tensor(images)) - paddle.to_tensor(targets)) ** 2).mean().backward()
            self.optimizer.step()
            self.optimizer.clear_grad()

    def save(self, path):
        import paddle

        paddle.save(self.model.state_dict(), str(path))
        paddle.save(self.optimizer.state_dict(), str(path.with_suffix(".pdopt")))

    def load(self, path):
        import paddle

        saved = paddle.load(str(path))
        if "optimizer" in saved:
            self.model.set_state_dict(saved["model"])
            self.optimizer.set_state_dict(saved["optimizer"])
        else:
            self.model.set_state_dict(saved)
            self.optimizer.set_state_dict(paddle.load(str(path.with_suffix(".pdopt"))))


TRAINERS = {"flax": Flax, "torch": Torch, "paddle": Paddle}


def apart(printed, err):
    """Return the plain values that a table of `diff` lists, as its notes spell them, and the notes: none is in both."""
    rows = re.findall(r"^  (\S.*?)  +(\S.*?)  +(\S.*)$", printed.partition("  plain value\n")[2], re.MULTILINE)
    assert not any(f"{name} is " in err for *_, name in rows), err
    return "".join(f"{name} is {ours} in A, {theirs} in B\n" for ours, theirs, name in rows) + err
