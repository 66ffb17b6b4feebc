"""Tables that lack lines, arrays that nothing reads, and calls of derive that are refused before anything is run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import parity
from convert.errors import ConvertError, UsageError, command
from convert.table.by_table import plan
from parity.derive import deriving
from parity.derive.command import run
from parity.derive.conclude.partings import divergences
from parity.derive.explain import explanation
from parity.derive.explain.divergence import Divergence
from parity.derive.findings.derivation import dropped_lines
from parity.derive.fold.rows import missing_lines
from parity.derive.match.choices import Step
from parity.derive.match.match import Match
from parity.derive.prove.prove import Proof
from parity.derive.trace import sites
from parity.derive.trace.reason import OneSided
from specs.table import Table, TableError

from ..conftest import needs
from .pairs import initial
from .test_report import DERIVED, page_of

X = np.random.default_rng(0).standard_normal((2, 3, 5, 5))
TOKENS = np.random.default_rng(1).integers(0, 9, (2, 5))


def _net(counter: bool = True, width: int = 4) -> Any:
    import torch

    middle = torch.nn.BatchNorm2d(width)
    if not counter:
        del middle.num_batches_tracked
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), middle, torch.nn.Tanh(), torch.nn.Conv2d(width, 2, 1))


def _state(model: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_counters_of_a_norm_on_both_sides_belong_together():
    needs("torch")
    found = parity.derive(_net(), _net(), (X,))
    state = {**_state(_net()), "1.num_batches_tracked": np.array(7)}
    moved = found.table.apply(state)
    assert found.proven and moved["1.num_batches_tracked"] == 7
    assert found.table.reverse().apply(moved)["1.num_batches_tracked"] == 7


def test_the_counter_of_a_trained_model_is_transferred_to_a_new_one():
    needs("torch")
    trained = _net()
    trained[1].num_batches_tracked += 7
    assert "1.num_batches_tracked: <->" in parity.derive(trained, _net(), (X,)).table.print()
    assert parity.transfer(trained, _net(), (X,))[1].num_batches_tracked == 7


def test_a_counter_that_only_the_right_side_has_is_dropped_in_reverse_whatever_it_counts():
    needs("torch")
    found = parity.derive(_net(counter=False), _net(), (X,))
    assert found.proven and "drop <- 1.num_batches_tracked: = 0 int64" in found.table.print()
    moved = found.table.apply(_state(_net(counter=False)))
    assert moved["1.num_batches_tracked"] == 0
    back = found.table.reverse().apply({**moved, "1.num_batches_tracked": np.array(7)})
    assert "1.num_batches_tracked" not in back and len(back) == len(moved) - 1


def test_a_constant_of_one_direction_is_printed_as_it_is_written():
    text = "table 1\na: c <-> b: c\ndrop <- n: = 0 int64\n"
    table = Table.parse(text)
    assert Table.parse(table.print()) == table and table.reverse().reverse() == table
    assert set(table.apply({"a": np.ones(2)})) == {"b", "n"}
    with pytest.raises(TableError):
        Table.parse("table 1\na: c <-> b: c\ndrop -> n: = 0 int64\n")


def test_arrays_that_one_side_alone_has_are_named_in_one_line():
    text = "table 1\na: c <-> b: c\nblocks.{i}.mask -> drop\nids -> drop\ndrop <- ids\ndrop <- n: = 0 int64\n"
    with command():
        lines = dropped_lines(Table.parse(text), ([], ["ids"]))  # the left model does not compute with its own
    assert [line.text.partition(":")[::2] for line in lines] == [
        ("dropped", " blocks.{i}.mask, ids on the left; ids on the right, with which that model computes: "
         "--like FILE, a file of a new model of that side, supplies them to a conversion"),
    ]  # fmt: skip


def test_an_incomplete_table_drops_nothing_and_is_not_converted_by(tmp_path: Path):
    needs("torch")
    from safetensors.numpy import save_file

    found = parity.derive(_net(), _net(width=5), (X,))
    assert found.missing and "-> drop" not in found.table.print() and "# incomplete:" in found.table.print()
    with pytest.warns(UserWarning, match="incomplete"):
        moved = found.table.apply(_state(_net()))
    assert not moved.keys() & set(found.missing)
    found.table.save(tmp_path / "my.table")
    save_file(_state(_net()), tmp_path / "left.safetensors")
    advice = "8 arrays of the right model without a line: add the lines that are missing, and remove this comment"
    with pytest.raises(ConvertError, match=rf"my\.table is incomplete, as its comment says: {advice}") as raised:
        plan(str(tmp_path / "left.safetensors"), str(tmp_path / "my.table"))
    assert "missing: 0.weight: it has 5 where 0.weight has 4" in raised.value.problems, raised.value.problems
    assert "missing: {1,3}.weight: no use of it was matched" in raised.value.problems, raised.value.problems


@pytest.mark.parametrize("whole", [False, True])
def test_ranges_to_which_something_without_a_line_may_belong_are_neither_dropped_nor_set(whole: bool):
    """Of `g`, which has no line, the left elements are known; a use of `eps` has no partner."""
    from parity.derive.conclude.writing import Written, without_unknown
    from parity.derive.fold.rows import table_of
    from parity.derive.match.symbols import Elements
    from parity.derive.missing.unmatched import Unmatched

    lefts = Elements({"u.0.b": np.ones(6), "u.1.b": np.ones(6), "e": np.ones(2)}, known=False)
    rights = Elements({"h": np.ones((2, 2)), "g": np.ones((2, 4)), "eps": np.ones(3)}, known=False)
    moved, ranges = (
        ["u.{l}.b: c[4:] <-> h: l c", "e: x <-> eps: x[:2]"],
        ["u.{l}.b: x[:4] -> drop", "<-> eps: x[2:] = 0"],
    )
    lines = Table.parse("\n".join(["table 1", *moved, *ranges])).lines
    like = {name: rights.shapes[name] for name in ("h", "eps")}
    table = table_of(lines, ("torch", "jax"), {}, lefts.shapes, like, {})
    found = np.array([0, 5, 6, 11, 12, 1, 2, 3, 4, 7, 8, 9, 10, 13, 14, 0])
    written = Written(table, found, np.zeros_like(found), rights, {} if whole else {"g": "cause"}, [], [], [])
    rows = [] if whole else [Unmatched("right", "add", ("eps",), "")]
    left = list(map(str, without_unknown(written, lefts, None, rows).lines))
    assert left == [*moved, *ranges] if whole else left == moved


def test_files_that_exist_are_replaced_only_with_force_and_nothing_is_run_before(tmp_path: Path):
    (tmp_path / "two.py").write_text("def build():\n    raise ValueError('boom')\n")
    side, out, page = f"{tmp_path}/two.py:build", tmp_path / "my.table", tmp_path / "my.html"
    out.write_text("table 1\n# mine\n")
    page.write_text("<!doctype html>")
    for place in ({"out": str(out)}, {"out": None, "report": str(page)}):
        with pytest.raises(ConvertError, match=r"exists already \(.*force"):
            run(side, side, as_json=False, **place)
        with pytest.raises(ConvertError, match=r"two.py:2 in build: ValueError: boom"):
            run(side, side, as_json=False, force=True, **place)
    assert out.read_text() == "table 1\n# mine\n" and page.read_text() == "<!doctype html>"


@pytest.mark.parametrize("other", [X[:1], np.zeros_like(X)])
def test_different_inputs_are_refused_before_anything_is_derived(other: Any):
    needs("torch")
    with pytest.raises(UsageError, match="the two sides give different inputs"):
        parity.derive(_net(), _net(), (X,), (other,))


@pytest.mark.parametrize("other", [(TOKENS * 5 + 1) % 9, TOKENS[:, :3]], ids=["other tokens", "fewer tokens"])
def test_different_tokens_are_refused_before_anything_is_derived(other: Any):
    needs("torch")
    with pytest.raises(UsageError, match="the two sides give different inputs"):
        parity.derive(_net(), _net(), (TOKENS,), (other,))


def test_inputs_in_another_order_or_precision_are_the_same():
    needs("torch")
    from parity.derive.trace.inputs import check_inputs

    check_inputs({"0": X}, {"0": X.transpose(0, 2, 3, 1).astype(np.float32)})
    check_inputs({"0": X}, {"0": np.zeros((2, 3), int)})
    check_inputs({"0": TOKENS}, {"0": TOKENS.T.astype(np.int32) + 3})  # behind three special tokens
    check_inputs({"0": X, "1": np.ones(3)}, {"0": X, "1": np.zeros(3)})
    mask = np.tri(5)
    check_inputs({"0": TOKENS, "1": mask}, {"0": TOKENS, "1": np.where(mask > 0, 0, -1e9)})  # one mask, written twice


def test_a_term_of_a_sum_is_no_place_where_models_part():
    none, proof = np.zeros(1, int), Proof(error=1e-6, exact=1e-6, gradient=None)
    steps = [Step(kind, (f"{kind}.x",), (f"{kind}.y",), "", "", 2.0, 0, 1) for kind in ("add", "mul")]
    assert [place.left for place in divergences(Match(none, none, steps), proof, False)] == ["mul"]
    assert not divergences(Match(none, none, steps), Proof(error=1e-15, exact=1e-15, gradient=None), True)


def test_models_that_lack_a_line_for_an_unread_parameter_alone_part_nowhere():
    """One multiplies by gain before it multiplies by 3, so that its partner is taken though values differ."""
    needs("torch")
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self, unread: str, first: bool):
            super().__init__()
            self.up, self.down, self.first = torch.nn.Linear(5, 5), torch.nn.Linear(5, 3), first
            self.gain = torch.nn.Parameter(torch.rand(5))
            setattr(self, unread, torch.nn.Parameter(torch.rand(2, 4)))

        def forward(self, x: Any) -> Any:
            x = self.up(x).tanh()
            return self.down((self.gain * 3 * x if self.first else x * 3 * self.gain).tanh())

    found = parity.derive(Scaled("table", True), Scaled("other", False), (np.random.default_rng(0).random((3, 5)),))
    assert found.missing == ["other"] and found.left_over == ["table"] and found.exact < 1e-12, str(found)
    assert not (found.divergences or found.doubtful or found.inferred), str(found)


def test_names_without_a_partner_are_folded():
    reasons = {f"layer.{k}.bias": "no evidence" for k in range(3)}
    assert missing_lines(reasons) == ["layer.{0..2}.bias: no evidence"]
    alone = {f"layer.{k}.gate": f"the right multiplies by layer.{k}.gate" for k in range(3)}
    assert missing_lines(alone) == ["layer.{0..2}.gate: the right multiplies by layer.{0..2}.gate"]
    gates = {name: f"{why}, the left does not" for name, why in alone.items()}
    assert missing_lines(gates) == ["layer.{0..2}.gate: the right multiplies by it, the left does not"]
    found = replace(DERIVED, reasons={name: OneSided(why, "mul", 1) for name, why in gates.items()}, divergences=[])
    assert found.lacking == missing_lines(gates) and "`<-> layer.{i}.gate: a = 1`" in found.following
    assert "multiplies by it" in page_of(found, {}).partition("</article>")[0]
    assert missing_lines({"a.0": "as a.1", "a.1": "as a.0"}) == ["a.0: as a.1", "a.1: as a.0"]


@pytest.mark.parametrize(("use", "value"), [("mul", 1), ("add", 0)])
def test_parameters_of_the_right_model_alone_are_said_once_with_the_line_that_sets_them(use: str, value: int):
    gates = "layer.0.gate", "layer.1.gate"
    why = "the right model alone has layer.{0..1}.gate"
    place = Divergence("fc", "down", 0.4, why, kind="missing parameter", whole=True, rest=1e-16)
    lacking = dict.fromkeys(gates, OneSided(why, use, 2))
    found = replace(DERIVED, divergences=[place], proven=False, reasons=lacking)
    assert found.lacking == ["layer.{0..1}.gate"] and f"`<-> layer.{{i}}.gate: a b = {value}`" in found.following
    page = page_of(found, {})
    assert "Right parameters without a partner" not in page and len(re.findall("the right model alone has", page)) == 1
    assert re.search("<dt>missing</dt><dd>.*gate", page)
    for places, where in (([place, Divergence("out", "out", 0.1)], "at the place that runs first"),
                          ([place._replace(what="", kind="")], "there")):  # fmt: skip
        assert replace(found, divergences=places).following.startswith(f"make both models compute the same {where}")


def test_a_branch_with_parameters_that_the_other_model_has_too_is_not_left_out():
    """Two blocks of four are halved: without the first one's branch, later blocks meet what earlier ones met."""
    needs("torch")
    import torch

    class Blocks(torch.nn.Module):
        def __init__(self, scales: Sequence[float]) -> None:
            super().__init__()
            self.scales = scales
            self.n = torch.nn.ModuleList(torch.nn.LayerNorm(6) for _ in scales)
            self.fc = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in scales)

        def forward(self, x: Any) -> Any:
            for scale, norm, fc in zip(self.scales, self.n, self.fc, strict=True):
                branch = torch.tanh(fc(norm(x)))
                x = x + (branch if scale == 1 else branch * scale)
            return x

    x = np.random.default_rng(0).standard_normal((4, 6))
    found = parity.derive(Blocks((0.5, 1, 0.5, 1)), Blocks((1, 1, 1, 1)), (x,))
    assert [str(line) for line in found.table.lines] == [
        f"{name}.{{i}}.{leaf}: {axes} <-> {name}.{{i}}.{leaf}: {axes}"
        for name, leaf, axes in (("n", "weight", "c"), ("n", "bias", "c"), ("fc", "weight", "o i"), ("fc", "bias", "c"))
    ]
    assert "two factors" in str(found)


