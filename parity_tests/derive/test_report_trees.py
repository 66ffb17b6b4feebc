"""The table of both module trees: rows, marks, and which uses part the models."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import pytest

import parity
from parity.derive import Divergence
from parity.derive.match.advice import Stop
from parity.derive.match.choices import Step
from parity.derive.missing.unmatched import Unmatched
from parity.derive.report import page as page_of
from parity.derive.report.tree import relative
from parity.derive.report.trees import Rated
from parity.derive.trace.reason import OneSided
from parity.derive.trace.sites import OWN, module_of

from ..conftest import needs
from .pairs import initial
from .test_report import DERIVED, USES, rows


def marked(page: str) -> list[str]:
    """The parameters on the left of whose rows the difference has the mark of a place that parts the models."""
    body = page[page.index("modules trees") :].partition("</table>")[0]
    return re.findall(r'<tr class="first"[^>]*><td[^>]*title="([^"]*)"', body)


def test_both_trees_stand_side_by_side_with_the_difference_of_every_use():
    assert rows(page_of(DERIVED, {})) == [
        ["blocks", "Net", "", "✗ 3.0e-5"],
        ["0", "Net/layer_0", "", "1.0e-16"],
        ["fc", "Net/layer_0", "", "1.0e-16"],
        ["weight", "layer_0/w", "matrix or kernel", "1.0e-16"],
        ["1", "Net/layer_1", "", "✗ 3.0e-5"],
        ["fc", "Net/layer_1", "", "✗ 3.0e-5"],
        ["weight", "layer_1/w", "matrix or kernel", "✗ 3.0e-5"],
    ]
    marked = re.findall(r'<tr class="([^"]*)"', page_of(DERIVED, {}))
    assert marked == ["module first", "module", "module", "module first", "module first", "first"]


def test_modules_have_a_heading_and_each_row_a_cell_that_names_it():
    page = page_of(DERIVED, {})
    body = (
        page.partition("<h2>Modules and parameters side by side</h2>")[2]
        .partition("<tbody>")[2]
        .partition("</tbody>")[0]
    )
    assert body.count('<td role="rowheader"') == body.count("<tr") == len(rows(page))


def test_modules_that_are_alike_share_a_row_and_one_that_differs_has_its_own():
    def use(k: int, gap: float) -> Step:
        return Step(
            "product", (f"blocks.{k}.fc.weight",), (f"layer_{k}/w",), f"blocks.{k}.fc", f"Net/layer_{k}", gap, 0, 1
        )

    gaps = [1e-16, 3e-16, 2e-16, 1e-5, 0.0, 0.0]
    unmatched = [Unmatched("right", "add", (f"head_{k}/bias",), "") for k in range(9)]
    found = replace(
        DERIVED, uses=[use(k, gap) for k, gap in enumerate(gaps)], unmatched=unmatched,
        divergences=[Divergence("blocks.3.fc", "Net/layer_3", 1e-5)], stop=Stop(("head_2/bias",), "no values"),
    )  # fmt: skip
    page = page_of(found, {})
    assert rows(page) == [
        ["blocks", "Net", "", "✗ 1.0e-5"],
        ["{0..2}", "Net/layer_{0..2}", "", "3.0e-16"],
        ["fc", "Net/layer_{0..2}", "", "3.0e-16"],
        ["weight", "layer_{0..2}/w", "matrix or kernel", "3.0e-16"],
        *(
            row
            for k, gap in ((3, "✗ 1.0e-5"), (4, "0"), (5, "0"))
            for row in (
                [str(k), f"Net/layer_{k}", "", gap],
                ["fc", f"Net/layer_{k}", "", gap],
                ["weight", f"layer_{k}/w", "matrix or kernel", gap],
            )
        ),
        ["none", "head_{0..8}/bias", "term", "-"],
    ]
    assert "{0..3}</span></dt>" in page and "{0..3}</span></dt>" not in page_of(DERIVED, {})
    for head, address, row in (
        ("Values part", "place-0", '<tr class="first" id="place-0"'),
        ("Stopped at head_2/bias", "stopped", '<tr class="lone" id="stopped"'),
    ):
        assert (
            f'<h3>{escape(head)} <a href="#{address}" class="leads">→ its row</a></h3>' in page and page.count(row) == 1
        )


@pytest.mark.parametrize("site, names, module", [
    ("blocks.0.fc", ("x.weight",), ("blocks", "0", "fc")), ("", ("layers/0/kernel",), ("layers", "0")),
    ("", ("a.q.weight", "a.k.weight"), ("a", "q")), ("", ("scale",), ()),
])  # fmt: skip
def test_a_use_without_a_module_stands_at_its_parameters_place(
    site: str, names: tuple[str, ...], module: tuple[str, ...]
):
    assert module_of(site, names) == module


@pytest.mark.parametrize("site, name, text", [
    ("layers.0.self_attn", "layers.0.self_attn.out_proj.weight", "out_proj.weight"), ("", "a.weight", "weight"),
    ("Net/enc/norm", "params/enc/norm/scale", "scale"), ("Net", "params/scale", "params/scale"), ("", "scale", "scale"),
    ("head", "embed.weight", "embed.weight"), ("layers.1", "layers.10.weight", "layers.10.weight"),
])  # fmt: skip
def test_a_parameter_has_the_name_that_follows_on_its_modules_path(site: str, name: str, text: str):
    assert relative(site, (name,)) == (text,)


def test_a_container_has_no_partner_that_contains_more_than_it():
    sides = ("down.0", "Net/encoder_0"), ("down.1", "Net/encoder_1"), ("up.0", "Net/decoder")
    uses = [Step("product", (f"{a}.w",), (f"{b}/w",), a, b, 0.0, 0, 1) for a, b in sides]
    heads = [row[:2] for row in rows(page_of(replace(DERIVED, uses=uses, divergences=[]), {})) if row[0] != "w"]
    decoder = ["up", "Net/decoder"], ["0", "Net/decoder"]
    assert heads == [["down", ""], ["0", "Net/encoder_0"], ["1", "Net/encoder_1"], *decoder]


def test_every_row_has_the_number_of_its_use_and_none_that_of_a_card():
    found = replace(DERIVED, divergences=[Divergence("blocks.1.fc", "Net/layer_1", 4e-4)])
    page = page_of(found, {})
    assert [row[-1] for row in rows(page)[-3:]] == ["✗ 3.0e-5"] * 3
    assert ">mean difference</th>" in page and "<dt>worst difference</dt>" in page
    assert found.to_dict()["uses"][-1]["difference"] == 3e-5 and "a card the worst of them" in " ".join(page.split())


def test_uses_after_the_place_where_the_models_part_are_said_to_follow():
    gaps = 1e-16, 1e-3, 2e-5, 0.0
    uses = [Step("product", (f"l{k}.w",), (f"r{k}.w",), f"l{k}", f"r{k}", gap, 0, 1) for k, gap in enumerate(gaps)]
    found = replace(DERIVED, uses=uses, divergences=[Divergence("l1", "r1", 1e-3)])
    page = page_of(found, {})
    assert [row[-1] for row in rows(page)[1::2]] == ["1.0e-16", "✗ 1.0e-3", "follows 2.0e-5", "0"]
    assert re.findall('<dt><span class="([a-z ]+)">', page) == ["first", "follows", "soft use"]
    assert [row[-1] for row in rows(page_of(replace(found, divergences=[]), {}))[3::2]] == [
        "✗ 1.0e-3",
        "✗ 2.0e-5",
        "0",
    ]  # without a place that parts the models, nothing is known to follow


def two_blocks(*gaps: tuple[str, str, float]) -> list[Step]:
    """Uses in two blocks that are alike: (kind, module, difference)."""
    return [
        Step(kind, (f"b.{k}.{at}.{kind}",), (f"r{k}/{at}/{kind}",), f"b.{k}.{at}", f"r{k}/{at}", gap, 0, 1)
        for k in range(2)
        for kind, at, gap in gaps
    ]


@pytest.mark.parametrize(("side", "places"), [("left", ("b.0", "b.1")), ("right", ("r0/down", "r1/down"))])
def test_every_place_that_a_card_lists_is_marked(side: str, places: tuple[str, str]):
    uses = two_blocks(("product", "up", 0.0), ("product", "down", 1e-4), ("add", "down", 0.0))
    first = Divergence("b.0.down", "r0/down", 1e-4, "GELU", changed=side, places=places, times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[first]), {})
    assert marked(page) == ["b.0.down.product", "b.1.down.product"] and ">follows<" not in page
    alone = page_of(replace(DERIVED, uses=uses, divergences=[first._replace(places=places[:1])]), {})
    assert marked(alone) == ["b.0.down.product"] and ">follows<" in alone


def test_a_use_that_one_before_it_explains_is_no_place_of_a_card():
    uses = two_blocks(("product", "up", 1e-4), ("product", "down", 1e-4))
    first = Divergence("b.0.up", "r0/up", 1e-4, "GELU", changed="left", places=("b.0", "b.1"), times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[first]), {})
    assert marked(page) == ["b.0.up.product", "b.1.up.product"] and page.count(">follows<") >= 2


def test_a_counted_place_is_marked_though_the_use_before_it_differs_too():
    """An epsilon ahead of an activation in each of two blocks: both causes have all of their places marked."""
    uses = two_blocks(("mul", "norm", 1e-6), ("product", "up", 1e-6), ("product", "down", 1e-4))
    norm = Divergence("b.0.norm", "r0/norm", 1e-6, "epsilon", changed="left", places=("b.0.norm", "b.1.norm"), times=2)
    gelu = Divergence("b.0.down", "r0/down", 1e-4, "GELU", changed="left", places=("b.0", "b.1"), times=2)
    page = page_of(replace(DERIVED, uses=uses, divergences=[norm, gelu]), {})
    assert marked(page) == [f"b.{k}.{use}" for k in range(2) for use in ("norm.mul", "down.product")]


def test_a_module_has_the_largest_number_of_its_rows_that_part_the_models():
    uses = two_blocks(("mul", "norm", 0.2), ("product", "up", 0.9))
    found = replace(DERIVED, uses=uses, divergences=[Divergence("b.0.norm", "r0/norm", 0.2)])
    assert {row[-1] for row in rows(page_of(found, {})) if row[-1].startswith("✗")} == {"✗ 0.20"}


def test_what_the_right_model_multiplies_by_alone_is_red_and_its_card_leads_to_it():
    reasons: dict[str, str] = {"gate": OneSided("the right multiplies by gate, the left does not", "mul")}
    found = replace(DERIVED, reasons=reasons, unmatched=[Unmatched("right", "", ("gate",), "")], proven=False)
    page = page_of(found, {})
    (row,) = re.findall('<tr class="first">.*?</tr>', page)
    assert 'id="alone-0"' in row
    assert re.findall("<td[^>]*>(.*?)</td>", re.sub("</?(?:code|b)[^>]*>", "", row)) == [
        "none",
        "gate",
        "factor",
        "✗ one side",
    ]
    assert re.search(r'the left does not <a href="#alone-0"[^>]*>→ its row</a>', page) and f"in {OWN}" not in page
    assert "<h3>Right parameter without a partner</h3>" in page
    assert '"first">✗ one side</span></dt><dd>only the right model computes' in page
    assert '<dt><span class="">none</span></dt><dd>no partner on this side' in page
    assert "the models differ here" not in page_of(replace(found, divergences=[], uses=[]), {})


def test_what_has_no_partner_is_listed_as_it_runs_and_leads_to_the_first_row():
    """And not by the alphabet: the last layer may be "classes"."""
    names = ("params/classes/bias", "params/classes/kernel", "params/neck/kernel")
    unmatched = [Unmatched("right", "product", (name,), "") for name in reversed(names)]
    found = replace(DERIVED, reasons=dict.fromkeys(names, "no evidence"), unmatched=unmatched, proven=False)
    page = page_of(found, {})
    assert re.search(r'no evidence <a href="#alone-0"[^>]*>→ the first row</a>', page)
    (row,) = re.findall(r'<tr[^>]*>(?:(?!</tr>).)*id="alone-0".*?</tr>', page)
    assert "neck" in row
    listed = page.partition("Right parameters without a partner")[2].partition("</dl>")[0]
    assert listed.index("neck") < listed.index("classes")


@pytest.mark.parametrize(
    ("extra", "uses"),
    [
        ("branch", {"side.weight": "matrix or kernel", "side.bias": "term"}),
        ("affine", {"scale": "factor", "shift": "term"}),
        ("function", {"angle": "operand"}),
    ],
)
def test_a_row_says_how_the_right_model_uses_what_it_alone_has(extra: str, uses: dict[str, str]):
    """The use is that of each parameter: one reason speaks of all that an edit leaves out, as of a whole branch."""
    needs("torch")
    import torch

    class Net(torch.nn.Module):
        def __init__(self, extra: str) -> None:
            super().__init__()
            self.down, self.up, self.extra = torch.nn.Linear(6, 6), torch.nn.Linear(6, 5), extra
            if extra == "branch":
                self.side = torch.nn.Linear(6, 6)
            for name in uses if extra in ("affine", "function") else ():
                self.register_parameter(name, torch.nn.Parameter(torch.rand(6)))

        def forward(self, x: Any) -> Any:
            y = self.down(x.tanh())
            if self.extra == "branch":
                y = y + self.side(x.tanh())
            if self.extra == "affine":
                y = y * self.scale + self.shift
            if self.extra == "function":
                y = y + torch.atan2(x, self.angle)
            return self.up(y.tanh())

    found = parity.derive(Net(""), Net(extra), (np.random.default_rng(0).standard_normal((4, 6)),))
    shown = [row for row in rows(page_of(found, {})) if row[0] == "none"]
    assert {name: (use, difference) for _, name, use, difference in shown} == {
        name: (use, "✗ one side") for name, use in uses.items()
    }
    matched = f"4 of {4 + len(uses)} uses of parameters matched, all 4 agree to 1e-8"
    assert not found.proven and matched in str(found)


def test_what_the_right_model_has_alone_stands_where_it_runs_and_is_listed_so():
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(6, 9), torch.nn.Linear(9, 6)
            self.scale = torch.nn.Parameter(torch.rand(9)) if more else 1

        def forward(self, x: Any) -> Any:
            return x + self.down(self.scale * self.up(x).tanh())

    class Net(torch.nn.Module):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.z, self.a = (torch.nn.Parameter(torch.rand(6)) if more else 1 for _ in range(2))
            self.blocks, self.head = torch.nn.ModuleList(Block(more) for _ in range(3)), torch.nn.Linear(6, 5)

        def forward(self, x: Any) -> Any:
            x = self.z * x
            for block in self.blocks:
                x = block(x)
            return self.head(self.a * x.tanh())

    found = parity.derive(Net(False), Net(True), (np.random.default_rng(0).standard_normal((4, 6)),))
    assert list(found.reasons) == ["z", "blocks.0.scale", "blocks.1.scale", "blocks.2.scale", "a"]
    shown = [row[1] if row[0] == "none" else row[0] for row in rows(page_of(found, {}))]
    up, down = ["up", "weight", "bias"], ["down", "weight", "bias"]
    assert shown == ["z", "blocks", "{0..2}", *up, "blocks.{0..2}.scale", *down, "a", "head", "weight", "bias"]


def test_a_card_leads_to_the_row_of_its_place_that_differs():
    uses = [
        Step(kind, (f"l.{kind}",), (f"r/{kind}",), "l", "r", gap, 0, 1)
        for kind, gap in (("product", 0.0), ("add", 1e-3))
    ]
    page = page_of(replace(DERIVED, uses=uses, divergences=[Divergence("l", "r", 1e-3)]), {})
    assert re.findall(r'id="place-0"[^>]*><td[^>]*title="([^"]*)"', page) == ["l.add"] and 'href="#place-0"' in page
    uses.insert(0, Step("place", ("e.w",), ("emb/w",), "l", "r", 0.5, 0, 1))  # whose row is none of the module's
    page = page_of(replace(DERIVED, uses=uses, divergences=[Divergence("l", "r", 0.5)]), {})
    assert '<a href="#place-0" class="leads">→ the row of e.w</a>' in page


def test_the_legend_explains_the_uses_that_occur():
    legend = page_of(DERIVED, {}).partition("<h2>Modules and parameters side by side</h2>")[2].partition("<table")[0]
    assert "multiplied with it as a matrix" in legend and "the values are added to it" not in legend


def test_red_is_only_what_exceeds_its_limit_and_nothing_of_a_proof():
    within, beyond = Divergence(OWN, OWN, 5e-10, "lower precision"), Divergence("blocks.1.fc", "Net/layer_1", 3e-5)
    for found, kinds in (
        (replace(DERIVED, divergences=[within, beyond]), ["card within", "card"]),
        (replace(DERIVED, divergences=[within, beyond], proven=True), ["card within", "card near"]),
        (replace(DERIVED, divergences=[within._replace(size=5e-9)]), ["card"]),  # outputs have a limit of their own
    ):
        assert re.findall('<article class="(.*?)">', page_of(found, {})) == kinds
    proven = page_of(replace(DERIVED, divergences=[beyond], proven=True), {})
    assert [row[-1] for row in rows(proven)][-3:] == ["! 3.0e-5"] * 3 and 'class="module noted"' in proven


def test_what_is_read_as_it_is_stands_at_its_own_name_and_not_where_it_shows():
    table = Step("place", ("embed.weight",), ("tokens/w",), "blocks.0.norm", "Net/layer_0", 0.0, 0, 1)
    assert rows(page_of(replace(DERIVED, uses=[table, *USES]), {}))[:3] == [
        ["embed", "tokens", "", "0"], ["weight", "tokens/w", "read as it is", "0"], ["blocks", "Net", "", "✗ 3.0e-5"],
    ]  # fmt: skip
    found = replace(DERIVED, proven=False, uses=[table, *USES])
    assert len(found.compared) == 1 + len(USES)
    assert found.agreeing == 1 + replace(found, chosen=["tokens/w"]).agreeing  # where several fit, it shows nothing


def test_every_place_of_a_cause_is_marked():
    """One epsilon in three blocks: the card lists three places, and none of them only follows."""
    needs("torch")
    import torch

    class Block(torch.nn.Module):
        def __init__(self, epsilon: float) -> None:
            super().__init__()
            self.norm, self.fc = torch.nn.LayerNorm(6, eps=epsilon), torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            return x + self.fc(self.norm(x)).tanh()

    left, right = (torch.nn.Sequential(*(Block(epsilon) for _ in range(3))) for epsilon in (1e-5, 1e-3))
    found = parity.derive(left, right, (np.random.default_rng(0).standard_normal((4, 6)),))
    assert found.divergences[0].places == ("0.norm", "1.norm", "2.norm")
    rated = Rated(found)
    norms = [use for use in found.compared if "norm" in use.left[0] and use.gap > 1e-8]  # the limit of uses
    assert len(norms) >= 3 and {rated.rate([use]) for use in norms} == {"first"}
    assert "follows" in {rated.rate([use]) for use in found.compared}


def test_a_card_names_the_classes_of_both_modules():
    torch, linen = pytest.importorskip("torch"), pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(3, name="head")(linen.relu(linen.Dense(5, name="up")(x)))

    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    left = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 3))
    found = parity.derive(left, (Net(), initial(Net(), x)), (x,))
    text = re.sub("<[^>]*>", " ", page_of(found, {}).replace("<wbr>", ""))
    assert re.search(r"module\s+2\s+Net/head\s+class\s+Linear\s+Dense\s+last that agrees", text), found
    assert found.classes[0]["0"] == "Linear" and found.classes[1]["Net"] == "Net"


@pytest.mark.parametrize(("framework", "path"), [("flax.nnx", "layers/0"), ("paddle", "0")])
def test_classes_are_known_by_the_paths_of_modules(framework: str, path: str):
    module, torch = pytest.importorskip(framework), pytest.importorskip("torch")
    if framework == "paddle":
        model: Any = module.nn.Sequential(module.nn.Linear(6, 5), module.nn.ReLU())
    else:
        model = module.Sequential(module.Linear(6, 5, rngs=module.Rngs(0)), module.relu)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    found = parity.derive(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU()), model, (x,))
    assert found.proven and found.classes[1][path] == "Linear"
    assert {use.modules[1] for use in found.compared} == {path}


def test_parameters_of_which_no_use_was_matched_are_named_below_the_rows():
    """They have a line that follows a pattern, and would be missed among the rows."""
    found = replace(DERIVED, inferred=["Net/layer_2/w", USES[0].right[0]])
    text = re.sub(r"<[^>]+>", "", page_of(found, {}).replace("<wbr>", ""))
    assert "Without a row, as no use of them was matched: Net/layer_2/w." in text
    assert "Without a row" not in page_of(DERIVED, {})
