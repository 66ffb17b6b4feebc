"""Where models first differ: what is named, where it stands, and what to do next."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from parity.given.quoting import place
from parity.judging.judge import Subject, judge
from parity.report import Report
from parity.results.elements import Worst
from parity.results.guesses import Guess, joined
from parity.results.result import Divergence, Result
from parity.running.recording import Recording
from parity.summaries import findings, report_text, summary

from .pages import row
from .slipped import recording, results


def test_a_module_that_some_ports_never_call_is_named_with_those_that_do() -> None:
    labels = ("flax", "torch", "paddle")
    everyone = [replace(recording(label), architecture="convmixer") for label in labels]  # ports of one architecture
    del everyone[1].arrays["blocks.1.norm1"]
    made = judge(Subject("convmixer", "v", "layers", "float64", "cpu"), everyone)
    text = report_text.render(made)
    assert "first at blocks.1.norm1" in " ".join(text.split())
    assert "not called X" in text and "infinite" not in text
    shown = " ".join(text.split())
    assert " cause torch never calls 'blocks.1.norm1'; flax and paddle do: its forward leaves it out, or " in shown
    assert " next let both models call this module" in shown
    assert "feature_maps" not in shown
    assert "  layer before  blocks.0.norm1, error 0" in text.splitlines()


def test_a_module_that_a_port_calls_twice_in_place_of_another_is_one_finding_without_a_limit() -> None:
    """The second call is `norm2#1`; the cause is stated once, and no limit that nothing was held to."""
    made: list[Result] = []
    for variant, depth in (("tiny A", 2), ("tiny B", 1)):
        names = [f"blocks.{k}.{norm}" for k in range(depth) for norm in ("norm1", "norm2")]
        everyone = [replace(recording(label), architecture="convmixer") for label in ("flax", "torch", "paddle")]
        for r in everyone:
            r.arrays = {"stem": r.arrays["output"], **dict.fromkeys(names, r.arrays["output"]), **r.arrays}
            r.arrays = {name: array for name, array in r.arrays.items() if name in ("stem", "output", *names)}
        once = everyone[1].arrays
        twice = {n.replace("norm2", "norm2#1").replace("norm1", "norm2"): array for n, array in once.items()}
        everyone[1].arrays = twice
        made += judge(Subject("convmixer", variant, "layers", "float64", "cpu"), everyone)
    assert {r.first_divergence for r in made if r.passed is False} == {"blocks.0.norm1"}
    text = report_text.render(made)
    shown = " ".join(text.split())
    assert (
        " cause torch never calls 'blocks.{0..1}.norm1'; flax and paddle do: its forward leaves it out, or computes "
        "with the layer's arrays itself; flax calls 'blocks.{0..1}.norm2' once, torch twice ('blocks.0.norm2#1' is "
        "call 2 of one module) " in shown
    )
    assert shown.count("never calls") == 1 and " also in 'tiny B'" in shown
    rows = [line.split() for line in text.splitlines() if line.startswith("  tiny")]
    assert [row[3:5] for row in rows] == [["1e-10", "not"], ["1e-10", "not"]]


def test_a_module_that_is_called_once_more_is_told_from_one_that_is_not_called() -> None:
    everyone = [replace(recording(label), architecture="convmixer") for label in ("flax", "torch")]
    output = everyone[1].arrays.pop("output")
    everyone[1].arrays |= {"blocks.1.norm1#1": output, "output": output}
    shown = " ".join(report_text.render(judge(Subject("convmixer", "v", "layers", "float64", "cpu"), everyone)).split())
    assert " cause flax calls 'blocks.1.norm1' once, torch twice ('blocks.1.norm1#1' is call 2 of one module) " in shown
    assert " next let both models call this module equally often: two modules in one model are two paths in" in shown
    assert "fewer calls X" in shown and "not called" not in shown
    assert "float64 0 (limit 0)" not in shown and "forward leaves it out" not in shown


def test_a_module_that_the_page_lacks_is_named_with_the_ports_that_call_it() -> None:
    kinds = {"stem.conv": "conv", "stages.1.down.conv": "conv"}
    everyone = [
        replace(recording(label), architecture="convmixer", kinds=kinds) for label in ("flax", "torch", "paddle")
    ]
    output = everyone[2].arrays["output"]
    everyone[2].arrays = {"stages.0.down <- 0": output, "stages.0.down": output, **everyone[2].arrays}
    made = judge(Subject("convmixer", "v", "single-step", "float64", "cpu"), everyone)
    shown = " ".join(report_text.render(made).split())
    said = "paddle calls 'stages.0.down', where the page has no layer; flax and torch do not"
    assert f" cause {said}" in shown and "never calls" not in shown
    assert "extra call X" in shown and "not called" not in shown
    assert " next leave this module out, as with None in place of an Identity, or let every port call it" in shown


def test_feature_maps_are_named_where_they_list_a_module_that_is_not_called() -> None:
    a, b = (replace(recording(label), architecture="convmixer") for label in ("flax", "torch"))
    a.arrays = {"stem": a.arrays["output"], "blocks.1": a.arrays["output"], **a.arrays}
    b.arrays = {"stem": b.arrays["output"], **b.arrays}
    shown = " ".join(report_text.render(judge(Subject("convmixer", "v", "layers", "float64", "cpu"), [a, b])).split())
    assert "torch never calls 'blocks.1'; flax does: " in shown
    assert "or feature_maps, which lists it, names what some frameworks alone call" in shown
    assert " next let both models call this module, or take it out of feature_maps" in shown


def test_a_later_array_that_differs_more_is_told_from_the_first() -> None:
    """The table has the error that is the largest share of its limit, the details are of the first that differs."""
    sides = [recording("flax"), recording("torch", 1e-3)]
    sides[1].arrays["output"] = sides[1].arrays["output"] * 2
    (made,) = judge(Subject("mlp_mixer", "tiny S/16", "layers", "float64", "cpu"), sides)
    facts = dict(findings.facts(findings.find([made])[0]))
    assert facts["layer"] == "blocks.1.norm1" and facts["error"].startswith("1.0e-3: a difference of ")
    assert facts["worst here"] == "1.0 at output: beyond its limit by the largest factor"
    lines = report_text.render([made]).splitlines()
    assert "  layer         blocks.1.norm1" in lines  # values stand below each other, also beside a longer label
    assert "  worst here    1.0 at output: beyond its limit by the largest factor" in lines
    page = re.sub("<[^>]*>", "", Report([made]).to_html())
    assert "Error at blocks.1.norm1: 1.0e-3 in float64 (limit 1e-10). Error furthest beyond its limit: 1.0 in" in page
    sides[1].arrays["output"] = sides[0].arrays["output"]
    (made,) = judge(Subject("mlp_mixer", "tiny S/16", "layers", "float64", "cpu"), sides)
    assert "Error at " not in Report([made]).to_html()  # the number would stand twice


def test_each_pair_of_a_divergence_has_its_own_errors() -> None:
    """Of two pairs that part at one array, both errors there and both that are furthest off have their pairs."""
    sides = [recording("flax"), recording("torch", 1e-3), recording("paddle")]
    sides[2].arrays["blocks.1.norm1"] = sides[2].arrays["blocks.1.norm1"] * 1.5
    made = judge(Subject("mlp_mixer", "tiny S/16", "layers", "float64", "cpu"), sides)
    facts = dict(findings.facts(findings.find([r for r in made if r.pair != "torch-paddle"])[0]))
    assert facts["error"].startswith("1.0e-3 in flax-torch: ") and facts["error"].endswith("; 0.50 in flax-paddle")
    assert "worst here" not in facts
    sides[1].arrays["output"] = sides[1].arrays["output"] * 2
    made = judge(Subject("mlp_mixer", "tiny S/16", "layers", "float64", "cpu"), sides)
    facts = dict(findings.facts(findings.find([r for r in made if r.pair != "torch-paddle"])[0]))
    assert facts["worst here"] == (
        "1.0 in flax-torch at output; 0.50 in flax-paddle at blocks.1.norm1: beyond their limits by the largest factor"
    )


def test_of_several_first_divergences_the_one_that_runs_first_is_named() -> None:
    """torch differs from the second array on, paddle from the first: whichever pair comes first."""
    sides = [recording("flax"), recording("torch", 1e-3), recording("paddle", 1e-3)]
    sides[2].arrays["blocks.0.norm1"] = sides[2].arrays["blocks.0.norm1"] * 1.001
    made = judge(Subject("mlp_mixer", "tiny S/16", "layers", "float64", "cpu"), sides)
    assert str(made[0].first_divergence) == "blocks.1.norm1"
    assert summary.verdict(made).startswith("The models differ in all 3 comparisons, first at `blocks.0.norm1` (")
    assert [str(f.result.first_divergence) for f in findings.find(made)] == ["blocks.0.norm1", "blocks.1.norm1"]
    assert Report(made).first_divergence == "blocks.0.norm1"


def test_an_array_of_another_shape_stands_among_the_first_divergences_where_it_runs() -> None:
    sides = [recording(label) for label in "abc"]
    for k, side in enumerate(sides):
        first, last = (side.arrays[n] * (1 + slip) for n, slip in (("blocks.0.norm1", 1e-3 * (k == 2)), ("output", k)))
        side.arrays = {"blocks.0.norm1": first, "stem": np.ones((2, 3 + k)), "output": last}
    made = judge(Subject("own", "own", "layers", "float64", "cpu"), sides)
    assert str(made[0].first_divergence) == "stem"  # of a and b
    assert [str(f.result.first_divergence) for f in findings.find(made)] == ["blocks.0.norm1", "stem"]


def advice(check: str, *agreeing: str, **arrays: float) -> str:
    """The next step where the second of two models has each of the named arrays off by a factor."""
    names = {"gradients": ("loss", "output", "fc.kernel"), "train": ("sgd: losses", "sgd: fc.kernel")}[check]
    sides = [Recording(label, label, "float64", "cpu", {n: np.arange(1.0, 6.0) for n in names}) for label in "ab"]
    for name, slip in arrays.items():
        sides[1].arrays[name.replace("_", ": ")] = np.arange(1.0, 6.0) + np.resize(slip, 5)
    made = judge(Subject("own", "own", check, "float64", "cpu"), sides)
    same = [Recording(label, label, "float64", "cpu", {"output": np.ones(2)}) for label in "ab"]
    for other in agreeing:
        made += judge(Subject("own", "own", other, "float64", "cpu"), same)
    return dict(findings.facts(findings.find(made)[0]))["next"]


def test_what_to_do_depends_on_whether_the_models_return_the_same() -> None:
    """A gradient can be wrong by itself only if loss and output agree; an optimizer only if the first loss does."""
    layers = "what the models return differs already: compare layer by layer first (check layers)"
    late = {"sgd_losses": [0, 0.1, 0.1, 0.1, 0.1]}
    assert advice("gradients", loss=0.1) == advice("gradients", output=0.1) == advice("train", sgd_losses=0.1) == layers
    assert "differs in training mode alone" in advice("gradients", "layers", loss=0.1)
    assert "detached tensor" in advice("gradients", "layers", **{"fc.kernel": 0.1})
    assert "weight decay" in advice("train", **late)


def test_models_that_part_alike_share_a_card_which_leads_to_each() -> None:
    """One fault of the code is found in every variant: the cards differ in numbers alone."""
    made = Report(results(1e-3)).results
    (finding,) = findings.find(made)
    assert [other.result.variant for other in finding.also] == ["tiny B/16"]
    (card,) = re.findall("<article.*?</article>", Report(made).to_html())
    also = re.sub("<(?!/?a|dd|dt)[^>]*>", "", card.partition("<dt>also in</dt>")[2])
    assert also.startswith('<dd><a href="#m1-layers-float64-cpu">tiny B/16</a>: error 1.0e-3')
    sides = [recording("flax"), recording("torch", 1e-3)]
    del sides[0].arrays["blocks.0.norm1"], sides[1].arrays["blocks.0.norm1"]
    sides[1].arrays["blocks.1.norm1"] = sides[0].arrays["blocks.1.norm1"]
    other = judge(Subject("mlp_mixer", "tiny C", "layers", "float64", "cpu"), sides)  # parts at its output
    assert len(findings.find([*made, *other])) == 2


def test_pairs_that_part_at_one_array_say_together_what_each_model_computes() -> None:
    first = Guess.of({"paddle": "epsilon 1e-5", "flax": "epsilon 1e-6"}, 1e-16)
    assert first == "epsilon is 1e-5 in paddle, 1e-6 in flax (recomputing both reproduces their outputs to 1.0e-16)"
    other = Guess.of({"paddle": "epsilon 1e-5", "my torch": "epsilon 1e-6"}, 3e-16)
    both = joined([first, other])
    assert both.partition(" (")[0] == "epsilon is 1e-5 in paddle, 1e-6 in flax and 'my torch'"
    assert both.endswith(" to 3.0e-16)")
    assert joined([first, Guess.of({"paddle": "epsilon 1e-4", "torch": "epsilon 1e-6"}, 0)]) == first
    assert joined([Guess(""), Guess("")]) == ""


def test_an_input_is_called_so() -> None:
    assert place("fc <- 0", ["fc <- 0", "fc"]) == "the input of `fc`" and place("fc") == "`fc`"
    assert place("fc <- 0", ["fc <- 0", "fc <- 1"]) == "input 0 of `fc`"
    sides = [recording("a"), recording("b")]
    for k, side in enumerate(sides):
        side.arrays = {"stem <- 0": np.ones(3), "stem": np.ones(3), "fc <- 0": np.ones(3) + k, "fc": np.ones(3)}
    made = judge(Subject("x", "v", "single-step", "float64", "cpu"), sides)
    assert summary.verdict(made, alone=True) == "a and b differ, first at the input of `fc`."
    facts = dict(findings.facts(findings.find(made)[0]))
    assert facts["layer"] == "the input of fc (fc <- 0)" and facts["layer before"] == "stem, error 0"


def test_the_documentation_has_a_row_for_each_fact_that_is_printed_and_for_no_other() -> None:
    known = {"weights": "a", "guess": "b", "place": "c", "between": (("a", ("m",)), ("b", ("n",)))}
    first = Divergence.at("y", Worst(1e-3, (0,), 1.0, 1.001), 1e-10, ("x", 0.0), **known)
    curve = (("x", 0.0, 1e-10), ("y", 1e-5, 1e-10), ("z", 1.0, 1e-10))
    off = replace(row(()), passed=False, first_divergence=first, error=2e-3, curve=curve)
    off = replace(off, noise={"a": (0.0, 1e-5, 0.0), "b": (0.0, 0.0, 0.0)})
    broken = Divergence.at("y", Worst(np.inf, None, 1.0, 1.0, "shapes differ: (1,), (2,)"), 1e-10)
    every = [off, replace(off, check="train"), replace(row(("x",)), pair="a-c")]
    results = [replace(r, variant=variant) for variant in "vw" for r in every]
    results += [replace(off, architecture="z", check="forward", first_divergence=broken)]
    printed = {label for finding in findings.find(results) for label, _ in findings.facts(finding)} | {"class"}
    docs = (Path(__file__).parents[2] / "docs" / "parity.md").read_text("utf-8")
    rows = docs.partition("| fact | meaning |\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert printed == {label for line in rows for label in re.findall("`(.*?)`", line.split("|")[1])}


def test_the_layer_before_copies_that_differ_says_from_what_it_differs() -> None:
    first = Divergence.at("y", Worst(1e-3, (0,), 1.0, 1.001), 1e-10, ("x", 2e-7))
    off = replace(row(("x", "y"), "float32"), passed=False, first_divergence=first, error=1e-3, copies=("y",))
    (found,) = findings.find([off])
    assert dict(findings.facts(found))["layer before"] == "x, error 2.0e-7, from the float64 copy of a"
    (alike,) = findings.find([replace(off, copies=())])
    assert dict(findings.facts(alike))["layer before"] == "x, error 2.0e-7"
