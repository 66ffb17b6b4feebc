"""Models that part early: the Table is complete all the same, and the uses at which they part have differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as f

import parity
from parity.derive.conclude.partings import marked
from parity.derive.explain.divergence import Divergence
from parity.derive.match.analogy import Analogy
from parity.derive.match.choices import Step

from .pairs import images, initial
from .test_kinds_matching import Net, linear, numbers


def convolutions(
    stem: Callable[[Any], Any], act: Callable[[Any], Any], padding: int = 1, more: float = 0
) -> torch.nn.Module:
    """A convolution and a block with a residual branch; the differences stand before and inside of the block."""

    def run(m: Any, x: Any) -> Any:
        x = stem(m.bn(m.stem(x)))
        y = act(m.a(x))
        x = torch.relu(m.b(y + more * x if more else y) + x)
        return m.head(m.last(x).mean((2, 3)))

    def conv(i: int, o: int, size: int = 3) -> torch.nn.Conv2d:
        return torch.nn.Conv2d(i, o, size, padding=size // 2)

    parts = {
        "a": conv(6, 6),
        "b": conv(6, 6),
        "last": conv(6, 7, 1),
        "head": linear(7, 5),
        "bn": torch.nn.BatchNorm2d(6),
    }
    return Net(run, stem=torch.nn.Conv2d(3, 6, 3, padding=padding), **parts)


def pooled(x: Any) -> Any:
    return f.max_pool2d(torch.relu(x), 2)


RIGHT = {
    "another activation": {"act": f.silu},
    "means for maxima": {"stem": lambda x: f.avg_pool2d(torch.relu(x), 2)},
    "a window that is shifted": {"stem": lambda x: f.max_pool2d(torch.relu(x).roll(1, 3), 2)},
    "another activation before a residual": {"stem": lambda x: f.max_pool2d(f.hardswish(x), 2)},
    "less padding": {"padding": 0},
    "one more term of a sum": {"more": 0.5},
}


@pytest.mark.parametrize("name", RIGHT)
def test_convolutions_behind_a_difference_are_found_by_those_before_it(name: str):
    left = convolutions(pooled, torch.relu)
    right = convolutions(**{"stem": pooled, "act": torch.relu, **RIGHT[name]})
    given = images(2, 3, 16, 12)
    check(left, right, given, ("a", "b", "stem", "bn"))


def test_a_vector_behind_another_scale_and_mask_is_found_by_the_products_before_it():
    """A norm reads a sum whose terms differ: its weight is inferred, and what reads the norm meets the same again."""

    def run(causal: bool) -> Callable[[Any, Any], Any]:
        def forward(m: Any, x: Any) -> Any:
            y = m.read(x)
            scores = y @ y.mT
            scores = scores + torch.full(scores.shape[-2:], -1e9).triu(1) if causal else scores
            y = m.norm(x + scores.softmax(-1).cumsum(1) @ y)
            return m.out(y.tanh())

        return forward

    def parts() -> dict[str, Any]:
        return {"read": linear(), "norm": torch.nn.LayerNorm(6), "out": linear()}

    left, right, given = Net(run(False), **parts()), Net(run(True), **parts()), images(2, 5, 6)
    check(left, right, given, ("norm",))


def test_channels_of_which_one_side_adds_to_some_have_their_bias_in_one_piece():
    def parted(m: Any, x: Any) -> Any:
        x = torch.relu(m.a(x))
        y = m.bn(m.b(x))
        return m.c(torch.cat([y[:, :4] + x, y[:, 4:]], 1).tanh())

    def whole(m: Any, x: Any) -> Any:
        x = f.silu(m.a(x))
        return m.c((m.bn(m.b(x)) + f.pad(x, (0, 0, 0, 0, 0, 3))).tanh())

    def parts() -> dict[str, Any]:
        a, b, c = (torch.nn.Conv2d(*sizes, 3) for sizes in ((3, 4), (4, 7), (7, 7)))
        b.padding = (1, 1)
        return {"a": a, "b": b, "bn": torch.nn.BatchNorm2d(7), "c": c}

    check(Net(parted, **parts()), Net(whole, **parts()), images(2, 3, 8, 8), ("b",))


def test_a_table_that_tokens_read_alike_is_found_where_masks_join_the_sum_elsewhere():
    def biased(causal: bool) -> Callable[[Any, Any], Any]:
        def forward(m: Any, x: Any) -> Any:
            far = (torch.arange(5)[:, None] - torch.arange(5)).clamp(-2, 2) + 2
            bias = m.table(far).permute(2, 0, 1)[None]
            bias = bias + (
                torch.full((5, 5), -1e9).triu(1) if causal else (x.mean((1, 2)) > 1e9)[:, None, None, None] * 1.0
            )
            for q, k, v in ("abc", "def"):
                q, k, v = (getattr(m, name)(x).unflatten(-1, (2, 3)).transpose(1, 2) for name in (q, k, v))
                x = x + ((q @ k.mT + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
            return m.head(x)

        return forward

    def parts() -> dict[str, Any]:
        return {"table": torch.nn.Embedding(5, 2), "head": linear(), **{name: linear() for name in "abcdef"}}

    check(Net(biased(True), **parts()), Net(biased(False), **parts()), images(2, 5, 6), ("d", "e", "f", "table"))


def test_the_scale_of_another_grouped_norm_is_no_element_of_a_kernel():
    """The scales that linen applies with the statistics meet near values among the many of the kernels."""
    from flax import linen as nn

    class Left(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Dense(16)(x)
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.GroupNorm(4)(x))
                x = x + nn.Dense(16)(nn.GroupNorm(4)(x))
            return nn.Dense(5)(nn.GroupNorm(4)(x).reshape(len(x), -1))

    def forward(m: Any, x: Any) -> Any:
        x = m.stem(x)
        for k in range(2):
            norm, qkv, out, other, mlp = (getattr(m, f"{name}{k}") for name in ("a", "qkv", "out", "b", "mlp"))
            q, k, v = qkv(norm(x.mT).mT).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            x = x + out(f.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + mlp(other(x.mT).mT)
        return m.head(m.last(x.mT).flatten(1))

    given = images(2, 9, 6)
    module = Left()
    variables = initial(module, given)
    parts = {name: torch.nn.GroupNorm(2, 16, 1e-6) for name in ("a0", "b0", "a1", "b1", "last")}
    for k in range(2):
        parts |= {f"qkv{k}": linear(16, 48), f"out{k}": linear(16, 16), f"mlp{k}": linear(16, 16)}
    right = Net(forward, stem=linear(6, 16), head=linear(144, 5), **parts)
    found = parity.derive((module, variables), right, (given,))
    assert not found.proven and not found.missing, found.failure
    assert found.divergences[0].right == "a0" and found.confirmed, found
    assert "4 groups of channels on the left, 2 on the right, and so in 4 more places" in str(found), found
    lines = str(found.table)
    assert "params/GroupNorm_4/scale: C <-> last.weight: C" in lines
    assert "params/Dense_3/kernel: (p C) o <-> head.weight: o (C p)" in lines, lines


def check(left: Any, right: Any, given: Any, places: tuple[str, ...]) -> None:
    """Check that the Table is complete and right, and that the first difference is where the sides part."""
    found = parity.derive(left, right, (given,), seconds=5)
    assert not found.failure and not found.missing and not found.proven, found.failure
    assert found.divergences[0].right in places, found.divergences
    moved = found.table.apply(numbers(left, given))
    assert all(np.array_equal(moved[name], array) for name, array in numbers(left, given).items())


def joined(epsilon: float, order: tuple[int, ...]) -> torch.nn.Module:
    """Branches that are joined in an order, mostly of dead channels: a ReLU leaves zeros of nearly all of them."""

    def run(m: Any, x: Any) -> Any:
        x = m.norms[0](m.stem(x)).relu()
        parts = [(norm(branch(x)) - 1.5).relu() for norm, branch in zip(m.norms[1:], m.branches, strict=True)]
        x = f.avg_pool2d(torch.cat([parts[k] for k in order], 1), 3, 1, 1, count_include_pad=False)
        return m.head(m.last(x).relu().mean((2, 3)))

    parts = {
        "norms": torch.nn.ModuleList(torch.nn.BatchNorm2d(n, eps=epsilon) for n in (8, 12, 16, 20)),
        "branches": torch.nn.ModuleList(torch.nn.Conv2d(8, n, 3, padding=1) for n in (12, 16, 20)),
        "last": torch.nn.Conv2d(48, 10, 1), "head": linear(10, 4),
    }  # fmt: skip
    return Net(run, stem=torch.nn.Conv2d(3, 8, 3, padding=1), **parts)


def test_channels_of_joined_branches_keep_the_order_of_their_products():
    """Their values tell no order: most are zero, and the others differ by the epsilon."""
    left, right, given = joined(1e-3, (0, 1, 2)), joined(1e-2, (2, 0, 1)), images(1, 3, 5, 5)
    found = parity.derive(left, right, (given,))
    assert not found.missing and found.explained, str(found)
    arrays = numbers(left, given)
    moved = found.table.apply(arrays)
    kernel = arrays["last.weight"]
    assert np.array_equal(moved["last.weight"], np.concatenate([kernel[:, 28:], kernel[:, :28]], 1))


def test_a_later_block_follows_an_earlier_one_whatever_its_names_look_like():
    first = (("features.6.branch1.0",), ("blockA_1.conv3_1",)), (("features.6.branch2.0",), ("blockA_1.conv4_1",))
    analogous = Analogy(first)
    assert analogous(("features.7.branch1.0",), ("blockA_2.conv3_1",))
    assert not analogous(("features.7.branch2.0",), ("blockA_2.conv3_1",))  # in both names are a 7 and a 2
    assert not analogous(("features.8.branch1.0",), ("blockA_2.conv3_1",)) and not analogous(("a.7",), ("b.2",))
    analogous.learn(("a.6",), ("b.1",))
    assert analogous(("a.7",), ("b.2",))


def gated(order: tuple[int, int], convolution: bool) -> torch.nn.Module:
    """Two branches joined in an order, times a gate whose columns nothing but their place beside the branches tells."""

    def joined(m: Any, x: Any) -> Any:
        parts = [m.a(x), m.b(x)]
        return torch.cat([parts[k] for k in order], 1)

    if convolution:  # squeeze and excitation
        return Net(
            lambda m, x: m.out(
                (y := joined(m, x).relu()) * m.gate(m.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
            ),
            **{
                k: torch.nn.Conv2d(*n, 1)
                for k, n in {"a": (3, 3), "b": (3, 4), "squeeze": (7, 5), "gate": (5, 7), "out": (7, 2)}.items()
            },
        )
    return Net(
        lambda m, x: m.out(joined(m, x) * m.gate(x).sigmoid()),
        a=linear(6, 3),
        b=linear(6, 4),
        gate=linear(6, 7),
        out=linear(7, 3),
    )


@pytest.mark.parametrize("convolution", [False, True])
def test_columns_of_a_gate_follow_what_they_are_multiplied_with(convolution: bool):
    given = images(2, 3, 5, 5) if convolution else images(5, 6)
    found = parity.derive(gated((0, 1), convolution), gated((1, 0), convolution), (given,))
    assert found.proven, str(found)


def test_a_term_that_differs_behind_values_that_are_read_later_is_no_crash():
    def net(early: bool, function: Callable[[Any], Any]) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.a(x)
            total = y.sum(1) if early else None
            first = (function(y) + m.shift)[:, 0]
            return m.b(first) + m.c(y.sum(1) if total is None else total)

        model = Net(run, a=linear(), b=linear(6, 3), c=linear(6, 3))
        model.shift = torch.nn.Parameter(torch.randn(6))
        return model

    found = parity.derive(net(True, torch.tanh), net(False, lambda y: torch.tanh(y) + 1e-3), (images(4, 5, 6),))
    assert not found.missing and not found.proven and found.error > 1e-5, found


class Block(torch.nn.Module):
    """Two sublayers, of which the second one may add its result to the input of the first one."""

    def __init__(self, skips: bool, names: str):
        super().__init__()
        self.skips, self.parts = skips, torch.nn.ModuleDict()
        for k, name in enumerate(names):
            self.parts[name] = torch.nn.Linear(6, 6) if k % 2 else torch.nn.LayerNorm(6)

    def forward(self, x: Any) -> Any:
        norm, layer, other_norm, other_layer = self.parts.values()
        y = x + layer(norm(x)).tanh()
        return (x if self.skips else y) + other_layer(other_norm(y)).tanh()


def blocks(skips: bool, names: tuple[str, str] = ("abcd", "abcd")) -> Net:
    layers = torch.nn.ModuleList(Block(skips, some) for some in names)
    return Net(lambda m, x: m.out(m.layers[1](m.layers[0](m.stem(x)))), stem=linear(), layers=layers, out=linear(6, 3))


@pytest.fixture
def _unexplained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no cause be found for a residual that skips a sublayer."""
    monkeypatch.setattr("parity.derive.edits.rewiring.earlier_terms", lambda *_: iter(()))