@pytest.mark.parametrize("parted", [False, True])
def test_a_partner_that_was_one_of_several_is_marked_where_no_outputs_confirm_it(parted: bool):
    """Query, key and value read the same values; behind them one model has another width."""
    needs("torch")
    import torch

    class Attention(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.q, self.k, self.v = (torch.nn.Linear(4, 4, False) for _ in range(3))
            self.out = torch.nn.Linear(4, width)

        def forward(self, x: Any) -> Any:
            return self.out(((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)).exp())

    x = np.random.default_rng(0).standard_normal((2, 5, 4))
    found = parity.derive(Attention(3), Attention(5 if parted else 3), (x,))
    marked = "# one of several left parameters or row orders that fit was chosen, and no outputs confirm the choice: "
    assert (f"{marked}q.weight, k.weight, v.weight\n" in found.table.print()) == parted
    assert (marked in found.table.print()) == parted
    assert bool(found.missing) == parted


def deep(depth: int, dropout: float = 0.0) -> Any:
    import torch

    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(depth))
            self.out = torch.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = x + block(x).tanh()
            return self.out(torch.nn.functional.dropout(x, dropout, training=True))

    return Deep()


def test_another_depth_is_all_that_is_to_be_mended():
    needs("torch")
    found = parity.derive(deep(2), deep(3), (np.random.default_rng(0).standard_normal((4, 6)),))
    assert found.depths and found.following == "build both models with the same number of blocks; then derive again"


