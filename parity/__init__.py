"""Run models in any framework, dtype and device, compare them tap by tap, and name the first that differs.

    report = parity.compare({"torch": a, "flax": b}, images, check="layers")
    report.passed, report.first_divergence, report.to_html()

Derive the translation of one model's checkpoints into another's, and prove it.

    d = parity.derive(torch_module, nnx_module, (images,))
    d.table.save("my.table"); d.proven, d.error, d.missing
    right = parity.transfer(left, right, (images,))      # the same, and the right model gets the left's weights

Importing this imports no framework. The rooms, in an order in which each imports only those before it:

    given      reads and checks what is compared: models of a command line or of a user, their names and inputs
    results    what a comparison returns: differences of arrays, their limits, names
    running    runs models, each framework in one process, and records what they compute
    causes     guesses why recorded arrays of a comparison differ, and says what to do about it
    judging    finds the first array that differs, by the rounding of each framework
    summaries  writes results as sentences and as text
    page       writes them as HTML
    derive     finds the Table between two models; its own rooms edits and explain find why these differ
    comparing  compares two or three models, or all that a command line names

What stands in no room: report, the Report of a run; goldens, checkpoints with recorded outputs; conversion_proof
(`convert --prove`); demo (`make demo`); __main__ is the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ports.runners.inputs import Inputs

    from .comparing.comparison import compare
    from .derive import Call, Derivation, derive
    from .derive.transfer import transfer
    from .report import Report
    from .results.result import Result

__all__ = ["Call", "Derivation", "Inputs", "Report", "Result", "compare", "derive", "transfer"]
_HOMES = {
    "Call": "parity.derive",
    "Derivation": "parity.derive",
    "derive": "parity.derive",
    "transfer": "parity.derive.transfer",
    "Inputs": "ports.runners.inputs",
    "Report": "parity.report",
    "Result": "parity.results.result",
    "compare": "parity.comparing.comparison",
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