@pytest.mark.parametrize(("names", "swapped"), [("abcd", False), ("efgh", True)])
@pytest.mark.usefixtures("_unexplained")
def test_a_residual_that_skips_leaves_the_names_of_both_sides_together(names: str, swapped: bool):
    sides = [blocks(False), blocks(True, (names, names))][:: -1 if swapped else 1]
    found = parity.derive(*sides, (images(3, 4, 6),))
    assert found.verdict == "complete" and " drop" not in found.table.print() and found.divergences
    pairs = dict(zip(*([*side.state_dict()] for side in sides), strict=True))
    assert {use.left[0]: use.right[0] for use in found.uses} == pairs
    assert set(found.doubtful) > {name for name in pairs.values() if "layers.1" in name and name.endswith("weight")}


@pytest.mark.usefixtures("_unexplained")
def test_an_edit_by_which_the_right_model_computes_values_again_shows_no_partner():
    found = parity.derive(blocks(False), blocks(True, ("abcd", "efgh")), (images(3, 4, 6),))
    assert found.verdict == "incomplete" and not found.copied


def test_a_term_of_a_norm_keeps_its_name_where_the_left_model_has_one_more_layer():
    """The bias of the norm, which no value shows, is not one of the biases that come last on the left."""

    def net(more: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            x = m.stem(x)
            if more:
                x = torch.fft.fft(x + (m.q(x) @ m.k(x).mT).softmax(-1) @ m.v(x), dim=1).real
            return m.out(x + m.fc(m.norm(x)).relu())

        parts = {name: linear() for name in "qkv"} if more else {}
        return Net(run, stem=linear(), norm=torch.nn.LayerNorm(6), fc=linear(), out=linear(6, 3), **parts)

    sides = net(True), net(False)
    found = parity.derive(*sides, (images(2, 4, 6),))
    lines = {(use.left, use.right) for use in found.uses}
    assert lines == {((name,), (name,)) for name in sides[1].state_dict()}


def test_a_layer_that_reads_the_input_of_another_is_not_filled_with_its_weights():
    def net(skips: bool) -> Net:
        def run(m: Any, x: Any) -> Any:
            y = m.a(x).tanh()
            return m.out(y + m.b(x if skips else y).tanh())

        return Net(run, a=linear(), b=linear(), out=linear(6, 3))

    found = parity.derive(net(False), net(True), (images(4, 6),))
    assert not found.proven and not found.copied and set(found.inferred) >= {"b.weight", "b.bias"}
    assert (found.divergences[0].left, found.divergences[0].right) == ("b", "b")


STEPS = [
    Step(kind, (f"{left}.{leaf}",), (f"{right}.{leaf}",), left, right, 0.0, 0, 1)
    for left, right in (("b.0.q", "b.0.q"), ("b.0.o", "b.0.o"), ("b.1.q", "extra"), ("b.1.o", "b.1.o"))
    for kind, leaf in (("product", "weight"), ("add", "bias"))
]


def gaps(*places: Divergence, steps: list[Step] = STEPS) -> dict[str, float]:
    return {step.right[0]: step.gap for step in marked(steps, places) if step.gap}


def test_without_a_cause_a_use_and_those_behind_it_in_its_module_differ():
    product, term = ("product", ("extra.weight",)), ("add", ("extra.bias",))
    assert gaps(Divergence("b.1.q", "extra", 0.5, use=product)) == {"extra.weight": 0.5, "extra.bias": 0.5}
    assert gaps(Divergence("b.1.q", "extra", 0.5, use=term, behind=True)) == {"extra.bias": 0.5}
    assert gaps(Divergence("b.1.q", "extra", math.inf, use=product)) == {} == gaps(Divergence("b.1.q", "extra", 0.5))


def test_a_cause_marks_one_use_at_each_of_its_places():
    cause = Divergence("b.0.o", "b.0.o", 0.4, "scale", kind="factor", use=("product", ("b.0.o.weight",)))
    assert gaps(cause) == {"b.0.o.weight": 0.4}
    more = cause._replace(changed="right", more=1, places=("b.0", "b.1"))
    assert gaps(more) == {"b.0.o.weight": 0.4, "b.1.o.weight": 0.4}
    tables = [Step("place", (f"e.{k}",), (f"t.{k}",), f"b.{k}.n", f"b.{k}.n", 0.0, 0, 1) for k in (0, 1)]
    norms = [Step("add", (f"b.{k}.n.bias",), (f"b.{k}.n.bias",), f"b.{k}.n", f"b.{k}.n", 0.0, 0, 1) for k in (0, 1)]
    read = cause._replace(left="b.0.n", right="b.0.n", use=("add", ("t.0",)), changed="right", more=1)
    steps = [tables[0], norms[0], norms[1], tables[1]]
    assert gaps(read._replace(places=("b.0.n", "b.1.n")), steps=steps) == {"t.0": 0.4, "t.1": 0.4}


def test_a_use_with_a_difference_of_its_own_keeps_it():
    steps = [step._replace(gap=0.1) if step.right == ("extra.weight",) else step for step in STEPS]
    place = Divergence("b.1.q", "extra", 0.5, use=("product", ("extra.weight",)))
    assert gaps(place, steps=steps) == {"extra.weight": 0.1} and not any(
        step.by_place for step in marked(steps, [place])
    )


def test_a_use_does_not_hide_a_larger_cause_behind_a_small_one():
    """An epsilon and the groups of one norm: the use shows the first, and was compared without the second."""
    steps = [step._replace(gap=1e-5) if step.right == ("b.0.o.weight",) else step for step in STEPS]
    small = Divergence("b.0.o", "b.0.o", 2e-5, "epsilon", kind="epsilon", use=("product", ("b.0.o.weight",)))
    large = small._replace(size=0.9, what="groups", kind="norm")
    assert gaps(small, large, steps=steps) == {"b.0.o.weight": 0.9}
    assert not any(step.by_place for step in marked(steps, [small, large]))


def test_both_lines_of_a_layer_that_only_one_model_has_are_doubtful():
    """The right `extra` is taken for the layer that reads what the left alone computes, which no cause explains."""
    own, more = {"a": linear(4, 4), "head": linear(4, 3)}, {"extra": linear(4, 4), "mix": linear(4, 4)}

    def mixed(h: Any) -> Any:
        return (h.cumsum(1) * h.flip(2)).sin() + h

    left = Net(lambda m, x: m.head(m.b(mixed(m.a(x).tanh())).tanh()), b=linear(4, 4), **own)
    right = Net(lambda m, x: m.head(m.mix(m.extra(m.a(x).tanh()).cumsum(1).sin())), **more, **own)
    found = parity.derive(left, right, (images(2, 5, 4),))
    assert found.doubtful == ["extra.weight", "extra.bias"] and found.agreeing < len(found.compared), found


def typed(*tables: str, rows: str = "given") -> Net:
    """Return a model that adds types of tokens, by rows that are given or by the first one, and reads other tables."""

    def run(m: Any, ids: Any, kinds: Any) -> Any:
        x = m.words(ids)
        if "kinds" in tables:
            x = x + m.kinds(kinds if rows == "given" else torch.zeros_like(kinds))
        if "at" in tables:
            x = x + m.at(torch.arange(ids.shape[1]))
        x = m.norm(x)
        q, k = m.q(x), m.k(x)
        scores = q @ k.mT
        if "distances" in tables:
            far = torch.arange(5)[:, None] - torch.arange(5) + 4
            scores = scores + torch.einsum("bld,lrd->blr", q, m.distances(far))
        return m.head(torch.relu(m.up(x + scores.softmax(-1) @ x)))

    lengths = {"words": 20, "kinds": 3, "at": 7, "distances": 9}
    embeddings = {name: torch.nn.Embedding(lengths[name], 6) for name in ("words", *tables)}
    dense = {name: linear(6, 6) for name in ("q", "k", "up", "head")}
    return Net(run, **embeddings, norm=torch.nn.LayerNorm(6), **dense)


TOKENS = np.random.default_rng(0).integers(0, 20, (2, 5)), np.random.default_rng(1).integers(0, 3, (2, 5))


@pytest.mark.parametrize("turned", [False, True])
def test_a_table_of_which_one_side_reads_other_rows_has_a_line_and_its_place_a_cause(turned: bool):
    pair = typed("kinds"), typed("kinds", rows="first")
    found = parity.derive(*(pair[::-1] if turned else pair), TOKENS)
    assert found.verdict == "complete" and "kinds.weight: o i <-> kinds.weight: o i" in str(found.table)
    rows = ("row 0", "the rows that an input states") if turned else ("the rows that an input states", "row 0")
    assert [each.cause.partition(" (")[0] for each in found.divergences] == [
        f"of kinds.weight, the left reads {rows[0]}, the right {rows[1]}"
    ]


def test_a_table_of_either_side_alone_leaves_a_line_to_all_other_arrays():
    """As of positions in absolute terms, and of distances that scores read."""
    found = parity.derive(typed("distances"), typed("at"), TOKENS)
    assert found.missing == ["at.weight"] and found.reasons["at.weight"].startswith("the right adds at.weight")
    assert found.left_over == ["distances.weight"]


def residual(*shortcuts: int) -> Net:
    """Return three residual blocks of convolutions, those of these numbers with layers on their shortcuts."""

    def conv(size: int) -> torch.nn.Conv2d:
        return torch.nn.Conv2d(4, 4, size, padding=size // 2, bias=False)

    def run(m: Any, x: Any) -> Any:
        for k in range(3):
            y = m.norms[k](m.convs[k](x))
            x = torch.relu(y + (m.shorts[str(k)](x) if k in shortcuts else x))
        return x

    norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(4) for _ in range(3))
    shorts = {str(k): torch.nn.Sequential(conv(1), torch.nn.BatchNorm2d(4)) for k in shortcuts}
    return Net(run, convs=torch.nn.ModuleList(conv(3) for _ in range(3)), norms=norms,
               shorts=torch.nn.ModuleDict(shorts))  # fmt: skip


@pytest.mark.parametrize("shortcuts", [(1,), (0, 2)])
def test_layers_on_shortcuts_of_one_side_are_named(shortcuts: tuple[int, ...]):
    plain, more, given = residual(), residual(*shortcuts), (images(2, 4, 6, 6),)
    found = parity.derive(plain, more, given)
    assert len(found.missing) == 5 * len(shortcuts) and all(name.startswith("shorts.") for name in found.missing)
    does = "applies a convolution and a norm on a shortcut, the {} does not, with shorts."
    assert all(why.startswith(f"the right {does.format('left')}") for why in found.reasons.values()), found.reasons
    other = parity.derive(more, plain, given)
    assert other.verdict == "complete" and other.divergences[0].cause.startswith(f"the left {does.format('right')}")
