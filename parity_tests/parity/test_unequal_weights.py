"""Models that a Table pairs are compared in their weights first: others give other outputs, whatever the layers do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import parity
from parity.results.unequal_weights import unequal
from parity_tests.conftest import needs
from parity_tests.parity.test_paired_arrays import compared, linen_net, torch_net
from specs.table import Table

torch = pytest.importorskip("torch")


def changed(model: Any) -> Any:
    """Add 1/512 to an element of a kernel whose largest element is 1/4."""
    weight = model.blocks[1].fc.weight
    with torch.no_grad():
        weight.clamp_(-0.25, 0.25)[0, 0] = 0.25
    other = linen_net(model)
    with torch.no_grad():
        weight[1, 2] += 2.0**-9
    return other


@pytest.mark.parametrize("check", ["forward", "layers", "gradients"])
def test_a_changed_array_is_the_first_thing_that_is_said(check: str) -> None:
    needs("flax")
    right = torch_net().double()
    report = compared(changed(right), right, check)
    (result,) = report.results
    assert not report.passed and result.first_divergence is not None  # the check ran all the same
    assert result.weights is not None and result.weights.errors == (("blocks.1.fc.weight", 2.0**-7),)
    said = " ".join(str(report).split())
    one = "1 of 16 arrays, blocks.1.fc.weight by 7.8e-3 of its largest value"
    assert said.startswith(f"The weights differ: {one}. flax and torch differ, first at ")
    assert f"check {check} in float64: flax-torch weights differ already: {one}" in said
    assert "next give both models the same weights, and compare again: parity.transfer copies" in said
    assert "looks like" not in said


def test_a_checkpoint_that_was_restored_in_float32_is_named_as_that() -> None:
    needs("flax")
    import jax

    right = torch_net().double()
    jittered = {name: array * 1.1 for name, array in right.state_dict().items()}
    right.load_state_dict(jittered)
    module, variables = linen_net(right)
    left = module, jax.tree.map(lambda array: np.asarray(array, np.float32), variables)
    report = compared(left, right, "layers")
    weights = report.results[0].weights
    assert (
        weights is not None and weights.rounded == "flax" and (len(weights.errors), weights.compared) == (12, 16)
    )  # 4 biases are 0
    said = " ".join(str(report).split())
    assert "flax has those values rounded to float32. flax and torch differ" in said
    assert "restore flax in float64 (JAX needs jax_enable_x64 before it reads a checkpoint)" in said


def test_equal_weights_are_no_fact() -> None:
    needs("flax")
    right = torch_net().double()
    report = compared(linen_net(right), right, "forward")
    assert report.passed and report.results[0].weights is None and "weights" not in str(report)


def test_weights_with_lengths_that_the_table_leaves_open_are_not_compared_which_a_note_says() -> None:
    models = {"a": torch.nn.Linear(4, 4).double(), "b": torch.nn.Linear(4, 4).double()}
    table = Table.parse("table 1: torch <-> torch\nweight: (h d) i <-> weight: (d h) i\nbias: i <-> bias: i\n")
    (result,) = parity.compare(models, np.ones((2, 4)), names=table).results
    assert result.weights is None
    assert "whether the weights are equal was not compared, as the Table leaves lengths open: h" in result.cause


def test_weights_are_compared_by_the_lengths_that_a_table_was_derived_with() -> None:
    """Where all lengths of the models are so, those that follow, too."""
    lines = "weight: (h d) i <-> weight: (d h) i\nbias: i <-> bias: i\n"
    a, b = torch.nn.Linear(4, 6).double(), torch.nn.Linear(4, 6).double()
    b.load_state_dict({"weight": a.weight.unflatten(0, (2, 3)).swapaxes(0, 1).flatten(0, 1), "bias": a.bias})
    for lengths, is_compared in (("h=2 d=3 (weight)", True), ("h=2 d=4 (weight)", False), ("h=2", False)):
        table = Table.parse(f"table 1\n# lengths in the models that it was derived from: {lengths}\n{lines}")
        (result,) = parity.compare({"a": a, "b": b}, np.ones((2, 4)), names=table).results
        assert result.weights is None
        assert ("laid out with h=2, as in the models that the Table was derived from" in result.cause) is is_compared
        assert ("not compared, as the Table leaves lengths open: h" in result.cause) is not is_compared
    table = Table.parse(f"table 1\n# lengths in the models that it was derived from: h=3 d=2\n{lines}")
    (result,) = parity.compare({"a": a, "b": b}, np.ones((2, 4)), names=table).results
    assert str(result.weights).startswith("1 of 2 arrays, `weight` by ") and "with h=3, as in" in result.cause


class Heads(torch.nn.Module):
    """A projection whose heads have a slope each. Args: turned: whether channels come before heads."""

    def __init__(self, heads: int, turned: bool = False):
        super().__init__()
        self.q, self.slope, self.turned = torch.nn.Linear(4, 6), torch.nn.Parameter(torch.ones(heads)), turned

    def forward(self, x: Any) -> Any:
        sizes = (-1, len(self.slope)) if self.turned else (len(self.slope), -1)
        return self.q(x).unflatten(-1, sizes).sum(-2 if self.turned else -1) * self.slope


@pytest.mark.parametrize("heads", [2, 3])
def test_lengths_of_a_derived_table_are_compared_with_the_heads_of_each_module(heads: int) -> None:
    """Two heads of three channels are as long as three of two: the slopes of a module show which it has."""
    lines = "q.weight: (h d) i <-> q.weight: (d h) i\nq.bias: (h d) <-> q.bias: (d h)\nslope: h <-> slope: h\n"
    table = Table.parse(f"table 1\n# lengths in the models that it was derived from: h=2 d=3 (q.weight)\n{lines}")
    a, b = Heads(heads), Heads(heads, turned=True)
    own = {name: array.numpy() for name, array in a.state_dict().items()}
    b.load_state_dict({name: torch.tensor(array) for name, array in table.apply(own, h=heads).items()})
    (result,) = parity.compare({"a": a.double(), "b": b.double()}, np.ones((2, 4)), names=table).results
    assert result.weights is None and "no shape shows it" not in result.cause, result
    assert ("not compared, as the Table leaves lengths open: h" in result.cause) == (heads == 3), result.cause


def test_the_order_of_models_counts_nor_does_a_counter_or_a_shared_nan() -> None:
    one = {"a": np.array([1.0, np.nan]), "b.num_batches_tracked": np.array(3), "c": np.array([4.0, 1.0])}
    other = {"a": np.array([1.0, np.nan]), "b.num_batches_tracked": np.array(5), "c": np.array([4.0, 1.5])}
    for pair in ({"x": one, "y": other}, {"y": other, "x": one}):
        weights = unequal(pair)
        assert weights is not None and weights.errors == (("c", 0.125),) and weights.compared == 2
    assert unequal({"x": one, "y": one}) is None
    sick = unequal({"x": one, "y": {**other, "a": np.array([np.nan, 1.0])}})
    assert sick is not None and str(sick) == "2 of 2 arrays, such as `a` (NaN or infinite in one model alone)"


def test_weights_that_differ_are_listed_in_the_order_of_torch_as_jax_sorts_names() -> None:
    needs("flax")

    def run(w: Any, x: Any) -> Any:
        return (x @ w["stem"]) @ w["fc"] + w["bias"]

    net = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3)).double()
    weights = {"stem": np.eye(3), "fc": np.eye(3), "bias": np.ones(3)}
    table = "0.weight: o i <-> stem: i o\n1.weight: o i <-> fc: i o\n1.bias: c <-> bias: c"
    models = {"a": net, "b": (run, weights)}
    (result,) = parity.compare(models, np.ones((2, 3)), names=Table.parse(f"table 1\n{table}"), dtype="float64").results
    assert result.weights is not None and [name for name, _ in result.weights.errors] == ["stem", "fc", "bias"]


@pytest.mark.parametrize(("framework", "name"), [("torch", "dense.weight"), ("flax", "dense.kernel (weight in a)")])
def test_a_layer_that_differs_lists_its_unequal_arrays(framework: str, name: str) -> None:
    needs(framework)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dense = torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.dense(self.norm(x))

    left, right = Net(), Net()
    right.load_state_dict(left.state_dict())
    with torch.no_grad():
        right.dense.weight[1, 2] += 0.125
    models = {"a": left, "b": right if framework == "torch" else _in_linen(right)}
    report = parity.compare(models, np.arange(12.0, dtype="float32").reshape(3, 4) ** 2, check="layers")
    first = report.first_divergence
    assert first == "dense" and first.weights.startswith(f"{name}: 1 of 8 elements differs, by up to ")
    said = " ".join(str(report).split())
    leaf = name.partition(" ")[0].rpartition(".")[2]
    assert f"first at dense: 1 of 8 elements of its {leaf} differs" in said
    assert "next give both models the same weights, and compare again: parity.transfer copies" in said


def _in_linen(net: Any) -> Any:
    """Return a model of flax with the weights of a norm and a Linear in torch."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            norm = linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")
            return linen.Dense(2, name="dense")(norm(x))

    w = {name: array.numpy() for name, array in net.state_dict().items()}
    norm, dense = {"scale": w["norm.weight"], "bias": w["norm.bias"]}, {"kernel": w["dense.weight"].T}
    return Net(), {"params": {"norm": norm, "dense": {**dense, "bias": w["dense.bias"]}}}


def test_what_differs_behind_a_layer_that_is_equal_to_the_last_bit_is_code_of_its_own() -> None:
    class Cube(torch.nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.shift, self.by = torch.nn.Parameter(torch.zeros(2).double()), by

        def forward(self, x: Any) -> Any:
            return x**3 + self.by * x + self.shift

    dense = torch.nn.Linear(4, 2).double()
    models = {label: torch.nn.Sequential(dense, Cube(by)) for label, by in (("a", 0.5), ("b", 0.25))}
    said = " ".join(str(parity.compare(models, np.ones((3, 4)), check="layers")).split())
    assert "next look at the code of 1, and at its weights: the layer before it is equal to the last bit" in said
