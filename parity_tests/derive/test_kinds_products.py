"""One product written in several ways: as a sum of factors, matrix by matrix, fused, with a factor before or behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import parity
from parity.derive.trace.program import Program
from parity.derive.trace.sides import side
from parity_tests.conftest import needs

from .pairs import images
from .test_kinds_matching import Net, linear, numbers


def weight(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(*shape))


def both_ways(left: Net, right: Net, *shape: int) -> Any:
    """Derive in both directions, and return the first."""
    back = parity.derive(right, left, (images(*shape),))
    assert back.proven and not back.missing, (back.failure, back.reasons)
    found = parity.derive(left, right, (images(*shape),))
    assert found.proven and not found.missing, (found.failure, found.reasons)
    return found


def test_a_factor_before_a_product_or_behind_it():
    left = Net(lambda m, x: m.out(torch.cat([(6.28 * x @ m.rates).sin(), (6.28 * x @ m.rates).cos()], -1)),
               rates=weight(3, 4), out=linear(8))  # fmt: skip
    right = Net(lambda m, x: m.out(torch.cat([(6.28 * (x @ m.rates)).cos(), (6.28 * (x @ m.rates)).sin()], -1)),
                rates=weight(3, 4), out=linear(8))  # fmt: skip
    found = both_ways(left, right, 9, 3)
    moved = found.table.apply(given := numbers(left, images(9, 3)))
    assert np.array_equal(moved["rates"], given["rates"])
    assert np.array_equal(moved["out.weight"], np.roll(given["out.weight"], 4, 1))


def test_a_temperature_before_a_product_of_activations_or_behind_it():
    """A CLIP: the scale multiplies the features of images on one side, the similarities on the other."""

    def towers(**temperature: Any) -> dict[str, Any]:
        return dict(image=linear(6, 4), text=linear(5, 4), **temperature)

    left = Net(
        lambda m, x: m.scale.exp() * m.image(x) @ m.text(x[:, :5]).tanh().T,
        **towers(scale=torch.nn.Parameter(torch.tensor(0.3))),
    )
    right = Net(
        lambda m, x: m.image(x) @ m.text(x[:, :5]).tanh().T * m.t.exp(),
        **towers(t=torch.nn.Parameter(torch.tensor(0.3))),
    )
    assert "scale: <-> t:" in both_ways(left, right, 7, 6).table.print()


def test_a_temperature_for_each_head_before_the_keys_or_behind_two_products():
    """Its second product does not sum over the heads either."""

    def attend(m: Any, x: Any, before: bool) -> Any:
        q, k, v = m.qkv(x).unflatten(1, (3, 2, 3)).permute(1, 2, 0, 3)
        s = m.scale.exp()
        mixed = q @ (k * s if before else k).mT @ v
        return m.out((mixed if before else mixed * s).transpose(0, 1).flatten(1).tanh())

    left, right = (
        Net(lambda m, x, b=before: attend(m, x, b), qkv=linear(6, 18), out=linear(), scale=weight(2, 1, 1))
        for before in (True, False)
    )
    found = both_ways(left, right, 7, 6)
    given = numbers(left, images(7, 6))
    assert np.array_equal(found.table.apply(given)["scale"], given["scale"])


def test_a_product_of_one_column_as_a_sum_of_factors():
    left = Net(lambda m, x: (m.read(x).unflatten(1, (3, 4)) * m.score).sum(-1), read=linear(6, 12), score=weight(3, 4))
    right = Net(lambda m, x: torch.einsum("nhd,hd->nh", m.read(x).unflatten(1, (3, 4)), m.score),
                read=linear(6, 12), score=weight(3, 4))  # fmt: skip
    found = both_ways(left, right, 9, 6)
    given = numbers(left, images(9, 6))
    assert np.array_equal(found.table.apply(given)["score"], given["score"])


def test_a_wrong_choice_among_products_of_one_column_is_taken_back():
    """Attention over a graph: two vectors for each head meet the same values, and only what reads the sum differs."""

    def attend(m: Any, x: Any, score: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
        z = m.read(x).unflatten(1, (2, 4))
        e = score(z, first)[:, None] + score(z, second)[None]
        return m.out(torch.einsum("ijh,jhd->ihd", torch.nn.functional.leaky_relu(e).softmax(1), z).flatten(1).tanh())

    left = Net(lambda m, x: attend(m, x, lambda z, a: (z * a).sum(-1), m.p, m.q),
               read=linear(6, 8), out=linear(8, 3), p=weight(2, 4), q=weight(2, 4))  # fmt: skip
    right = Net(lambda m, x: attend(m, x, lambda z, a: torch.einsum("nhd,hd->nh", z, a), m.q, m.p),
                read=linear(6, 8), out=linear(8, 3), p=weight(2, 4), q=weight(2, 4))  # fmt: skip
    text = both_ways(left, right, 7, 6).table.print()
    assert "p: o i <-> q: o i" in text and "q: o i <-> p: o i" in text


def test_a_depthwise_convolution_as_a_sum_of_shifted_factors():
    def shifted(m: Any, x: Any) -> Any:
        x = torch.nn.functional.pad(m.read(x), (0, 0, 2, 0))
        q, k = sum(x[:, k : k + 8] * m.taps[k] for k in range(3)).chunk(2, -1)
        return q * k.tanh()

    left = Net(lambda m, x: (lambda q, k: (q * k.tanh()).mT)(*m.short(m.read(x).mT)[..., :8].chunk(2, 1)),
               read=linear(6, 8), short=torch.nn.Conv1d(8, 8, 3, padding=2, groups=8, bias=False))  # fmt: skip
    found = both_ways(left, Net(shifted, read=linear(6, 8), taps=weight(3, 8)), 2, 8, 6)
    given = numbers(left, images(2, 8, 6))
    assert np.array_equal(found.table.apply(given)["taps"], given["short.weight"][:, 0].T)


def test_experts_one_by_one_or_stacked():
    def each(m: Any, x: Any) -> Any:
        gates = m.gate(x).softmax(-1)
        return sum(gates[:, k : k + 1] * m.down[k](m.up[k](x).tanh()) for k in range(3))

    def stacked(m: Any, x: Any) -> Any:
        hidden = torch.einsum("nd,edf->nef", x, m.up).tanh()
        return torch.einsum("ne,ned->nd", m.gate(x).softmax(-1), torch.einsum("nef,efd->ned", hidden, m.down))

    lists = {name: torch.nn.ModuleList([linear(*size, False) for _ in range(3)])
             for name, size in (("up", (6, 8)), ("down", (8, 6)))}  # fmt: skip
    left = Net(each, gate=linear(6, 3), **lists)
    found = both_ways(left, Net(stacked, gate=linear(6, 3), up=weight(3, 6, 8), down=weight(3, 8, 6)), 9, 6)
    given = numbers(left, images(9, 6))
    moved = found.table.apply(given)
    assert np.array_equal(moved["up"], np.stack([given[f"up.{k}.weight"].T for k in range(3)]))
    assert np.array_equal(moved["down"], np.stack([given[f"down.{k}.weight"].T for k in range(3)]))


def test_matrices_that_meet_the_same_values_in_one_product_or_in_a_batch():
    left = Net(lambda m, x: (m.w @ m.read(x).unflatten(1, (3, 4))[:, :, None, :, None])[..., 0].tanh(),
               read=linear(6, 12), w=weight(1, 3, 2, 5, 4))  # fmt: skip
    right = Net(lambda m, x: torch.einsum("bic,iojc->bioj", m.read(x).unflatten(1, (3, 4)), m.w).tanh(),
                read=linear(6, 12), w=weight(3, 2, 5, 4))  # fmt: skip
    found = both_ways(left, right, 9, 6)
    given = numbers(left, images(9, 6))
    assert np.array_equal(found.table.apply(given)["w"], given["w"][0])


@pytest.mark.parametrize("zeros", [torch.zeros, lambda *_: 0.0], ids=["array", "number"])
def test_a_state_that_starts_from_zeros_is_no_evidence(zeros: Callable[..., Any]):
    def steps(start: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            k = m.read(x)
            state, outs = start(k[:, 0]), []
            for t in range(3):
                state = (-m.decay.exp()).exp() * state + k[:, t]
                outs.append(state)
            return m.out(torch.stack(outs, 1).tanh())

        return run

    def parts() -> dict[str, Any]:
        return {"read": linear(), "out": linear(), "decay": weight(6)}

    both_ways(Net(steps(torch.zeros_like), **parts()), Net(steps(lambda k: zeros(*k.shape)), **parts()), 4, 3, 6)


def test_parts_are_joined_in_another_order_and_an_empty_one():
    def moved(m: Any, x: Any) -> Any:
        x = m.read(x)
        return m.out(torch.cat([x[:, :0], x[:, 1:], x[:, :1]], 1).tanh())

    left = Net(lambda m, x: m.out(m.read(x).roll(-1, 1).tanh()), read=linear(), out=linear())
    both_ways(left, Net(moved, read=linear(), out=linear()), 4, 3, 6)


def test_a_part_that_nothing_reads_is_composed_as_in_the_other_blocks():
    def blocks(fused: bool) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            skips = 0
            for k in range(3):
                h = x.tanh()
                step, skip = m.both[k](h).chunk(2, -1) if fused else (m.step[k](h), m.skip[k](h))
                x, skips = x + step, skips + skip
            return skips

        return run

    def lists(*names: str, o: int) -> dict[str, Any]:
        return {name: torch.nn.ModuleList([linear(6, o) for _ in range(3)]) for name in names}

    left = Net(blocks(False), **lists("step", "skip", o=6))
    found = parity.derive(left, Net(blocks(True), **lists("both", o=12)), (images(7, 6),))
    assert found.proven and not found.missing, found.reasons
    given = numbers(left, images(7, 6))
    wanted = np.concatenate([given["step.2.weight"], given["skip.2.weight"]])
    assert np.array_equal(found.table.apply(given)["both.2.weight"], wanted) and "both.2.weight" in found.inferred


@pytest.mark.parametrize("convolution", [False, True])
def test_one_product_of_joined_inputs_or_a_sum_of_two(convolution: bool):
    def layer(i: int, bias: bool = True) -> Any:
        return torch.nn.Conv1d(i, 8, 3, padding=1, bias=bias) if convolution else linear(i, 8, bias)

    def steps(fused: bool) -> Callable[[Any, Any], Any]:
        def run(m: Any, x: Any) -> Any:
            axis = 1 if convolution else -1
            state = torch.zeros(2, 4, 5) if convolution else torch.zeros(2, 4)
            for t in range(3):
                inputs = x[:, t] if convolution else x[:, t, :, 0]
                both = m.all(torch.cat([inputs, state], axis)) if fused else m.own(inputs) + m.back(state)
                gate, new = both.chunk(2, axis)
                state = gate.sigmoid() * state + new.tanh()
            return state

        return run

    left = Net(steps(True), all=layer(7))
    found = both_ways(left, Net(steps(False), own=layer(3), back=layer(4, False)), 2, 3, 3, 5)
    moved = found.table.apply(given := numbers(left, images(2, 3, 3, 5)))
    assert np.array_equal(moved["back.weight"], given["all.weight"][:, 3:])


def test_gates_of_which_some_have_one_bias_and_one_has_two():
    def gru(m: Any, x: Any) -> Any:
        state = torch.zeros(len(x), 4)
        for t in range(x.shape[1]):
            r, z = ((getattr(m, f"i{gate}")(x[:, t]) + getattr(m, f"h{gate}")(state)).sigmoid() for gate in "rz")
            new = (m.new(x[:, t]) + r * m.hn(state)).tanh()
            state = (1 - z) * new + z * state
        return state

    gates = {f"i{gate}": linear(5, 4) for gate in "rz"} | {f"h{gate}": linear(4, 4, False) for gate in "rz"}
    left = Net(lambda m, x: m.rnn(x)[0][:, -1], rnn=torch.nn.GRU(5, 4, batch_first=True))
    found = both_ways(left, Net(gru, **gates, new=linear(5, 4), hn=linear(4, 4)), 3, 6, 5)
    given = numbers(left, images(3, 6, 5))
    moved = found.table.apply(given)
    both = given["rnn.bias_ih_l0"] + given["rnn.bias_hh_l0"]
    assert np.array_equal(moved["iz.bias"], both[4:8]) and np.array_equal(moved["hn.bias"], given["rnn.bias_hh_l0"][8:])


def test_a_factor_of_one_does_not_part_a_bias_from_the_sum_that_it_belongs_to():
    left = Net(lambda m, x: m.out((m.read(x.tanh()) / 1.0 + x).tanh()), read=linear(), out=linear())
    both_ways(left, Net(lambda m, x: m.out((m.read(x.tanh()) + x).tanh()), read=linear(), out=linear()), 9, 6)


def test_generated_weights_that_a_softmax_takes_over_another_axis():
    """Of as many outputs as inputs, only the axis of the softmax tells which are which."""

    def mixing(last: bool) -> Callable[..., Any]:
        def run(m: Any, x: Any) -> Any:
            weights = m.g(x.mean(1)).unflatten(-1, (4, 4))
            weights = weights.mT.softmax(-1) if last else weights.softmax(-2).mT
            return m.o(weights @ x)

        return run

    left, right = (Net(mixing(last), g=linear(6, 16), o=linear(6, 6)) for last in (False, True))
    found = both_ways(left, right, 2, 4, 6)
    assert "g.weight: o i <-> g.weight: o i" in str(found.table)


def test_a_product_behind_another_activation_is_found_by_the_product_before_it():
    """Values behind a ReLU are too far from those behind a GELU, and every matrix has the same shape."""

    def run(act: str, blocks: str) -> Callable[..., Any]:
        def forward(m: Any, x: Any) -> Any:
            for one, two in zip(blocks[::2], blocks[1::2], strict=True):
                x = x + getattr(m, two)(getattr(torch.nn.functional, act)(getattr(m, one)(x)))
            return m.out(x)

        return forward

    names, others = "abcdef", "ponmlk"
    left, right = (
        Net(run(act, of), **{name: linear(8, 8) for name in sorted(of)}, out=linear(8, 3))
        for act, of in (("gelu", names), ("relu", others))
    )
    found = parity.derive(left, right, (images(7, 8),))
    assert not found.proven and not found.missing, found.failure
    assert "GELU by the error function on the left, ReLU on the right" in found.divergences[0].cause
    assert found.confirmed and not found.inferred  # without the activation both models are equal
    moved = found.table.apply(given := numbers(left, images(7, 8)))
    for name, other in zip(names, others, strict=True):
        assert np.array_equal(moved[f"{other}.weight"], given[f"{name}.weight"])


@pytest.mark.parametrize("name", ["mm", "addmm", "mv", "dot"])
def test_a_product_of_matrices_or_vectors_and_one_with_out(name: str):
    """A product into an array at hand is an operation of its own, and not one of its parts."""
    shapes = {"mm": [(5, 6), (6, 4)], "addmm": [(5, 4), (5, 6), (6, 4)], "mv": [(5, 6), (6,)], "dot": [(6,), (6,)]}
    operands = [torch.as_tensor(images(*shape)) for shape in shapes[name]]
    product = getattr(torch, name)

    def out(m: Any, *x: Any) -> Any:
        return product(*x, out=torch.empty_like(product(*x))).tanh() * m.w

    model, arrays = Net(out, w=weight(1)).double(), [x.numpy() for x in operands]
    wanted = out(model, *operands).detach().numpy()
    for run in (out, lambda m, *x: product(*x).tanh() * m.w):
        model.run = run
        recorded = side(model, parity.Call(*arrays))
        tape = recorded.record(recorded.parameters, recorded.call.arrays())
        program = Program(tape, recorded.parameters, arrays)
        assert np.allclose(program.outputs[0], wanted, rtol=1e-12)  # rounding of sums in another order
        assert ("product" in {node.kind for node in program.tape.nodes}) == (run is not out)


@pytest.mark.parametrize("first", [False, True])
def test_an_inner_product_of_two_parameters_is_one_of_their_sums(first: bool):
    """As in differential attention, whose lambda is exp(q1 k1) - exp(q2 k2) + 0.8 of four vectors."""
    needs("flax")
    import jax.numpy as jnp

    torch.manual_seed(0)
    names, others = [("q1", "k1"), ("q2", "k2")], [("lambda_q1", "lambda_k1"), ("lambda_q2", "lambda_k2")]

    def summed(m: Any, x: Any) -> Any:
        a, b = (torch.exp(torch.sum(getattr(m, q) * getattr(m, k), -1)) for q, k in names)
        return m.head(m.up(x).sin() - (a - b + 0.8) * m.down(x).cos())

    def multiplied(p: Any, x: Any) -> Any:
        a, b = (jnp.exp(jnp.dot(p[q], p[k])) for q, k in others)
        return (jnp.sin(x @ p["one"]) - (a - b + 0.8) * jnp.cos(x @ p["two"])) @ p["out"]

    vectors = {name: weight(4) for pair in names for name in pair}
    layers = {"up": linear(8, 6, False), "down": linear(8, 6, False), "head": linear(6, 3, False)}
    arrays = {"one": np.ones((8, 6)), "two": np.ones((8, 6)), "out": np.ones((6, 3))}
    sides = Net(summed, **vectors, **layers), (multiplied, arrays | {n: np.ones(4) for pair in others for n in pair})
    found = parity.derive(*(sides if first else sides[::-1]), (images(5, 8),))
    assert found.proven and not found.missing, found


@pytest.mark.parametrize("plain", [False, True])
def test_factors_of_a_low_rank_kernel_are_multiplied_first_or_one_after_the_other(plain: bool):
    """As LoRA has it: merged with a trained kernel, or beside it; or without one."""

    def merged(m: Any, x: Any) -> Any:
        low = 2 * m.b @ m.a
        return m.head(x.matmul((low if plain else m.base.weight + low).T).add(m.base.bias).tanh())

    def beside(m: Any, x: Any) -> Any:
        low = x @ m.down @ m.up * 2
        return m.head((low + m.bias if plain else x @ m.kernel + m.bias + low).tanh())

    torch.manual_seed(0)
    left = Net(merged, base=linear(8, 6), a=weight(3, 8), b=weight(6, 3), head=linear(6, 4))
    kernel = {} if plain else {"kernel": weight(8, 6)}
    right = Net(beside, down=weight(8, 3), up=weight(3, 6), bias=weight(6), head=linear(6, 4), **kernel)
    if plain:
        del left.base.weight
    found = both_ways(left, right, 2, 5, 8)
    moved = found.table.apply(given := numbers(left, images(2, 5, 8)))
    assert np.array_equal(moved["down"], given["a"].T) and np.array_equal(moved["up"], given["b"].T)
    assert parity.derive(left, left, (images(2, 5, 8),)).proven


@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_a_product_are_picked_from_a_table_before_it(turned: bool):
    """JAX multiplies the whole table and adds the bias to each row."""
    needs("flax")
    from jax import numpy as jnp

    left = Net(lambda m, ids: m.head(torch.tanh(m.fc(m.table(ids)))), table=torch.nn.Embedding(9, 6), fc=linear(6, 8),
               head=linear(8, 3))  # fmt: skip

    def run(p: Any, ids: Any) -> Any:
        return jnp.tanh((p["t"] @ p["w"] + p["b"])[ids]) @ p["v"] + p["c"]

    right = run, {"t": images(9, 6), "w": images(6, 8), "b": images(8), "v": images(8, 3), "c": images(3)}
    sides = (right, left) if turned else (left, right)
    found = parity.derive(*sides, (np.array([[0, 1, 8], [5, 6, 7]]),))
    assert found.proven and not found.missing, str(found)
    assert sum(use.kind == "product" for use in found.uses) == 2, str(found)  # not by shapes alone
