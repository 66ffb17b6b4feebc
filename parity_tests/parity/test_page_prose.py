"""Texts of the report's page: where they may be broken into lines, what comparisons do not show, and limits of rows."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from parity.page.markup import coded, command, name, prose, with_commands
from parity.report import Report
from parity.results.result import Result

from .pages import row


def test_words_with_a_hyphen_are_not_broken() -> None:
    assert prose("x <- y, python --table 1e-10") == (
        'x <span class="whole">&lt;-</span> y, python <span class="whole">--table</span> '
        '<span class="whole">1e-10</span>'
    )


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("worst error: float64 2.2e-4 (limit 1e-10; a)", ["float64 2.2e-4", "(limit 1e-10;"]),
        ("limits 6e-6 to 7e-6", ["limits 6e-6", "to 7e-6"]),
        ("14 of 17 uses of parameters agree to 1e-8.", ["14 of 17 uses", "to 1e-8."]),
        ("epsilon 1e-5, 3 decades above", ["epsilon 1e-5,", "3 decades"]),
        ("flax at [3, 8] of (4, 4)", ["at [3, 8] of (4, 4)"]),
        ("24 times 4", ["24 times"]),
        ("limit " + "1" * 60, []),  # too long for a line
    ],
)
def test_a_number_is_not_broken_from_its_label_and_unit(text: str, bound: list[str]) -> None:
    assert re.findall('<span class="whole">(.*?)</span>', prose(text)) == bound
    assert re.sub("<[^>]*>", "", prose(text)) == text


def test_a_command_is_broken_between_its_arguments_and_copied_as_it_is() -> None:
    text = "python -m parity 'mlp_mixer:tiny S/16' --check layers -o OUT a/b.npz --quiet"
    assert re.findall("<span>(.*?)</span>", command(text)) == [
        "python -m parity", "&#x27;mlp_mixer:tiny S/16&#x27;", "--check layers", "-o OUT", "a/b.npz", "--quiet",
    ]  # fmt: skip
    assert unescape(re.sub("<[^>]*>", "", command(text))) == text
    assert '<span>--report</span> <span class="long">/a' in command(f"python -m parity x --report {'/a' * 40}.html")
    assert "<span>--report</span> <span>../after/differ.html</span>" in command(
        "triptych parity x --report ../after/differ.html"
    )
    found = with_commands("compare (python -m convert diff a 'b (1)'), or triptych convert x")
    assert [unescape(re.sub("<[^>]*>", "", line)) for line in re.findall("<code.*?</code>", found)] == [
        "python -m convert diff a 'b (1)'", "triptych convert x",
    ]  # fmt: skip
    said = "compare these, too: names={'a': {'b.#': 'c.#'}} pairs both, and names=parity.derive(...) all"
    assert re.sub("</?span>", "", with_commands(unescape(said))).count("<code") == 2
    made = Report([row(("a",))], {"command": text}).to_html()
    assert made.count('<code class="command">') == 2  # beside "What was run", and in it


def test_names_are_broken_behind_separators_but_not_within_braces() -> None:
    assert name("params/layer_{0..2}/attention.kernel") == (
        'params/<wbr><span class="whole">layer_{0..2}/</span><wbr>attention.<wbr>kernel'
    )
    assert name("params/layer_1/norm1/scale") == "params/<wbr>layer_1/<wbr>norm1/<wbr>scale"
    assert name("blocks.1.norm.weight") == "blocks.1.<wbr>norm.<wbr>weight"
    assert name("my_network:tiny relu") == "my_network:<wbr>tiny relu"
    assert name("a_rather_long_name_of_a_module/b").startswith("a_<wbr>rather_<wbr>long_")
    assert name("a{") == "a{" and "<wbr>" not in name("layer_1")
    text = prose("at params/layers/{s=query|key|value}/kernel: i, {i}")
    assert re.sub("<wbr>", "|", text) == (
        'at params/|layers/|<span class="whole">{s=query|key|value}/</span>|kernel: i, <span class="whole">{i}</span>'
    )

    assert prose("params/layer_{0..1}/gate,") == 'params/<wbr><span class="whole">layer_{0..1}/</span><wbr>gate,'


def test_a_name_is_not_parted_from_the_stop_behind_it() -> None:
    assert coded("first at `blocks.0.norm`. More") == (
        'first at <span class="whole"><code>blocks.0.norm</code>.</span> More'
    )
    assert coded(f"at `{'long_name.' * 4}x`.") == f"at <code>{'long_name.<wbr>' * 4}x</code>."


def stated(results: list[Result], **about: str) -> list[str]:
    """The sentences of the section."""
    page = Report(results, about).to_html().partition("<h2>What this does not show</h2>")[2].partition("</section>")[0]
    return [re.sub("<[^>]*>", "", item) for item in re.findall("<li>.*?</li>", page)]


def test_the_page_states_what_was_compared_on_which_inputs_and_what_that_leaves_open() -> None:
    made = [row(("a",)), replace(row(("a",), "float32"), check="train")]
    skipped = replace(row(("a",)), check="gradients", passed=None, error=None, tolerance=None, curve=())
    assert stated([*made, skipped], batch="2 images", seed="7 (images and random weights)") == [
        "Only this was compared: layers in float64; train in float32, on cpu.",
        "The weights are random: no checkpoint was run.",
        "The inputs were 2 images of seed 7: code that they do not reach is not tested.",
        "A parameter that changes nothing, such as a head of zeros, is not tested.",
        "Equal models may all be wrong. The tests of Triptych compare its own architectures with recorded outputs of "
        "the original code.",
    ]


def test_small_models_are_told_from_published_ones_and_random_weights_from_checkpoints() -> None:
    (_, small, random, *_) = stated([replace(row(("a",)), variant="tiny S/32")], seed="0 (images and random weights)")
    assert small == "The models named tiny are small: the published sizes were not run."
    assert random == "The weights are random: no checkpoint was run."
    files = replace(row(("a",)), files=("a.npz",))
    assert stated([files])[1].startswith("The inputs ")
    assert stated([files, row(("a",))])[1].startswith("Where no file is named, the weights are those of the models")


def test_where_nothing_agrees_equal_models_are_no_subject() -> None:
    assert not any("Equal models" in text for text in stated([replace(row(("a",)), passed=False, error=1.0)]))


def test_nothing_is_said_of_original_code_where_the_models_are_the_users() -> None:
    own = stated([replace(row(("a",)), architecture="own")], inputs="[4, 16] float32")
    assert own[-1] == "Equal models may all be wrong."
    assert own[1].startswith("layers compares outputs of modules: what a model computes between two of them")
    assert own[2].startswith("The inputs were [4, 16] float32: ")


def test_limits_that_are_large_are_said_to_hide_differences() -> None:
    coarse = [replace(row(("a",), "bfloat16"), error=1e-3, tolerance=bound) for bound in (0.25, 0.51)]
    coarse = [replace(r, curve=(("norm", 1e-3, 0.59), ("head", 1e-3, 0.02))) for r in coarse]
    assert "In bfloat16, differences below 2% to 59% of the largest value of an array do not show." in stated(coarse)
    assert not any("do not show." in text for text in stated([row(("a",))]))


def test_what_the_code_of_a_dialect_alone_states_is_not_shown_and_is_in_json() -> None:
    made = replace(row(("a",)), suggested=("gelu=tanh (official's own code)",))
    assert "No file states gelu=tanh (official&#x27;s own code). All models compute with it, right or wrong." in stated(
        [made]
    )
    assert made.as_dict()["suggested"] == ["gelu=tanh (official's own code)"] and made.as_dict()["assumed"] == []
    assert not any("No file states" in text for text in stated([row(("a",))]))


def test_what_is_assumed_is_no_finding() -> None:
    (*_, last) = stated([replace(row(("a",)), assumed=("gelu=erf", "norm_eps=1e-6"))])
    assert last == "Assumed, not known: gelu=erf, norm_eps=1e-6. All models compute with it, right or wrong."


def test_a_page_without_a_comparison_has_no_such_section() -> None:
    assert (
        stated([replace(row(("a",)), passed=None, error=None, tolerance=None, curve=(), missing=(("b", "b"),))]) == []
    )


def test_page_and_terminal_state_the_same_limit_of_a_row() -> None:
    """That of most, the smallest of several such; those that have another one state it."""
    near = row(("a",))
    pairs = [replace(near, pair=f"a-{k}", tolerance=limit) for k, limit in enumerate((1e-10, 1e-9, 1e-9))]
    off = [replace(pairs[0], error=5e-10, passed=False), *pairs[1:]]
    for results, stated, own in ((pairs, "1e-9", ["1e-10"]), (pairs[:2], "1e-10", ["1e-9"]), (off, "1e-9", ["1e-10"])):
        made = Report(results)
        (line,) = re.findall("  layers .*", str(made))
        assert line.split()[1] == stated and re.findall("of (\\S+)", line) == own
        table = made.to_html().partition('class="matrix by-pair"')[2].partition("</table>")[0]
        cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", table)]
        assert cells[0] == stated and re.findall("[(]limit (\\S+)[)]", " ".join(cells)) == own