def test_random_outputs_part_nowhere():
    needs("torch")
    found = parity.derive(deep(2, 0.5), deep(2), (np.random.default_rng(0).standard_normal((4, 6)),))
    assert not found.proven and "set dropout that is active in evaluation" in found.outputs
    assert (found.divergences, found.following) == ([], "")


def test_a_step_of_a_scan_is_named_by_its_parameter():
    assert sites.place("[0]", ("layers/attn/out/kernel",)) == "layers/attn/out"
    assert sites.place("[1]", ("layers/attn/out/kernel",)) == "layers/attn/out (step 1)"
    assert sites.module_of("[1]", ("layers/attn/out/kernel",)) == ("layers", "attn", "out")


def test_a_module_in_a_scan_has_the_path_of_its_checkpoint():
    assert sites.place("Net[0]/norm", ("params/norm/scale",)) == "Net/norm"
    assert sites.place("Net[0]/rows[2]/norm", ()) == "Net/rows/norm (step 0, 2)"
    assert sites.module_of("Net[1]/norm", ()) == ("Net", "norm")
    assert sites.shown_once(["Net[0]/norm", "Net[1]/norm", "Net[1]/up"]) == ["Net/norm", "Net/up (step 1)"]
    assert sites.is_inside("Net/norm (step 1)", "Net (step 1)") and not sites.is_inside("Net/norm (step 1)", "Net")
    assert not sites.is_inside("Net/norms", "Net/norm")


