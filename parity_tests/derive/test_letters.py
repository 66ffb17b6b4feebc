"""Letters of axes: one for heads across an attention, and stated numbers of parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.derive.fold.letters import apart_from_set
from parity.derive.fold.names import Names, composed
from parity.derive.fold.related import relate
from parity.derive.fold.rows import Row
from specs.applied.arrays import flat
from specs.notation.lines import TableError
from specs.solving.sizes import SizeError

from ..conftest import needs
from .pairs import initial


def written(shape: tuple[int, ...], numbers: Any, sides: tuple[str, str] = ("linen", "torch")) -> str:
    """Return the axes of both sides of the line for a target with these elements of the source."""
    axes = relate(numbers, shape)
    assert axes is not None
    Names(sides).assign(axes, 0, 0)
    left, right = (composed(atoms, signs=True) for atoms in axes.source), (composed(atoms) for atoms in axes.target)
    return f"{' '.join(left)} <-> {' '.join(right)}"


def test_parts_that_a_concatenation_exchanges_are_a_number_of_the_line():
    vector, matrix = np.arange(12), np.arange(12 * 5).reshape(12, 5)
    assert written((12,), vector.reshape(2, 6)[::-1].ravel()) == "(-p=2 c) <-> (p c)"
    assert written((12,), vector.reshape(3, 4)[::-1].ravel()) == "(-p=3 c) <-> (p c)"
    assert written((12, 5), matrix.reshape(2, 6, 5)[::-1].reshape(12, 5).T) == "(-p=2 i) o <-> o (p i)"
    assert written((12, 5), matrix[::-1].T) == "-i o <-> o i"  # a whole axis, whose length shapes show


def test_a_length_has_another_letter_than_a_hole_that_lists_values():
    """One letter for both would contradict the hole's count, and --set s=4 would speak of both lines."""
    gated = Row((("wide", "(s a) i"),), (("{s=up|gate}", "i a"),))
    heads = Row((("dense", "o (s h d)"),), (("out", "(h s) d o"),))
    stated = Row((("qkv", "(s=3 c)"),), (("both", "(c s=3)"),))
    lengths = {"s": 3, "h": 2, "d": 4, "a": 20}
    ((_, _, rows),) = apart_from_set([([], [], [gated, heads, stated])], lengths, ())
    assert [*map(str, rows)] == [str(gated), "dense: o (b h d) <-> out: (h b) d o", str(stated)]
    assert lengths == {"b": 3, "h": 2, "d": 4, "a": 20}


def test_matrices_as_convolutions_over_one_pixel_have_the_letters_of_heads():
    matrix = np.arange(4 * 3 * 10).reshape(4, 3, 10)
    assert written((4, 3, 10), matrix.transpose(2, 0, 1).reshape(10, 12)) == "h d o <-> o (h d)"
    assert written((4, 3, 10), matrix.transpose(2, 0, 1).reshape(10, 12, 1, 1)) == "h d o <-> o (h d) 1 1"


def test_the_height_of_patches_is_no_number_of_heads():
    """Both may be 4 in a small model, and one --set gives every open axis of a letter its length."""
    names = Names(("torch", "torch"))
    kernel, qkv = np.arange(16 * 3 * 4 * 4).reshape(16, 3, 4, 4), np.arange(48 * 16).reshape(3, 4, 4, 16)
    texts = []
    for shape, numbers in (
        (kernel.shape, kernel.transpose(0, 2, 3, 1).reshape(16, 48)),
        ((48, 16), qkv.transpose(1, 0, 2, 3).reshape(48, 16)),
    ):
        axes = relate(numbers, shape)
        assert axes is not None
        names.assign(axes, 0, 0)
        texts.append(" ".join(map(composed, axes.target)))
    assert texts == ["o (y x i)", "(h s d) i"]


