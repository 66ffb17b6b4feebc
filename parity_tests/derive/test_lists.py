"""Letters of lengths in separate lists of blocks, such as the heads of two towers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.fold.lists import with_letters_of_lists
from parity.derive.fold.rows import Row
from specs.solving.sizes import SizeError

from ..conftest import needs
from .test_letters import bare


def lines(*paths: tuple[str, str]) -> list[str]:
    """Return the axes of heads on lines between these left and right paths."""
    rows = [Row(((left, "(h d) i"),), ((right, "i h d"),)) for left, right in paths]
    lengths = {"h": 4, "d": 4}
    own = with_letters_of_lists(rows, lengths)
    assert {name for row in own for name in str(row.left[0][1])[1:-3].split()} == lengths.keys()
    return [str(row.left[0][1])[1:-3] for row in own]


def test_lists_have_letters_of_their_own_unless_both_sides_place_their_lines_together():
    towers = ("vision.layers.{i}.q.weight", "v/layer_{i}/q"), ("text.layers.{i}.q.weight", "t/layer_{i}/q")
    out = ("vision.layers.{i}.out.0.weight", "v/layer_{i}/out/kernel")
    assert lines(*towers, out) == ["h d", "h2 d2", "h d"]
    scanned = [(left, right.replace("layer_{i}", "layers")) for left, right in towers]
    assert lines(*scanned) == ["h d", "h2 d2"]
    assert lines(*((left, f"q{k}") for k, (left, _) in enumerate(towers))) == ["h d", "h2 d2"]  # a flat dict tells none
    first = ("layers.0.self.q.weight", "first/q/kernel"), ("layers.{i+1}.self.q.weight", "layer_{i}/q/kernel")
    assert lines(*first) == ["h d", "h2 d2"]  # on one side alone they are of one list
    block = ("layers.{i}.self.q.weight", "{i}/a/q/kernel"), ("layers.{i}.cross.q.weight", "{i}/b/q/kernel")
    assert lines(*block) == ["h d", "h d"]
    stages = ("stages.0.{i}.q.weight", "stage0_block{i}/q/k"), ("stages.1.{i}.k.weight", "stage1_block{i}/k/k")
    assert lines(*stages) == ["h d", "h2 d2"]  # as in a Swin: lines that are alike have folded
    apart = [(f"layers.{i}.q.weight", f"layer_{i}/q/kernel") for i in range(3)]
    assert lines(*apart) == ["h d"] * 3  # blocks that are alike, and did not fold
    inner = ("layers.{i}.cross.q.weight", "{i}/cross/q"), ("layers.{i}.own.{j}.q.weight", "{i}/{j}/q")
    assert lines(*inner) == ["h d", "h2 d2"]  # as in a Perceiver
    pool = ("pool.attn.in_proj_weight", "pool/q/kernel"), ("pool.attn.out_proj.weight", "pool/out/kernel")
    assert lines(*pool, ("blocks.{i}.q.weight", "{i}/q/kernel")) == ["h d", "h d", "h2 d2"]


def towers(*sizes: tuple[int, int]) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return the product of two towers, each an attention of (heads, size of a head), in torch and in JAX."""
    import jax
    import jax.numpy as jnp
    import torch

    class Block(torch.nn.Module):
        def __init__(self, heads: int, size: int) -> None:
            super().__init__()
            self.heads = heads
            self.q, self.k, self.v, self.o = (torch.nn.Linear(heads * size, heads * size, False) for _ in range(4))

        def forward(self, x: Any) -> Any:
            q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return x + self.o(y.transpose(1, 2).flatten(2))

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision, self.text = (torch.nn.ModuleList([Block(*own), Block(*own)]) for own in sizes)

        def forward(self, x: Any, y: Any) -> Any:
            for vision, text in zip(self.vision, self.text, strict=True):
                x, y = vision(x), text(y)
            return x.mean((1, 2)) * y.std((1, 2))

    def block(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btc,chd->bthd", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5, -1)
        return x + jnp.einsum("bqhd,hdo->bqo", jnp.einsum("bhqk,bkhd->bqhd", weights, v), p["o"])

    def right(p: Any, x: Any, y: Any) -> Any:
        for image, words in zip(p["image"], p["words"], strict=True):
            x, y = block(image, x), block(words, y)
        return x.mean((1, 2)) * y.std((1, 2), ddof=1)

    rng = np.random.default_rng(0)

    def parameters(h: int, d: int) -> list[dict[str, Any]]:
        return [{n: rng.standard_normal((h, d, h * d) if n == "o" else (h * d, h, d)) for n in "qkvo"} for _ in "ab"]

    own = dict(zip(("image", "words"), (parameters(*some) for some in sizes), strict=True))
    return Left(), (right, own), tuple(rng.standard_normal((2, 3, h * d)) for h, d in sizes)


def test_towers_are_asked_for_a_number_of_heads_each():
    """Both have 2 in the small models: one letter would divide the heads of a larger text tower as those of images."""
    for package in ("flax", "torch"):
        needs(package)
    import torch

    found = parity.derive(*towers((2, 3), (2, 3)))
    assert found.proven and found.table.lengths() == ("h", "h2"), str(found)
    left, (right, parameters), inputs = towers((2, 4), (3, 3))
    arrays = {name: np.asarray(array) for name, array in left.state_dict().items()}
    with pytest.raises(SizeError, match=r"lengths \(h2=\.\.\., from which d2 follows\)"):
        found.table.apply(arrays, h=2)
    moved = found.table.apply(arrays, h=2, h2=3)
    trees = {
        name: [{n: moved[f"{name}/{i}/{n}"] for n in block} for i, block in enumerate(parameters[name])]
        for name in parameters
    }
    ours = left.double()(*map(torch.as_tensor, inputs)).detach().numpy()
    np.testing.assert_allclose(right(trees, *inputs), ours, rtol=1e-5)  # JAX computes in float32


def test_towers_of_grouped_queries_have_capital_letters_of_their_own():
    """A capital letter has one length in the whole Table, which refused towers of other numbers of groups."""
    for package in ("flax", "torch"):
        needs(package)
    import torch

    def pair(*sizes: tuple[int, int, int, int]) -> tuple[Any, Any]:
        (image, ours, vision), (words, theirs, text) = (bare(*own, by_group=True) for own in sizes)

        def left(p: Any, x: Any) -> Any:
            return image(p["image"], x[..., : sizes[0][0]]) * words(p["words"], x[..., sizes[0][0] :])

        class Right(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.vision, self.text = vision, text

            def forward(self, x: Any) -> Any:
                return self.vision(x[..., : sizes[0][0]]) * self.text(x[..., sizes[0][0] :])

        return (left, {"image": ours, "words": theirs}), Right()

    x = np.random.default_rng(0).standard_normal((2, 5, 12))
    found = parity.derive(*pair((6, 4, 2, 3), (6, 4, 2, 3)), (x,))
    assert found.proven and found.table.reverse().lengths() == ("G", "R", "G2", "R2"), str(found)
    (_, parameters), right = pair((6, 6, 2, 3), (6, 4, 4, 5))
    arrays = {name: np.asarray(value) for name, value in right.state_dict().items()}
    moved = found.table.reverse().apply(arrays, G=2, R=3, G2=4, R2=1)
    assert {f"{a}/{b}": moved[f"{a}/{b}"].shape for a in parameters for b in parameters[a]} == {
        f"{a}/{b}": own.shape for a, some in parameters.items() for b, own in some.items()
    }
    back = found.table.apply(moved)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("experts", [1, 3])
def test_numbers_in_names_of_parts_that_code_takes_apart_are_listed(experts: int):
    """As wi_0 and wi_1 of T5: a number that counts asks for two, which every model has, and takes four."""
    for package in ("flax", "torch"):
        needs(package)
    import jax
    import jax.numpy as jnp
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.Linear(5, 6, False) for _ in range(experts))

        def forward(self, x: Any) -> Any:
            pairs = [up(x).chunk(2, -1) for up in self.experts]
            return sum((k + 1) * gate.sigmoid() * gate * value for k, (gate, value) in enumerate(pairs))

    def right(p: Any, x: Any) -> Any:
        gates = jax.nn.silu(jnp.einsum("bi,eih->beh", x, p["wi_0"])) * jnp.einsum("bi,eih->beh", x, p["wi_1"])
        return (gates * jnp.arange(1.0, experts + 1)[:, None]).sum(1)

    params = {name: np.ones((experts, 5, 3)) for name in ("wi_0", "wi_1")}
    found = parity.derive(Left(), (right, params), (np.random.default_rng(0).standard_normal((4, 5)),))
    assert found.proven and "wi_{s=0|1}" in found.table.print() and not found.table.lengths(), str(found)


def test_the_height_of_a_table_of_positions_is_no_number_of_heads():
    """Both are 3 here: one letter would divide the table of a larger window by its number of heads."""
    for package in ("flax", "torch"):
        needs(package)
    import jax
    import jax.numpy as jnp
    import torch

    y, x = (own.ravel() for own in np.indices((2, 2)))
    down, right = y[:, None] - y + 1, x[:, None] - x + 1

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.table = torch.nn.Linear(6, 18), torch.nn.Parameter(torch.randn(9, 3))
            self.out = torch.nn.Linear(6, 6, bias=False)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).unflatten(-1, (3, 3, 2)).permute(2, 0, 3, 1, 4)
            scores = q @ k.mT / 2 + self.table[torch.as_tensor(3 * down + right)].permute(2, 0, 1)
            return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def other(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btc,chd->bhtd", x, p[n]) + p[f"{n}_bias"][:, None] for n in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bhtd,bhsd->bhts", q, k) / 2 + p["table"][:, down, right], -1)
        return jnp.einsum("bhtd,hdo->bto", weights @ v, p["out"])

    shapes = {"table": (3, 3, 3), "out": (3, 2, 6)}
    shapes |= {name: own for n in "qkv" for name, own in ((n, (6, 3, 2)), (f"{n}_bias", (3, 2)))}
    params = {name: np.ones(shape) for name, shape in shapes.items()}
    found = parity.derive(Left(), (other, params), (np.random.default_rng(0).standard_normal((2, 4, 6)),))
    lines = {str(line) for line in found.table.lines}
    assert found.proven and {"table: (y x) H <-> table: H y x", "out.weight: o (H d) <-> out: H d o"} <= lines, lines
    assert found.table.lengths() == ("y",)  # the table shows how many heads there are