class Classes(NamedTuple):
    """Sizes of a model that is derived against `deep(2)`."""

    depth: int
    classes: int


@pytest.mark.parametrize("size", [Classes(3, 3), Classes(2, 4)], ids=["depth", "classes"])
def test_models_of_other_depths_or_classes_are_matched_no_further(size: Classes, monkeypatch: Any):
    """No edit makes them equal: the search for one would take its whole time, and name partners that are none."""
    needs("torch")
    import torch

    monkeypatch.setattr(deriving, "_completed", lambda *given: pytest.fail("searched on"))
    right = deep(size.depth)
    right.out = torch.nn.Linear(6, size.classes)
    found = parity.derive(deep(2), right, (np.random.default_rng(0).standard_normal((4, 6)),))
    text = str(found)
    assert f"{'depths' if size.depth == 3 else 'sizes'} differ: " in text and "stopped at" not in text
    if size.depth == 3:
        assert "missing: " not in text and set(found.reasons.values()) == {"the depths differ"}


def test_inputs_in_another_order_are_named_where_outputs_show_it():
    needs("torch")
    import torch

    class Both(torch.nn.Module):
        def __init__(self, order: int) -> None:
            super().__init__()
            self.order, self.one, self.two = order, torch.nn.Linear(4, 6), torch.nn.Linear(4, 6)

        def forward(self, first: Any, second: Any) -> Any:
            source, target = (first, second)[:: self.order]
            return (self.one(target) @ self.two(source).mT).softmax(-1) @ torch.tanh(self.two(source))

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2, 7, 4)), rng.standard_normal((2, 5, 4))
    found = parity.derive(Both(1), Both(-1), inputs)
    how = "outputs are as long as input 2 on the left, (2, 5, 6), as input 1 on the right, (2, 7, 6)"
    assert not found.proven and f"inputs seem to be in another order: {how}" in str(found)
    assert "in the right model's order; then derive again" in str(found)
    assert parity.derive(Both(1), Both(-1), inputs, right_inputs=inputs[::-1]).proven