def models(heads: int, width: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return an attention in linen and in torch, where matrices are convolutions, after two joined inputs."""
    import flax.linen as nn
    import jax.numpy as jnp
    import torch

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:  # (b t c)
            y = nn.Dense(width, name="joined")(jnp.concatenate([jnp.tanh(x), x], -1))
            return nn.MultiHeadDotProductAttention(heads, name="mha")(y, y)

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.joined = torch.nn.Conv2d(2 * width, width, 1)
            self.qkv, self.out = torch.nn.Conv2d(width, 3 * width, 1), torch.nn.Conv2d(width, width, 1)

        def forward(self, x: Any) -> Any:
            x = x.mT[..., None]
            y = self.qkv(self.joined(torch.cat([x, torch.tanh(x)], 1)))
            q, k, v = y.reshape(len(x), 3, heads, width // heads, -1).unbind(1)
            scores = torch.einsum("bhdi,bhdj->bhij", q, k) / (width // heads) ** 0.5
            y = torch.einsum("bhij,bhdj->bhdi", scores.softmax(-1), v).reshape(x.shape)
            return self.out(y)[..., 0].mT

    x = np.random.default_rng(0).standard_normal((2, 5, width))
    module = Left()
    return (module, initial(module, jnp.zeros((1, 5, width)))), Right(), (x,)


def test_one_letter_counts_the_heads_of_an_attention_and_none_the_parts():
    for package in ("flax", "torch"):
        needs(package)
    found = parity.derive(*models(2, 8))
    assert found.proven, str(found)
    text = found.table.print()
    assert "mha/{s=query|key|value}/kernel: i h d <-> qkv.weight: (s h d) i 1 1" in text, text
    assert "mha/{s=query|key|value}/bias: h d <-> qkv.bias: (s h d)" in text, text
    assert "mha/out/kernel: h d o <-> out.weight: o (h d) 1 1" in text, text
    assert "joined/kernel: (-p=2 i) o <-> joined.weight: o (p i) 1 1" in text, text
    assert "fit no other length" not in text  # the two parts may have any width
    assert "exchanged: joined.weight: the models join the parts of an axis in different orders" in str(found)
    assert ", as (-p=2 i) <-> (p i), whose parts have one length in every model\n" in str(found)
    wide, _, _ = models(4, 16)
    arrays = {name: np.asarray(array) for name, array in flat(wide[1]).items()}
    torch_arrays = found.table.apply(arrays)
    with pytest.raises(SizeError, match=r"lengths \(h=\.\.\., from which d follows\)") as error:
        found.table.reverse().apply(torch_arrays)
    number = 1 + text.splitlines().index(next(line for line in text.splitlines() if "qkv.bias: (s h d)" in line))
    assert any(f"line {number}: h and d in (s h d) of qkv.bias" in line for line in error.value.problems)
    assert "h=2 in the models that the Table was derived from" in str(error.value)
    back = found.table.reverse().apply(torch_arrays, h=4)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_keys_and_values_in_one_projection_have_the_heads_of_queries():
    """The number of heads is asked for once, though queries have a projection of their own."""
    needs("torch")
    needs("flax")
    import jax.numpy as jnp
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv, self.out = torch.nn.Linear(8, 8), torch.nn.Linear(8, 16, bias=False), torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            q = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = self.kv(x).unflatten(-1, (2, 2, 4)).permute(2, 0, 3, 1, 4)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).flatten(2))

    def right(params: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("bti,ihd->bthd", x, params[name]) for name in ("query", "key", "value"))
        scores = jnp.einsum("bthd,bshd->bhts", q + params["bias"], k) / 2
        y = jnp.einsum("bhts,bshd->bthd", jnp.exp(scores) / jnp.exp(scores).sum(-1, keepdims=True), v)
        return jnp.einsum("bthd,hdo->bto", y, params["out"]) + params["last"]

    rng = np.random.default_rng(0)
    shapes = {"query": (8, 2, 4), "key": (8, 2, 4), "value": (8, 2, 4), "bias": (2, 4), "out": (2, 4, 8), "last": (8,)}
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    found = parity.derive(Left(), (right, params), (rng.standard_normal((2, 5, 8)),))
    assert found.proven, str(found)
    lines = found.table.print()
    assert "q.weight: (h d) i <-> query: i h d" in lines and "kv.weight: (s h d) i <-> {s=key|value}: i h d" in lines


def grouped(c: int, h: int, g: int, d: int) -> tuple[Any, dict[str, Any], Any]:
    """Return grouped queries of JAX with its parameters, and of torch with all projections in one, group by group."""
    import jax
    import jax.numpy as jnp
    import torch

    def left(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btc,chd->bthd", x, p[name]) for name in "qkv")
        k = k / jnp.sqrt((k * k).mean(-1, keepdims=True) + 1e-6) * p["scale"]
        k, v = (jnp.repeat(y, q.shape[2] // y.shape[2], 2) for y in (k, v + p["vb"]))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5, -1)
        return jnp.einsum("bqhd,hdo->bqo", jnp.einsum("bhqk,bkhd->bqhd", weights, v), p["o"])

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(c, (h + 2 * g) * d, False), torch.nn.Linear(h * d, c, False)
            self.bias, self.norm = torch.nn.Parameter(torch.zeros(g * d)), torch.nn.RMSNorm(d, 1e-6)

        def forward(self, x: Any) -> Any:
            y = self.qkv(x).unflatten(-1, (g, -1, d))
            q, k, v = y[..., :-2, :].flatten(2, 3), self.norm(y[..., -2, :]), y[..., -1, :] + self.bias.view(g, d)
            q, k, v = (y.transpose(1, 2) for y in (q, k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.out(y.transpose(1, 2).flatten(2))

    shapes = {"q": (c, h, d), "k": (c, g, d), "v": (c, g, d), "vb": (g, d), "scale": (d,), "o": (h, d, c)}
    return left, {name: jnp.zeros(shape) for name, shape in shapes.items()}, Right()


@pytest.mark.parametrize("sizes", [(24, 6, 3, 8), (10, 8, 4, 4)])  # also with as many groups as a head is wide
def test_axes_that_meet_in_the_run_have_one_letter_in_all_lines_of_an_attention(sizes: tuple[int, ...]):
    """So the bias of the values and the scale of the norm show them, and other lengths are refused."""
    needs("torch")
    needs("flax")
    left, parameters, right = grouped(*sizes)
    rng = np.random.default_rng(0)
    found = parity.derive((left, parameters), right, (rng.standard_normal((2, 5, sizes[0])),))
    text = found.table.print()
    assert found.proven and "(G R+1+1 D) i" in text, text
    assert "vb: G D <-> bias: (G D)" in text and "scale: D <-> norm.weight: D" in text, text
    left, parameters, right = grouped(64, 8, 2, 16)
    arrays = {name: rng.standard_normal(tensor.shape) for name, tensor in right.state_dict().items()}
    with pytest.raises(TableError, match=r"G=4 was given, but bias of shape \[32\] has G=2"):
        found.table.reverse().apply(arrays, G=4)
    moved = found.table.reverse().apply(arrays)
    assert {name: np.shape(array) for name, array in moved.items()} == {n: np.shape(p) for n, p in parameters.items()}
    assert_equal_outputs(left, moved, right, arrays, x_of_64(), SUMS_OF_64)


def bare(c: int, h: int, g: int, d: int, by_group: bool) -> tuple[Any, dict[str, Any], Any]:
    """Return grouped queries as `grouped` does, without bias and norm, in torch group by group or part by part."""
    import jax
    import jax.numpy as jnp
    import torch

    def left(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btc,chd->bthd", x, p[name]) for name in "qkv")
        k, v = (jnp.repeat(y, q.shape[2] // y.shape[2], 2) for y in (k, v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5, -1)
        return jnp.einsum("bqhd,hdo->bqo", jnp.einsum("bhqk,bkhd->bqhd", weights, v), p["o"])

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(c, (h + 2 * g) * d, False), torch.nn.Linear(h * d, c, False)

        def forward(self, x: Any) -> Any:
            if by_group:
                q, k, v = self.qkv(x).unflatten(-1, (g, -1, d)).split([h // g, 1, 1], -2)
            else:
                q, k, v = self.qkv(x).unflatten(-1, (-1, d)).split([h, g, g], -2)
            q, k, v = (y.reshape(*x.shape[:2], -1, d).transpose(1, 2) for y in (q, k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.out(y.transpose(1, 2).flatten(2))

    shapes = {"q": (c, h, d), "k": (c, g, d), "v": (c, g, d), "o": (h, d, c)}
    return left, {name: jnp.zeros(shape) for name, shape in shapes.items()}, Right()


@pytest.mark.parametrize(
    "by_group, lines, lengths, wrong",
    [
        (True, ["(G R+1+1 d) i", "o: (G R) d o <-> out.weight: o (G R d)"], {"G": 2, "R": 4}, {"G": 2, "d": 8}),
        (False, ["v: i k d <-> qkv.weight: (h+k+k d) i", "o: h d o"], {"h": 8, "k": 2}, {"h": 8, "k": 3}),
    ],
)  # fmt: skip
def test_heads_of_queries_and_of_the_output_have_one_letter_in_grouped_queries_without_bias(
    by_group: bool, lines: list[str], lengths: dict[str, int], wrong: dict[str, int]
):
    """So lengths that the matrix of the output contradicts are refused; from JAX no length is asked for."""
    needs("torch")
    needs("flax")
    left, parameters, right = bare(10, 8, 4, 4, by_group)  # with as many groups as a head is wide
    rng = np.random.default_rng(0)
    found = parity.derive((left, parameters), right, (rng.standard_normal((2, 5, 10)),))
    text = found.table.print()
    assert found.proven and all(line in text for line in lines), text
    left, parameters, right = bare(64, 8, 2, 16, by_group)
    arrays = {name: rng.standard_normal(array.shape) for name, array in parameters.items()}
    moved = found.table.apply(arrays)
    assert {n: np.shape(a) for n, a in moved.items()} == {n: tuple(p.shape) for n, p in right.state_dict().items()}
    assert_equal_outputs(left, arrays, right, moved, x_of_64(), SUMS_OF_64)
    back = found.table.reverse().apply(moved, **lengths)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    with pytest.raises(TableError, match=r"\(G R d\) is 2 x 10 x 8, not 128|192 is no multiple of 14"):
        found.table.reverse().apply(moved, **wrong)


SUMS_OF_64 = 1e-13  # rounding of float64 in sums of 64 products


def x_of_64() -> Any:
    """Return an input of 64 channels."""
    return np.random.default_rng(0).standard_normal((2, 7, 64))


def assert_equal_outputs(left: Any, lefts: Any, right: Any, rights: Any, x: Any, most: float) -> None:
    """Assert that a function of JAX and a module of torch compute the same with these arrays.

    Args:
      most: the largest difference, relative to the largest output.
    """
    import jax
    import torch

    right.double().load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in rights.items()})
    with torch.no_grad():
        wanted = right(torch.from_numpy(x)).numpy()
    with jax.enable_x64(True):
        parameters = {name: jax.numpy.asarray(array, "float64") for name, array in lefts.items()}
        made = left(parameters, jax.numpy.asarray(x))
    assert np.abs(made - wanted).max() < most * np.abs(wanted).max()


def staged(width: int, depth: int, heads: int, stem: int, high: int, scanned: bool) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return a convolution, a dense layer over its channels, and attention with slopes of heads, in linen and torch.

    Args:
      high: values at each step of the input. scanned: whether linen has one array for the blocks of all depths.
    """
    for package in ("flax", "torch"):
        needs(package)
    import flax.linen as nn
    import jax.numpy as jnp
    import torch

    def distances(length: int) -> Any:
        return np.abs(np.subtract.outer(np.arange(length), np.arange(length))).astype("float32")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any, _: Any) -> Any:
            q, k, v = (nn.DenseGeneral((heads, width // heads), name=name)(x) for name in "qkv")
            slope = self.param("slope", nn.initializers.normal(), (heads,))
            scores = jnp.einsum("bihd,bjhd->bhij", q, k) / (width // heads) ** 0.5
            scores = scores - slope[:, None, None] * distances(x.shape[1])
            y = jnp.einsum("bhij,bjhd->bihd", nn.softmax(scores), v)
            return x + nn.DenseGeneral(width, (-2, -1), name="out")(y), None

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:  # (b t f)
            x = nn.relu(nn.Conv(stem, (3, 3), name="stem")(x[..., None]))
            x = nn.Dense(width, name="in")(x.reshape(*x.shape[:2], -1))
            if scanned:
                axes, draws = {"params": 0}, {"params": True}
                blocks = nn.scan(Block, axes, split_rngs=draws, in_axes=nn.broadcast, length=depth)
                return blocks(name="blocks")(x, None)[0]
            for i in range(depth):
                x, _ = Block(name=f"block_{i}")(x, None)
            return x

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.slope = torch.nn.Parameter(torch.zeros(heads))

        def forward(self, x: Any) -> Any:
            q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
            bias = self.slope[:, None, None] * torch.from_numpy(distances(x.shape[1]))
            scores = (q @ k.mT / (width // heads) ** 0.5 - bias).softmax(-1)
            return self.out((scores @ v).transpose(1, 2).flatten(2))

    class Right(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.proj = torch.nn.Conv2d(1, stem, 3, padding=1), torch.nn.Linear(stem * high, width)
            self.layers = torch.nn.ModuleList(Attention() for _ in range(depth))

        def forward(self, x: Any) -> Any:
            x = self.proj(self.stem(x[:, None]).relu().transpose(1, 2).flatten(2))
            for layer in self.layers:
                x = x + layer(x)
            return x

    x, module = np.random.default_rng(0).standard_normal((2, 7, high)), Left()
    return (module, initial(module, jnp.asarray(x))), Right(), (x,)


def applied(module: Any) -> Any:
    """Return a linen module as a function of flat parameters and inputs."""
    from flax.traverse_util import unflatten_dict

    return lambda parameters, x: module.apply(unflatten_dict(parameters, sep="/"), x)


def staged_heads(fused: str, width: int) -> Any:
    """Build two stages of 2 and 4 heads, of two blocks and one, with biases of positions x heads.

    Args:
      fused: the order in which a projection flattens queries, keys and values with heads: "s h d" or "h s d".
    """
    import torch
    from einops import rearrange

    class Attention(torch.nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.heads, size = heads, width * heads
            self.qkv, self.out = torch.nn.Linear(size, 3 * size), torch.nn.Linear(size, size)
            self.table = torch.nn.Parameter(torch.randn(9, heads))

        def forward(self, x: Any) -> Any:
            q, k, v = rearrange(self.qkv(x), f"b t ({fused}) -> s b h t d", s=3, h=self.heads)
            at = torch.arange(5)
            scores = (q @ k.mT / width**0.5 + self.table[at[:, None] - at + 4].permute(2, 0, 1)).softmax(-1)
            return x + self.out(rearrange(scores @ v, "b h t d -> b t (h d)"))

    class Staged(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stages = [Attention(2), Attention(2)], [Attention(4)]
            self.stages = torch.nn.ModuleList(torch.nn.ModuleList(stage) for stage in stages)
            self.wider = torch.nn.Linear(2 * width, 4 * width)

        def forward(self, x: Any) -> Any:
            first, last = self.stages
            return last[0](self.wider(first[1](first[0](x))))

    return Staged()


def test_a_table_of_positions_shows_the_heads_of_its_stage():
    """Blocks of one line have two numbers of heads: without a letter of its stage, any size of a head is converted."""
    needs("torch")
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    found = parity.derive(staged_heads("s h d", 4), staged_heads("h s d", 4), (x,))
    text = found.table.print()
    assert found.proven and "stages.0.{i}.table: o h <-> stages.0.{i}.table: o h\n" in text, text
    assert "stages.1.0.table: o h2 <-> " in text and "stages.1.0.qkv.weight: (s=3 h2 d2) i <-> " in text, text
    assert not found.unchecked and "no shape of either side" not in text
    larger = {name: value.detach().numpy() for name, value in staged_heads("s h d", 6).state_dict().items()}
    with pytest.raises(TableError, match="d=3 makes h=4 for line 6, and the shapes show h=2 on line 5"):
        found.table.apply(larger, d=3, d2=6)
    assert found.table.apply(larger, d=6, d2=6).keys() == larger.keys()


def test_a_length_that_another_array_shows_needs_no_set_in_models_of_other_sizes():
    """The channels of (p c) are those of the convolution, and heads have a slope each, in one array for all depths."""
    found = parity.derive(*staged(12, 2, 3, 5, 4, scanned=True))
    text = found.table.print()
    assert found.proven and "in/kernel: (p C) o <-> proj.weight: o (C p)" in text, text
    assert "slope: l H <-> layers.{l}.slope: H" in text and "layers.{l}.qkv.weight: (s H d) i" in text, text
    assert not found.unchecked and "not checked" not in text and "derived from" not in text
    for sizes in ((24, 3, 4, 7, 5), (20, 1, 2, 3, 6)):
        left, right, (x,) = staged(*sizes, scanned=True)
        rng = np.random.default_rng(1)
        arrays = {name: rng.standard_normal(np.shape(array)).astype("f4") for name, array in flat(left[1]).items()}
        moved = found.table.apply(arrays)
        back = found.table.reverse().apply(moved)
        assert all(np.array_equal(back[name], array) for name, array in arrays.items())
        run = applied(left[0])
        assert_equal_outputs(run, arrays, right, moved, x, 1e-12)  # rounding of float64, in up to three blocks
        with pytest.raises(SizeError, match=rf"p=8 was given, but .* has p={sizes[4]}"):
            found.table.apply(arrays, p=8)
        with pytest.raises(SizeError, match=rf"H=6 was given, but layers.0.slope of shape .* has H={sizes[2]}"):
            found.table.reverse().apply(moved, H=6)


def test_heads_of_blocks_that_are_counted_may_differ_in_larger_models():
    """From linen each block shows its own; a capital letter would make them one number."""
    found = parity.derive(*staged(12, 2, 3, 5, 4, scanned=False))
    text = found.table.print()
    assert found.proven and "block_{i}/slope: h <-> layers.{i}.slope: h" in text, text
    (_, variables), _, _ = staged(12, 2, 2, 5, 4, scanned=False)
    (_, others), _, _ = staged(12, 2, 6, 5, 4, scanned=False)
    arrays = {
        name: np.asarray(array)
        for tree, own in ((variables, "block_0"), (others, "block_1"))
        for name, array in flat(tree).items()
        if own in name or "block" not in name
    }
    moved = found.table.apply(arrays)
    assert [moved[f"layers.{i}.slope"].shape for i in (0, 1)] == [(2,), (6,)]


def groups(count: int, width: int, gated: bool) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return sums over groups of channels, weighted by gates or by their numbers, in torch and JAX."""
    import jax
    import jax.numpy as jnp
    import torch

    class Left(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.o = torch.nn.Linear(5, count * width, bias=False), torch.nn.Linear(width, 3, bias=False)
            self.g = torch.nn.Linear(5, count, bias=False) if gated else None

        def forward(self, x: Any) -> Any:
            gates = self.g(x).sigmoid() if self.g else torch.arange(1, count + 1).to(x).expand(len(x), -1)
            return self.o((self.p(x).unflatten(-1, (count, width)).tanh() * gates[..., None]).sum(-2))

    def right(params: Any, x: Any) -> Any:
        gates = jax.nn.sigmoid(x @ params["g"]) if gated else jnp.arange(1.0, count + 1)[None]
        return (jnp.tanh(jnp.einsum("bi,ihd->bhd", x, params["p"])) * gates[..., None]).sum(-2) @ params["o"]

    shapes = {"p": (5, count, width), "o": (width, 3), **({"g": (5, count)} if gated else {})}
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return Left(), (right, params), (rng.standard_normal((4, 5)),)


@pytest.mark.parametrize("gated", [False, True])
def test_letters_follow_the_values_where_groups_and_their_channels_are_as_many(gated: bool):
    """The sum over 4 groups of 4 channels drops the groups, so that the layer behind it reads the channels."""
    for package in ("flax", "torch"):
        needs(package)
    found = parity.derive(*groups(4, 4, gated))
    lines, h = {str(line) for line in found.table.lines}, "H" if gated else "h"
    assert found.proven and {f"p.weight: ({h} D) i <-> p: i {h} D", "o.weight: o D <-> o: D o"} <= lines, lines
    assert ("g.weight: H i <-> g: i H" in lines) is gated, lines
    left, (right, _), (x,) = groups(3, 6, gated)
    arrays = {name: np.asarray(array) for name, array in left.state_dict().items()}
    assert_equal_outputs(right, found.table.apply(arrays), left, arrays, x, 1e-12)  # rounding of float64
