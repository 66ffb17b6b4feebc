"""Run models in any framework, dtype and device, compare them tap by tap, and name the first that differs.

    report = parity.compare({"torch": a, "flax": b}, images, check="layers")
    report.passed, report.first_divergence, report.to_html()

Derive the translation of one model's checkpoints into another's, and prove it.

    d = parity.derive(torch_module, nnx_module, (images,))
    d.table.save("my.table"); d.proven, d.error, d.missing
    right = parity.transfer(left, right, (images,))      # the same, and the right model gets the left's weights

Importing this imports no framework. derive/ finds Tables, page/ writes the report as HTML; the other modules:

    what is compared   targets (of the command line; several of them), own (a user's models), module_names,
                       paired_names, paired_arrays, usage, random_images, goldens
    running            suite runs all, comparison two or three models; job one framework in this process, processes each
                       in one of its own; recording what it does, hub under shared names; archive stores that
    judging            judge, by agreement and verdicts (which measures the rounding of each framework), with remarks;
                       elements, tolerance, masks (of dropout); unequal_weights (of models that a Table pairs); result
    why they differ    causes guesses what differs, by recomputing activations, epsilons and orders, which hypotheses
                       lists; guesses says it of several pairs; training_settings reads momenta and rates of dropout;
                       next_steps says what to do about them
    what users see     report: report_text, summary, findings, naming, quoting (of names in sentences), row_limit,
                       provenance
    on their own       conversion_proof (`convert --prove`), demo (`make demo`), __main__ (the command line)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ports.runners.inputs import Inputs

    from .comparison import compare
    from .derive import Call, Derivation, derive
    from .derive.transfer import transfer
    from .report import Report
    from .result import Result

__all__ = ["Call", "Derivation", "Inputs", "Report", "Result", "compare", "derive", "transfer"]
_HOMES = {
    "Call": "parity.derive",
    "Derivation": "parity.derive",
    "derive": "parity.derive",
    "transfer": "parity.derive.transfer",
    "Inputs": "ports.runners.inputs",
    "Report": "parity.report",
    "Result": "parity.result",
    "compare": "parity.comparison",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ImportError:
            from triptych import hidden

            if hidden():
                raise ImportError(hidden()) from None
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