def test_a_convolution_without_a_partner_is_named_with_the_patches_that_it_reads():
    needs("torch")
    import torch

    def net(*between: Any) -> Any:
        first, last = torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 5, 3)
        return torch.nn.Sequential(first, torch.nn.Tanh(), *between, last, torch.nn.Flatten())

    right = net(torch.nn.Conv2d(6, 6, 3, padding=2), torch.nn.Tanh())  # of another shape: no layer to leave out
    found = parity.derive(net(), right, (np.random.default_rng(0).standard_normal((4, 3, 9, 9)),))
    assert found.stop is not None and found.stop.before.startswith("padding, stride, dilation, groups")
    assert found.stop.why == (
        "no operation on the left reads the patches of the input of its convolution at 2, of shape [4, 6, 11, 11], "
        "padding included (parameter of shape [6, 6, 3, 3])"
    )


def test_a_line_that_is_doubtful_is_no_matrix_in_an_unusual_order():
    """The partner of mix is wrong, as no left parameter is one: how its axes stand says nothing."""
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, mixes: bool) -> None:
            super().__init__()
            self.f, self.g = torch.nn.Linear(12, 12), torch.nn.Linear(12, 12)
            self.mix = torch.nn.Parameter(torch.randn(12, 12)) if mixes else None

        def forward(self, x: Any) -> Any:
            y = self.f(x)
            return x + self.g((y.tanh().flip(1) if self.mix is None else (y @ self.mix.softmax(0)).tanh()).cumsum(1))

    def net(mixes: bool) -> Any:
        return torch.nn.Sequential(torch.nn.Linear(6, 12), Block(mixes), Block(mixes), torch.nn.Linear(12, 4))

    found = parity.derive(net(False), net(True), (np.random.default_rng(0).standard_normal((2, 5, 6)),))
    assert "1.mix" in found.doubtful and not found.transposed
    read = "reads the input of its product at 2, of shape [2, 5, 12] (parameter of shape [12, 12])"
    assert found.stop is not None and found.stop.why == f"no operation on the left {read}"
    page = page_of(found, {})
    assert "<dt>worst difference</dt><dd>" in page and '<dt>cause</dt><dd class="key">none was confirmed' in page


