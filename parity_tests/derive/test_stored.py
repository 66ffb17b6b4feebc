"""Integers and flags that models store and read: a step, whether it has been initialized, an order, a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from specs.table import Table

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")
SAID = "equal only while what one model alone stores is that of a new one"
X = images(3, 6)


def net(function: Any, **stored: Any) -> Net:
    """Return two layers with a function of (module, values) between them, and buffers of the first one."""
    made = Net(lambda m, x: m.b(function(m, m.a(x)).tanh()), a=linear(), b=linear(6, 3))
    for name, value in stored.items():
        made.a.register_buffer(name, torch.tensor(value))
    return made


def plain(m: Any, x: Any) -> Any:
    return x


def branched(m: Any, x: Any) -> Any:
    return 2 * x if m.a.ready.item() else x


def warmed(m: Any, x: Any) -> Any:
    return torch.where(m.a.step > 1000, 2 * x, x)


@pytest.mark.parametrize(
    ("function", "stored", "said"),
    [
        (branched, {"ready": 0}, "ready 0"),
        (branched, {"ready": False, "other": 1}, "ready False"),
        (warmed, {"step": 0}, "step 0"),
        (warmed, {"step": np.uint8(0)}, ""),  # it never passes 255
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
def test_numbers_of_a_new_model_that_one_side_alone_reads_prove_nothing(
    function: Any, stored: Any, said: str, turned: bool
):
    pair = net(function, **stored), net(plain)
    found = parity.derive(*(pair[::-1] if turned else pair), (X,))
    assert found.proven == (not said) and found.error < 1e-12
    assert found.incomparable == (f"{SAID}: a.{said} on the {'right' if turned else 'left'}" if said else "")


def test_a_number_that_is_set_is_stated_in_the_table():
    found = parity.derive(net(branched, ready=1, other=1), net(lambda m, x: 2 * x), (X,))
    assert found.proven and "\n# equal with a.ready 1, which the left model alone has\n" in str(found.table)
    assert "with a.other" not in str(found.table)


def test_numbers_that_both_sides_read_and_counters_are_no_difference():
    both = parity.derive(net(branched, ready=0), net(branched, ready=0), (X,))
    assert both.proven and "a.ready: <-> a.ready:" in str(both.table)
    norms = [net(lambda m, x: m.norm(x)) for _ in range(2)]
    norms[0].norm = torch.nn.BatchNorm1d(6)
    norms[1].norm = torch.nn.BatchNorm1d(6)
    norms[1].norm.num_batches_tracked = None
    assert parity.derive(*norms, (X,)).proven


def test_a_number_that_one_side_alone_reads_says_so_though_both_have_it():
    found = parity.derive(net(plain, ready=0), net(branched, ready=0), (X,))
    assert found.incomparable == f"{SAID}: a.ready 0 on the right" and not found.proven


def test_steps_of_a_jax_model_are_numbers_too():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    def run(p: Any, x: Any) -> Any:
        x = x @ p["a"]["w"] + p["a"]["b"]
        return jnp.tanh(jnp.where(p["step"] > 1000, 2 * x, x)) @ p["b"]["w"] + p["b"]["b"]

    tree = {"a": {"w": np.ones((6, 6)), "b": np.ones(6)}, "b": {"w": np.ones((6, 3)), "b": np.ones(3)}}
    found = parity.derive(net(plain), (run, {**tree, "step": np.array(0)}), (X,))
    assert found.incomparable == f"{SAID}: step 0 on the right" and not found.proven


def masking(hides: Any, pad: int | None = 0) -> Net:
    """Return an embedding of which a function of (module, tokens) tells the places that count."""
    made = Net(lambda m, ids: m.b(m.a(ids) * hides(m, ids)[..., None]), a=torch.nn.Embedding(9, 6), b=linear(6, 3))
    if pad is not None:
        made.register_buffer("pad", torch.tensor(pad))
    return made


TOKENS = np.array([[2, 0, 5, 1], [4, 3, 0, 2]])


@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
@pytest.mark.parametrize(
    ("reads", "code"),
    [
        (lambda m, ids: ids != m.pad, lambda m, ids: ids != 0),
        (lambda m, ids: m.pad < ids, lambda m, ids: ids > 0),
        (lambda m, ids: ids.ne(m.pad), lambda m, ids: ids.ne(0) & (ids[:1] > 0).any().ge(0)),  # 0 of another meaning
    ],
)
def test_a_constant_of_zero_is_proven_that_the_other_model_has_in_its_code(reads: Any, code: Any, turned: bool):
    pair = masking(reads), masking(code, None)
    found = parity.derive(*(pair[::-1] if turned else pair), (TOKENS,))
    side, other = ("right", "left") if turned else ("left", "right")
    assert found.proven, str(found)
    assert f"\n# equal with pad 0 on the {side}, which the {other} model has in its code\n" in str(found.table)


@pytest.mark.parametrize(
    ("reads", "code"),
    [
        (lambda m, ids: (ids + m.pad) != 0, lambda m, ids: (ids != 0) & (ids < 9)),  # next: another token
        (lambda m, ids: (ids != 0) & (ids >= m.pad), lambda m, ids: ids != 0),  # a limit that the other does not have
        (lambda m, ids: (ids != m.pad) | (m.pad > 1000), lambda m, ids: ids.bool()),  # the other does not compare
    ],
)
def test_a_number_of_zero_that_means_something_else_proves_nothing(reads: Any, code: Any):
    found = parity.derive(masking(reads), masking(code, None), (TOKENS,))
    assert found.incomparable == f"{SAID}: pad 0 on the left" and not found.proven


def test_a_constant_of_zero_is_proven_where_no_state_has_it():
    def hidden(stored: bool) -> Net:
        made = masking(lambda m, ids: (ids + m.pad) != 0, None)
        made.register_buffer("pad", torch.tensor(0), persistent=stored)
        return made

    tokens, stored = (TOKENS,), hidden(True)
    found = parity.derive(stored, hidden(False), tokens)
    assert found.incomparable == f"{SAID}: pad 0 on the left" and "persistent=False" in str(found)
    plain = parity.derive(hidden(False), hidden(False), tokens)
    assert plain.proven
    table = Table.parse(plain.table.print() + "pad -> drop\n")  # for checkpoints that have it
    assert table.apply({name: tensor.numpy() for name, tensor in stored.state_dict().items()}).keys() == {
        "a.weight", "b.weight", "b.bias",
    }  # fmt: skip


ORDER, ALL = np.arange(6), np.ones(6, bool)


SOME = np.array([0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("values", "left", "right"),
    [
        (ORDER, lambda m, x: x[:, m.a.own], lambda m, x: x[:, m.a.own.argsort()]),
        (ALL, lambda m, x: x.masked_fill(~m.a.own, 0), lambda m, x: x.masked_fill(~m.a.own, -1e4)),
        (np.int8(0) * ORDER, lambda m, x: x + m.a.own, lambda m, x: x - m.a.own),
        (SOME, lambda m, x: x + m.a.own, lambda m, x: x + m.a.own**2),
        (SOME, lambda m, x: x + m.a.own, lambda m, x: x + m.a.own.clamp(0, 1)),
        (ORDER, lambda m, x: x + m.a.own, lambda m, x: x + m.a.own.clamp(max=5)),
        (-SOME, lambda m, x: x + m.a.own, lambda m, x: x + m.a.own.clamp(-1)),
        (np.array(3), lambda m, x: x * m.a.own, lambda m, x: x * m.a.own.clamp(max=4)),
        (np.array([2, 0, 1, 3, 4, 5]), lambda m, x: x[:, m.a.own], lambda m, x: x[:, m.a.own.argsort().argsort()]),
        (2 * SOME, lambda m, x: x[:, m.a.own], lambda m, x: x[:, m.a.own.clamp(0, 2)]),  # no index below or above
        (SOME == 1, lambda m, x: x * m.a.own, lambda m, x: x.masked_fill(~m.a.own, 0)),  # a mask stays boolean
        (SOME, lambda m, x: x * m.a.own, lambda m, x: m.a.own * x),
    ],
    ids=[
        "order",
        "mask",
        "zero points",
        "square",
        "limit",
        "limit of an order",
        "lower limit",
        "number",
        "equal",
        "indices",
        "flags",
        "numbers",
    ],
)
def test_arrays_that_both_read_are_proven_with_other_values_too(values: Any, left: Any, right: Any, request: Any):
    found = parity.derive(net(left, own=values), net(right, own=values), (X,))
    alike = request.node.callspec.id in ("equal", "indices", "flags", "numbers")
    assert found.proven == alike and "a.own: " in str(found.table), str(found)
    assert alike or found.incomparable.startswith("equal only with these values of a.own: with others, outputs differ")


@pytest.mark.parametrize("values", [ALL, np.array([3, 1, 2, 3, 1, 1])], ids=["new", "of other numbers"])
def test_an_array_of_which_a_model_takes_no_other_values_is_not_shown(values: np.ndarray):
    def run(m: Any, x: Any) -> Any:
        assert m.a.own.tolist() == values.tolist()
        return x * m.a.own

    found = parity.derive(net(run, own=values), net(run, own=values), (X,))
    assert not found.proven and found.unshown == ["a.own"]


@pytest.mark.parametrize(
    ("values", "reads", "said"),
    [
        (ORDER, lambda m, x: x[:, m.a.own], "0..5"),
        (ALL, lambda m, x: x * m.a.own, "True (6 times)"),
        (0 * ORDER.astype("i1"), lambda m, x: x + m.a.own, "0 (6 times)"),
    ],
    ids=["order", "mask", "zero points"],
)
@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
def test_arrays_of_a_new_model_that_one_side_alone_reads_prove_nothing(
    values: np.ndarray, reads: Any, said: str, turned: bool
):
    pair = net(reads, own=values), net(plain)
    found = parity.derive(*(pair[::-1] if turned else pair), (X,))
    assert found.incomparable == f"{SAID}: a.own {said} on the {'right' if turned else 'left'}" and not found.proven


def words(stored: bool) -> Net:
    """Return embeddings of tokens, positions and kinds; the numbers of the latter two are stored, or in the code."""

    def run(m: Any, ids: Any) -> Any:
        positions = m.own[:, :4] if stored else np.s_[:4]
        kinds = m.kinds[:, :4] if stored else torch.zeros_like(ids)
        return m.b((m.a(ids) + m.positions.weight[positions] + m.types(kinds)).tanh())

    embeddings = {
        "a": torch.nn.Embedding(9, 6),
        "positions": torch.nn.Embedding(8, 6),
        "types": torch.nn.Embedding(2, 6),
    }
    made = Net(run, **embeddings, b=linear(6, 3))
    if stored:
        made.register_buffer("own", torch.arange(8)[None])
        made.register_buffer("kinds", torch.zeros(1, 8, dtype=torch.int64))
    return made


def causal(stored: bool) -> Net:
    """Return sums over earlier rows, of which a mask is computed from numbers that are stored, or in the code."""

    def run(m: Any, x: Any) -> Any:
        at = m.own[:3] if stored else torch.arange(3)
        return m.b((at[:, None] >= at).to(x.dtype) @ m.a(x).tanh())

    made = Net(run, a=linear(), b=linear(6, 3))
    if stored:
        made.register_buffer("own", torch.arange(5))
    return made


@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
@pytest.mark.parametrize(("model", "given"), [(words, TOKENS), (causal, X)], ids=["rows", "mask"])
def test_arrays_that_pick_rows_or_that_the_other_model_has_in_its_code_are_proven(
    model: Any, given: np.ndarray, turned: bool
):
    found = parity.derive(model(not turned), model(turned), (given,))
    assert found.proven, str(found)
    assert "kept at the model's own values, since the other side has no array for it: own" in str(found.table)


def attending(dtype: Any, fill: float, limited: bool = False) -> Net:
    """Return attention with a causal mask that is stored, as in GPT-2; limited: it hides later places alone."""

    def run(m: Any, x: Any) -> Any:
        length = x.shape[1]
        shown = m.bias[:, :, :length, :length].bool()[0, 0]
        shown = shown | torch.ones(length, length).tril().bool() if limited else shown
        q, k, v = m.a(x).chunk(3, -1)
        return m.b((q @ k.mT / 2).masked_fill(~shown, fill).softmax(-1) @ v)

    made = Net(run, a=linear(6, 12), b=linear(4, 3))
    made.register_buffer("bias", torch.ones(8, 8).tril().to(dtype)[None, None])
    return made


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8], ids=str)
@pytest.mark.parametrize("fill", [-1e4, -np.inf], ids=str)
def test_a_causal_mask_that_both_store_is_proven_with_others_that_hide_no_row_whole(dtype: Any, fill: float):
    found = parity.derive(attending(dtype, fill), attending(dtype, -1e4), (images(2, 5, 6),))
    assert found.proven and "bias: a b c d <-> bias: a b c d" in str(found.table), str(found)
    other = parity.derive(attending(dtype, fill), attending(dtype, fill, limited=True), (images(2, 5, 6),))
    assert other.incomparable.startswith("equal only with these values of bias: with others, outputs differ by")


def turning(stored: bool) -> Net:
    """Return attention whose heads of 4 channels are turned by a stored table of (places, 4), or by one in the code."""
    angles = torch.arange(8.0, dtype=torch.float64)[:, None] / torch.tensor([1.0, 100.0])

    def run(m: Any, x: Any) -> Any:
        sin, cos = (m.own if stored else torch.cat([angles.sin(), angles.cos()], 1))[:5].chunk(2, 1)
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in m.a(x).chunk(3, -1))
        q, k = (torch.stack([y[..., ::2] * cos - y[..., 1::2] * sin, y[..., 1::2] * cos + y[..., ::2] * sin], -1)
                for y in (q, k))  # fmt: skip
        scores = (q.flatten(-2) @ k.flatten(-2).mT / 2).softmax(-1)
        return m.b((scores @ v).transpose(1, 2).flatten(-2))

    made = Net(run, a=linear(6, 24), b=linear(8, 3))
    if stored:
        table = torch.cat([angles.sin(), angles.cos()], 1)
        made.own = torch.nn.Parameter(table, requires_grad=False)
    return made


@pytest.mark.parametrize("turned", [False, True], ids=["left", "right"])
def test_a_small_table_that_the_other_model_has_in_its_code_keeps_its_values(turned: bool):
    """Random values would turn heads otherwise, and 5 places of 2 angles have 9 sines."""
    found = parity.derive(turning(not turned), turning(turned), (images(2, 5, 6),))
    assert found.proven and not found.trained_tables, str(found)
