"""parity.compare of JAX functions of (parameters, inputs)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from convert.errors import UsageError
from parity_tests.conftest import needs

X = np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32)


def forward(params: Any, x: Any, scale: float = 1.0) -> Any:
    import jax.numpy as jnp

    y = params["act"](x @ params["layers"][0]["w"] + params["layers"][0]["b"])
    return {"logits": scale * (y @ params["layers"][1]["w"]), "mean": jnp.mean(y, -1)}


def params(epsilon: float = 0.0) -> Any:
    import jax.numpy as jnp

    rng = np.random.default_rng(1)
    layers = [
        {"w": rng.standard_normal((3, 8)), "b": rng.standard_normal(8)},
        {"w": rng.standard_normal((8, 2)) + epsilon},
    ]
    return {"layers": [{k: a.astype(np.float32) for k, a in layer.items()} for layer in layers], "act": jnp.tanh,
            "steps": np.arange(3)}  # fmt: skip


def torch_net() -> Any:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2, bias=False)

        def forward(self, x: Any, scale: float = 1.0) -> Any:
            y = self.up(x).tanh()
            return {"logits": scale * self.down(y), "mean": y.mean(-1)}

    net, tree = Net(), params()["layers"]
    weights = {"up.weight": tree[0]["w"].T, "up.bias": tree[0]["b"], "down.weight": tree[1]["w"].T}
    net.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return net


@pytest.mark.parametrize("check", ["forward", "gradients", "train"])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_function_is_compared_with_a_module(check: str, dtype: str | None):
    needs("flax")
    import jax  # noqa: F401  # as the user's code does

    models = {"torch": torch_net(), "jax": (forward, params())}
    report = parity.compare(models, parity.Inputs(X, scale=2.0), check=check, dtype=dtype)
    assert report.passed, str(report)
    other = {"torch": torch_net(), "jax": (forward, params(1e-2))}
    report = parity.compare(other, parity.Inputs(X, scale=2.0), check=check, dtype=dtype)
    assert not report.passed and report.results


def test_both_may_be_functions_and_images_have_channels_last():
    needs("flax")
    import jax.numpy as jnp

    images = np.random.default_rng(0).standard_normal((2, 3, 4, 5), dtype=np.float32)

    def mean(params: Any, x: Any) -> Any:
        assert x.shape == (2, 4, 5, 3)
        return params["scale"] * x.mean((1, 2))

    one = {"scale": jnp.ones(3)}
    assert parity.compare({"a": (mean, one), "b": (mean, one)}, images).passed


@pytest.mark.parametrize(("model", "options", "why"), [
    (lambda: (forward, params()), {"names": {"b": {"layers.0": "up"}}}, "no module 'layers.0': there is none"),
    (lambda: (torch_net(), params()), {}, "tuple is no model: .* or .JAX function of parameters and inputs"),
    (lambda: (torch_net, params(), 1), {}, "tuple is no model"),
    (lambda: (forward, params()), {"check": "layers"}, "b: a JAX function has no modules to compare: check='forward'"),
])  # fmt: skip
def test_what_a_function_has_not_is_refused(model: Any, options: Any, why: str):
    needs("flax")
    with pytest.raises(UsageError, match=why):
        parity.compare({"a": torch_net(), "b": model()}, X, **options)