def test_a_complete_table_says_from_where_on_its_lines_follow_names():
    import torch

    class Net(torch.nn.Module):
        def __init__(self, scales: bool):
            super().__init__()
            self.a, self.b, self.scales = torch.nn.Linear(8, 7), torch.nn.Linear(7, 5), scales

        def forward(self, x: Any) -> Any:
            x = torch.tanh(self.a(x))
            return self.b.bias * (x @ self.b.weight.mT) if self.scales else self.b(x)

    found = parity.derive(Net(False), Net(True), (np.random.default_rng(0).standard_normal((3, 4, 8)),))
    text = str(found)
    assert found.verdict == "complete" and "lines from b.bias on follow names, not values: no operation" in text, text
    assert "stopped at" not in text and "compare before it" not in text, text
    assert "outputs part by " in text and "next: compare what both models compute before their outputs: " in text, text


def test_a_table_that_is_not_proven_says_why_until_it_is_derived_anew():
    import torch

    class Net(torch.nn.Module):
        def __init__(self, eps: float):
            super().__init__()
            self.norm, self.out = torch.nn.LayerNorm(8, eps), torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            return self.out(self.norm(x))

    x = np.random.default_rng(0).standard_normal((3, 4, 8))
    found = parity.derive(Net(0.1), Net(0.2), x)
    above = found.table.lines[0].above
    assert above[0].startswith("# derived, not proven: outputs differ by ") and above[1].startswith(
        "# why: the models part at norm <-> norm by "
    )
    assert above[1].endswith(f": {found.divergences[0].cause}")
    again = parity.derive(Net(0.1), Net(0.1), x, table=found.table)
    assert again.proven and not re.search("not proven|# why:", str(again.table)) and not again.why


def test_inputs_with_nan_are_refused():
    """NaN is equal to nothing: no use would have a partner, and padding or strides would be blamed."""
    needs("torch")
    some = np.where(np.arange(24).reshape(4, 6) < 3, np.nan, 1.0)
    for given, where in ((some, "in 3 of its 24 places"), (np.full((4, 6), np.nan), "everywhere")):
        with pytest.raises(UsageError, match=rf"^input 1 of shape \[4, 6\] is NaN {where}: give inputs that are num"):
            parity.derive(deep(2), deep(2), (given,))


def test_linen_parameters_without_their_collection_are_named():
    needs("flax")
    from flax import linen

    x = np.random.default_rng(0).standard_normal((4, 6))
    for module, names in ((linen.Dense(3), "bias and kernel"), (linen.Sequential([linen.Dense(3)]), "layers_0")):
        variables = initial(module, x)
        said = f"the left model gets variables without 'params', but with {names}: return (module, variables) as"
        with pytest.raises(UsageError, match=re.escape(said)):
            parity.derive((module, variables["params"]), (module, variables), (x,))
        assert parity.derive((module, variables), (module, variables), (x,)).proven


def test_where_a_product_agrees_the_sum_behind_it_is_to_be_compared(monkeypatch: pytest.MonkeyPatch):
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, of_norm: bool):
            super().__init__()
            self.of_norm, self.norm = of_norm, torch.nn.LayerNorm(6)
            self.up, self.down, self.head = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6), torch.nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            h = self.norm(x)
            return self.head((h if self.of_norm else x) + self.down(self.up(h).tanh()))

    monkeypatch.setattr(explanation, "CAUSE_WORK", 0)  # no cause is tried
    found = parity.derive(Block(False), Block(True), (np.random.default_rng(0).standard_normal((4, 6)),))
    assert (place := found.divergences[0]).right == "down" and place.behind and place.late and not place.cause
    said = "compare the sums behind the products of down <-> down, which agree: which values"
    assert found.following.startswith(said)
