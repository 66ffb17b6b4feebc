"""Translate checkpoints between frameworks and dialects: `python -m convert`, or in Python

    plan = convert.plan("weights.npz", src="google", dst="torch")
    convert.write(plan, "out.safetensors")

Two rooms: files/ reads and writes each format, optimizer/ converts the state of an optimizer. The other modules, in the
order in which a conversion goes through them:

    command line      __main__ and parsers; running calls a command and returns its exit code (errors define 1 and 2,
                      running those of signals); conversion is the command that converts, by one_file each of its
                      files, commands has all others; routes, source_paths, pages; for people: outcome, dry_run,
                      progress, folding, documents; terminal wraps and colours, and tells a warning from a note;
                      version, versions
    what a file is    recognise; readings takes the weights: nesting ranks places (live ones before averages, which
                      named_copies finds), spelling reads names; choosing tries dialects on shapes, on examples;
                      replicas, parametrized, refusal
    its Config        configure sorts values into known, assumed and open, from settings (the user's), inference
                      (shapes), module_settings (of pickled modules), record and variants; conventions, pixels;
                      open_fields is the error where nobody states a value
    the plan          planning builds plans.Plan, which says what it assumes, and decides whether that is accepted; its
                      steps: by_dialect, dialect_faults, counters, aside, nnx, masters
    a Table's plan    by_table builds table_plan.TablePlan; table_file, table_part, table_fit, table_like; table_lengths
                      reads --set h=12
    the target        targets checks its place, replacing what --force removes; execute writes it: payload, casting,
                      dtypes; verification
    the record        new_record builds it, execute writes it, record reads it, record_fit compares the file with it;
                      altered, where a file no longer fits it
    inspect and diff  inspection, inspection_text, counting; diff, diff_plans, diff_arrays, array_differences,
                      plain_values, diff_text, strangers
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .execute import write
    from .planning import plan
    from .plans import Plan

__all__ = ["Plan", "__version__", "plan", "write"]
_HOMES = {"Plan": "plans", "plan": "planning", "write": "execute"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line starts without numpy and hashing."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
