"""State on a page what its comparisons do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parity.given.own import OWN
from parity.given.quoting import unmarked
from parity.results.result import Result
from parity.summaries import findings, summary
from specs.words import in_a_row

from .limit_notes import coarse
from .markup import Markup, prose, tag

# derive compares each use of a parameter; layers compares modules.
BETWEEN = [
    "layers compares outputs of modules: what a model computes between two of them shows in the output of the second."
]


def caveats(results: Sequence[Result], about: Mapping[str, str]) -> Markup:
    """Build the section; nothing where nothing was compared.

    Args:
      about: what was run, by label.
    """
    compared = [r for r in results if r.curve]
    return section(_sentences(compared, about)) if compared else Markup()


def section(sentences: Sequence[str]) -> Markup:
    """Build the section of a page that says what it does not show."""
    rows = tag("ul", *(tag("li", prose(text)) for text in sentences))
    return tag("section", tag("h2", "What this does not show"), rows, class_="caveats")


def _sentences(compared: Sequence[Result], about: Mapping[str, str]) -> list[str]:
    devices = in_a_row(dict.fromkeys(r.device for r in compared))
    inputs = f"were {about['inputs']}" if "inputs" in about else "are one batch"
    if {"batch", "seed"} <= {*about}:
        inputs = f"were {about['batch']} of seed {about['seed'].partition(' ')[0]}"
    wrong = "Equal models may all be wrong"
    if all(r.architecture != OWN for r in compared):
        wrong += ". The tests of Triptych compare its own architectures with recorded outputs of the original code"
    named = [r for r in compared if r.architecture != OWN]
    small = ["The models named tiny are small: the published sizes were not run."]
    where = "Where no file is named, the weights are" if any(r.files for r in named) else "The weights are"
    random = [
        f"{where} random: no checkpoint was run." if "seed" in about else f"{where} those of the models in memory."
    ]
    assumed = unmarked(summary.assumptions(compared)).partition(": ")[2]
    suggested = in_a_row(dict.fromkeys(text for r in compared for text in r.suggested))
    return [
        f"Only this was compared: {findings.checks(compared)}, on {devices}.",
        *(BETWEEN if any(r.check in ("layers", "single-step") and r.architecture == OWN for r in compared) else []),
        *(small if any(r.variant.startswith("tiny") for r in named) else []),
        *(random if any(not r.files for r in named) else []),
        f"The inputs {inputs}: code that they do not reach is not tested.",
        *(
            f"In {dtype}, differences below {share} of the largest value of an array do not show."
            for dtype, share in coarse(compared).items()
        ),
        "A parameter that changes nothing, such as a head of zeros, is not tested.",
        *([f"{wrong}."] if any(r.passed for r in compared) else []),
        *([f"No file states {suggested}. All models compute with it, right or wrong."] if suggested else []),
        *([f"Assumed, not known: {assumed}. All models compute with it, right or wrong."] if assumed else []),
    ]
