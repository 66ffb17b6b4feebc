"""Train a Mobile-Former and an MLP-Mixer in Flax on digits, and go on with them in PyTorch and PaddlePaddle.

    python examples/digits.py                  # scikit-learn's digits
    python examples/digits.py --data FOLDER    # MNIST's four files, each plain or as .gz
    python examples/digits.py --models mlp_mixer

Four steps for each model:
1. train in Flax, and save a TrainState, halfway and at the end;
2. convert the trained model to PyTorch and to PaddlePaddle, and classify the test images in all three frameworks;
3. convert the TrainState from halfway, with the state of its optimizer, and let PyTorch take the steps that follow;
4. write one HTML page that shows it all.

The exit status is 0 if all three frameworks put every test image into the same class, and else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
from digits_data import SIZE, DataError, Digits, from_folder, from_sklearn, shift
from digits_page import page
from digits_result import FRAMEWORKS, Result

import ports
from convert.__main__ import main as run_command
from convert.errors import ConvertError, UsageError
from specs import config as configs
from specs.mlp_mixer import Config as MixerConfig
from specs.mobile_former import VARIANTS


class Recipe(NamedTuple):
    """How a model is built and trained."""

    config: Any
    epochs: int  # on scikit-learn's digits
    peak: float  # the largest learning rate
    zeros: str = ""  # a pattern: parameters that start at zero, whatever the architecture draws


COMMON = {"image": SIZE, "channels": 1, "classes": 10}
# Dropout is random, and each framework draws other numbers: without it, two frameworks can take the same steps.
NO_DROPOUT = {"dropout": 0.0, "mlp_dropout": 0.0, "attention_dropout": 0.0}
MIXER = MixerConfig(patch=8, depth=4, width=96, token_hidden=48, channel_hidden=192, **COMMON)
# The article's setting for MNIST: 48 pixels, stride 1 in the lite bottleneck; with fewer and narrower blocks than 26m.
MOBILE_FORMER = replace(
    VARIANTS["26m"], lite_stride=1, softmax=False, **COMMON, **NO_DROPOUT, groups=1, heads=2, token_width=64,
    mlp_hidden=128, lite_hidden=16, lite_out=8, blocks=((24, 16, 2), (64, 32, 2), (96, 32, 1)), dyrelu_hidden=16,
    last=192, head_hidden=256,
)  # fmt: skip
# As upstream draws a Mobile-Former, its logits are so wide that the first loss is 5 to 9, where ln 10 = 2.3 is chance,
# and DyReLU's slopes are random. From these zeros every class is as likely, DyReLU is ReLU, and bridges add nothing.
QUIET = "(mlp|head)/fc2/kernel|hyper/norm/scale|to_mobile/value/kernel|(attention|to_former)/output/kernel"
MODELS = {
    "mobile_former": Recipe(MOBILE_FORMER, epochs=12, peak=4e-3, zeros=QUIET),
    "mlp_mixer": Recipe(MIXER, epochs=12, peak=2e-3),
}
BATCH = 32  # images of a training step
CHUNK = 50  # images that are classified at once: of all test sets here a divisor, so that jax compiles once
FOLLOWED = 30  # steps that PyTorch takes after Flax's first half, at most
ADAMW = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.05}


@dataclass(frozen=True)
class Training:
    """What decides every number of a training: the images, and how many steps are taken on them in which order."""

    digits: Digits
    epochs: int
    seed: int
    peak: float  # the largest learning rate

    @property
    def steps_of_epoch(self) -> int:
        return max(len(self.digits.train_labels) // BATCH, 1)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_of_epoch

    @property
    def halfway(self) -> int:
        return self.steps // 2

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images (n, 1, SIZE, SIZE), moved at random, and labels of one step: the same in every framework."""
        epoch, at = divmod(step, self.steps_of_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.digits.train_labels))
        images, labels = self.digits.train(order[at * BATCH :][:BATCH])
        return shift(images, np.random.default_rng([self.seed, epoch, at])), labels

    def schedule(self) -> Callable[[int], Any]:
        """Return the learning rate of each step: it rises in the first tenth, and falls as a cosine after it."""
        import optax

        return optax.warmup_cosine_decay_schedule(0.0, self.peak, self.steps // 10, self.steps)


def compile_quickly() -> None:
    """Keep XLA from fusing operations in its new way and from optimising hard: steps take as long, compiling half.

    It has to be set before jax is imported. XLA ends the process on a flag that it does not know.
    """
    if metadata.version("jaxlib").startswith("0.10."):
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1")


def compute_in_one_thread() -> None:
    """Let PyTorch compute in one thread: in operations this small a second one mostly waits, and keeps a core busy."""
    import torch

    torch.set_num_threads(1)


def flax_state(port: ports.Port, training: Training) -> Any:
    """Return the TrainState of a port before its first step."""
    import jax
    import optax
    from flax.training import train_state

    class TrainState(train_state.TrainState):
        batch_stats: Any  # running statistics of BatchNorm: {} in a Mixer

    module, variables = port.model
    state = TrainState.create(
        apply_fn=module.apply,
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        tx=optax.adamw(training.schedule(), **ADAMW),
    )
    return jax.device_put(state, jax.devices()[0])  # as jax places the next ones: else it compiles the step again


def flax_functions(module: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what takes a step of the training, and what classifies images, both compiled."""
    import jax
    import optax

    @jax.jit
    def step(state, images, labels):
        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updated = module.apply(variables, images.transpose(0, 2, 3, 1), train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=updated.get("batch_stats", {})), value

    @jax.jit
    def classify(state, images):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return module.apply(variables, images.transpose(0, 2, 3, 1))

    return step, classify


def save(state: Any, path: str) -> None:
    """Write a TrainState as flax does."""
    from flax.serialization import to_bytes

    with open(path, "wb") as file:
        file.write(to_bytes(state))


def train_in_flax(name: str, port: ports.Port, training: Training, folder: str) -> Result:
    """Train a port, and save its TrainState halfway and at the end, with its configuration beside it."""
    import jax

    state, (step, classify) = flax_state(port, training), flax_functions(port.model[0])
    parameters = sum(array.size for array in jax.tree.leaves(state.params))
    print(f"\n{name}: {parameters:,} parameters, {training.steps:,} steps of {BATCH} images in Flax")
    with open(f"{folder}/{name}.json", "w") as file:
        json.dump(configs.as_dict(port.config), file, indent=1)

    began, losses, accuracies = time.perf_counter(), [], []
    for number in range(training.steps):
        if number == training.halfway:
            save(state, f"{folder}/{name}_halfway.msgpack")
        state, loss = step(state, *training.batch(number))
        losses.append(float(loss))
        if (number + 1) % training.steps_of_epoch == 0:
            logits = in_chunks(training.digits, partial(classify, state))
            accuracies.append(float((logits.argmax(1) == training.digits.test_labels).mean()))
            show_progress(training, losses, accuracies, time.perf_counter() - began)
    save(state, f"{folder}/{name}.msgpack")
    return Result(
        name=name,
        parameters=parameters,
        seconds=time.perf_counter() - began,
        losses=losses,
        accuracies=accuracies,
        halfway=training.halfway,
        labels=training.digits.test_labels,
        logits={"flax": logits},
    )


def with_zeros(model: Any, pattern: str) -> Any:
    """Return linen's module and variables with zeros in each parameter whose path fits the pattern."""
    from flax.traverse_util import path_aware_map

    def start(path: tuple[str, ...], array: Any) -> Any:
        return array * 0 if re.search(pattern, "/".join(path)) else array

    module, variables = model
    return module, {**variables, "params": path_aware_map(start, variables["params"])}


def in_chunks(digits: Digits, classify: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Return the logits (n, 10) of all test images."""
    starts = range(0, len(digits.test_labels), CHUNK)
    return np.concatenate([np.asarray(classify(digits.test(slice(start, start + CHUNK)))) for start in starts])


def show_progress(training: Training, losses: Sequence[float], accuracies: Sequence[float], seconds: float) -> None:
    done = len(accuracies)
    loss = np.mean(losses[-training.steps_of_epoch :])
    bar = ("#" * round(20 * done / training.epochs)).ljust(20, ".")
    print(f"  epoch {done:>3} [{bar}] loss {loss:.4f}, test accuracy {accuracies[-1]:.2%}, {seconds:.0f} s", flush=True)


def convert(*words: str) -> None:
    """Run `python -m convert` with these words, in this process."""
    print("$ python -m convert", *words, flush=True)
    if run_command([*words, "--quiet", "--force"]) != 0:
        raise ConvertError("the conversion failed: its message is above")


def classify_elsewhere(name: str, digits: Digits, folder: str) -> dict[str, np.ndarray]:
    """Convert the trained model, and return the logits of all test images in PyTorch and PaddlePaddle."""
    source, config = f"{folder}/{name}.msgpack", f"{folder}/{name}.json"
    logits = {}
    for framework, suffix in (("torch", "pt"), ("paddle", "pdparams")):
        path = f"{folder}/{name}.{suffix}"
        convert(f"flax2{framework}", source, "--config", config, "-o", path)
        logits[framework] = in_chunks(digits, ports.load(path, framework))
    return logits


def go_on_in_torch(name: str, training: Training, folder: str) -> dict[str, list[float]]:
    """Let PyTorch take the steps after halfway, with the optimizer's state and without; return both lists of losses."""
    import torch

    source, path = f"{folder}/{name}_halfway.msgpack", f"{folder}/{name}_halfway.pt"
    schedule = training.schedule()
    stated = {"kind": "adamw", "lr": float(schedule(training.halfway)), "beta1": ADAMW["b1"], "beta2": ADAMW["b2"]}
    stated |= {"eps": ADAMW["eps"], "weight_decay": ADAMW["weight_decay"]}
    hyper = [word for key, value in stated.items() for word in ("--hyper", f"{key}={value}")]
    convert("flax2torch", source, "--with-optimizer", "--config", f"{folder}/{name}.json", *hyper, "-o", path)
    checkpoint = torch.load(path, weights_only=True)

    losses: dict[str, list[float]] = {}
    for carried in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file also contains the optimizer's state, which is loaded below
            model = ports.load(path, "torch").model.train()
        betas = (ADAMW["b1"], ADAMW["b2"])
        adamw = torch.optim.AdamW(model.parameters(), betas=betas, eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"])
        if carried:
            adamw.load_state_dict(checkpoint["optimizer"])
        values = losses["carried" if carried else "fresh"] = []
        for number in range(training.halfway, min(training.halfway + FOLLOWED, training.steps)):
            images, labels = training.batch(number)
            for group in adamw.param_groups:
                group["lr"] = float(schedule(number))
            logits = model(torch.from_numpy(images))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            values.append(loss.item())
    return losses


def run(name: str, training: Training, folder: str) -> Result:
    """Take all steps for one model."""
    recipe = MODELS[name]
    port = ports.build(name, recipe.config, "flax", seed=training.seed)
    if recipe.zeros:
        port.model = with_zeros(port.model, recipe.zeros)
    result = train_in_flax(name, port, training, folder)
    compute_in_one_thread()
    result.logits |= classify_elsewhere(name, training.digits, folder)
    print(result.table())
    result.continued = go_on_in_torch(name, training, folder)
    print(result.continuation())
    return result


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    about = "Train in Flax, go on in PyTorch and PaddlePaddle."
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.add_argument("--data", metavar="FOLDER", help="MNIST's four files (default: scikit-learn's digits)")
    parser.add_argument("--out", metavar="FOLDER", default="digits", help="for checkpoints and page (default: digits)")
    parser.add_argument("--epochs", type=int, help="of every model (default: 12, and 1 with --data)")
    parser.add_argument(
        "--models", nargs="+", choices=[*MODELS], default=[*MODELS], metavar="NAME",
        help=f"train these of {', '.join(MODELS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split, of the weights and of the batches")
    options = parser.parse_args(words)
    if options.epochs is not None and options.epochs < 1:
        parser.error("--epochs: at least 1")
    return options


def main(words: Sequence[str] | None = None) -> int:
    options, began = arguments(words), time.perf_counter()
    try:
        for framework in FRAMEWORKS:
            ports.require(framework)
        compile_quickly()
        digits = from_folder(options.data) if options.data else from_sklearn(options.seed)
        os.makedirs(options.out, exist_ok=True)
        print(f"{digits.name}: {len(digits.train_labels):,} images to train, {len(digits.test_labels):,} to test")
        results = []
        for name in options.models:
            epochs = options.epochs or (1 if options.data else MODELS[name].epochs)
            results.append(run(name, Training(digits, epochs, options.seed, MODELS[name].peak), options.out))
    except (DataError, ConvertError, UsageError) as error:
        print(f"digits: {error}", file=sys.stderr)
        return 1
    path = os.path.join(options.out, "digits.html")
    with open(path, "w", encoding="utf-8") as file:  # as the page states
        file.write(page(results, digits, options.seed))
    print(f"\n{path}: open it in a browser ({time.perf_counter() - began:.0f} s in all)")
    return 0 if all(result.agrees for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
