"""Texts, names and commands of the report's page: where they may be broken into lines."""

from __future__ import annotations

import re
from html import unescape

import pytest

from parity.page.markup import coded, command, name, prose, with_commands
from parity.report import Report

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
