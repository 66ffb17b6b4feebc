"""The verdict counts as many differences as the places that are listed, whatever differs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.explain import explanation
from parity.derive.report import page
from parity_tests.conftest import needs
from parity_tests.derive.pairs import images
from parity_tests.derive.test_kinds_matching import Net, linear
from specs.words import in_words

BLOCKS = 2
Block = Callable[[Any, int, Any], Any]


def blocks(block: Block, epsilon: float = 1e-5) -> Net:
    """Run two blocks, each with a norm, a dense layer, a scale and a shift, and a head."""
    parts: dict[str, Any] = {}
    for k in range(BLOCKS):
        parts |= {f"norm{k}": torch.nn.LayerNorm(6, epsilon), f"fc{k}": linear(6, 6)}

    def run(m: Any, x: Any) -> Any:
        for k in range(BLOCKS):
            x = block(m, k, x)
        return m.head(x)

    return Net(run, **parts, head=linear(6, 4))


def plain(m: Any, k: int, x: Any, act: Any = torch.tanh, added: bool = True) -> Any:
    y = getattr(m, f"norm{k}")(x)
    y = act(getattr(m, f"fc{k}")(y))
    return x + y if added else y


def late(m: Any, k: int, x: Any) -> Any:
    return getattr(m, f"norm{k}")(x + torch.tanh(getattr(m, f"fc{k}")(x)))


def scaled(by_one: bool) -> Net:
    """Run two layers; one of the models multiplies the results of both by one vector, and adds another to the last."""

    def run(m: Any, x: Any) -> Any:
        for k in range(BLOCKS):
            x = torch.tanh(getattr(m, f"fc{k}")(x))
            x = x * m.scale if by_one else x
        return m.head(x) + m.shift if by_one else m.head(x)

    vectors = {name: torch.nn.Parameter(torch.randn(n)) for name, n in (("scale", 6), ("shift", 4)) if by_one}
    return Net(run, **{f"fc{k}": linear(6, 6) for k in range(BLOCKS)}, head=linear(6, 4), **vectors)


def attending(scale: float, fill: float = -1e9) -> Net:
    """Attend twice with a mask; queries and keys are scaled, which is one scale of the scores."""

    def run(m: Any, x: Any) -> Any:
        hidden = torch.ones(x.shape[1], x.shape[1]).tril() == 0
        for k in range(BLOCKS):
            q, key, v = (getattr(m, f"{name}{k}")(x) for name in ("q", "k", "v"))
            scores = ((q * scale) @ (key * scale).mT).masked_fill(hidden, fill)
            x = x + scores.softmax(-1) @ v
        return m.head(x)

    parts = {f"{name}{k}": linear(6, 6) for k in range(BLOCKS) for name in ("q", "k", "v")}
    return Net(run, **parts, head=linear(6, 4))


CASES: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[int, ...]]] = {
    "epsilon": (lambda: (blocks(plain), blocks(plain, 1e-3)), (4, 6)),
    "activation": (lambda: (blocks(plain), blocks(partial(plain, act=f.silu))), (4, 6)),
    "both": (lambda: (blocks(plain), blocks(partial(plain, act=f.silu), 1e-3)), (4, 6)),
    "residual": (lambda: (blocks(plain), blocks(partial(plain, added=False))), (4, 6)),
    "missing parameter": (lambda: (scaled(True), scaled(False)), (4, 6)),
    "norm in another place": (lambda: (blocks(plain), blocks(late)), (4, 6)),
    "factor": (lambda: (attending(1.0), attending(0.5)), (2, 5, 6)),
    "mask": (lambda: (attending(1.0), attending(1.0, -2.0)), (2, 5, 6)),
}


def check(found: Any) -> None:
    """Check that the verdict, the list of places and the advice have one number."""
    for place in found.divergences:
        assert len(place.places) == place.times, place
    total = sum(len(place.places) for place in found.divergences)
    assert total >= BLOCKS, found.divergences
    kinds = Counter({place.kind: 0 for place in found.divergences})
    for place in found.divergences:
        kinds[place.kind] += len(place.places)
    assert all(f"{in_words(number)} {kind.partition(' ')[0]}" in found.explained for kind, number in kinds.items())
    where = "both" if total == 2 else f"all {in_words(total)}"
    assert f"remove {where} differences" in found.following


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_counts_the_places_that_are_listed(name: str):
    build, shape = CASES[name]
    found = parity.derive(*build(), (images(*shape),))
    assert not found.missing and found.explained, found
    check(found)
    differing = len(found.compared) - found.agreeing  # of a parameter of one side, the later place has no use
    assert differing >= (1 if name == "missing parameter" else sum(place.times for place in found.divergences)), found


def scanned(epsilon: float) -> Any:
    """Scan three blocks in linen, each a norm and a dense layer."""
    import flax.linen as nn
    import jax

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            return x + nn.Dense(6, name="fc")(nn.LayerNorm(epsilon, name="norm")(x)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            every = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return nn.Dense(4, name="head")(every(name="layers")(x, None)[0])

    module = Net()
    return module, jax.jit(module.init)(jax.random.key(0), np.zeros((1, 6)))


def test_modules_in_a_scan_are_shown_by_the_paths_of_the_checkpoint():
    needs("flax")
    found = parity.derive(scanned(1e-5), scanned(1e-3), (images(4, 6),))
    assert found.explained == "three epsilons"
    (place,) = found.divergences
    assert place.left == place.right == "Net/layers/norm"
    assert place.places == ("Net/layers/norm", "Net/layers/norm (step 1)", "Net/layers/norm (step 2)")
    check(found)
    assert not re.search(r"\[\d+\]", f"{found} {json.dumps(found.to_dict()['uses'])}")
    html = page(found, {})
    shown = re.sub("<[^>]*>", "", html)
    assert "Net/layers/norm, Net/layers/norm (step {1..2})" in shown and '<tr class="first" id="place-0"' in html


def test_a_sum_in_place_of_the_mean_of_each_norm_is_found_at_once(monkeypatch: pytest.MonkeyPatch):
    """A cause that is looked for again at each norm may be another one at the last of them, and count all again."""

    def net(reduce: Callable[..., Any]) -> Net:
        names = ("first", "second", "third", "fourth", "last")

        def norm(m: Any, name: str, x: Any) -> Any:
            return x * torch.rsqrt(reduce(x.square(), -1, keepdim=True) + 1e-6) * getattr(m, f"{name}_scale")

        def run(m: Any, x: Any) -> Any:
            for name in names[:-1]:
                x = x + torch.tanh(getattr(m, f"{name}_fc")(norm(m, name, x)))
            return m.head(norm(m, "last", x))

        scales = {f"{name}_scale": torch.nn.Parameter(torch.randn(6)) for name in names}
        return Net(run, head=linear(6, 4), **{f"{name}_fc": linear(6, 6) for name in names[:-1]}, **scales)

    places, real = list[int](), explanation.Recomputation
    monkeypatch.setattr(explanation, "Recomputation", lambda *given: places.append(given[3]) or real(*given))
    found = parity.derive(net(torch.mean), net(torch.sum), (images(4, 6),))
    assert places == [0]
    (place,) = found.divergences
    assert place.cause.startswith("mean on the left, sum on the right, and so in 4 more places (recomputed so")
    assert found.confirmed, found
    check(found)
