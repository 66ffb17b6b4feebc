"""Translate checkpoints between frameworks and dialects: `python -m convert`, or in Python

    plan = convert.plan("weights.npz", src="google", dst="torch")
    convert.write(plan, "out.safetensors")

The rooms, in an order in which each imports only those before it:

    files           reads and writes each format
    arrays          fills, casts and computes the arrays of a target
    records         the record that travels with a converted file
    reading         what a file holds
    config          the Config of its model
    plans, table    the plan of a conversion: of a known architecture, or by a Table
    optimizer       converts the state of an optimizer
    diff            compares two checkpoints
    inspection      describes one
    command_line    runs the commands; only __main__ imports it

A conversion, once it is planned:

    targets         names the files of a target, and checks that each may be written
    replacing       decides what --force removes
    execute         writes the target

Pages of architectures:

    pages           loads them
    examples        gives an example of each array of an architecture
    dialect_lines   reads names and shapes of a dialect's arrays in our terms
    dialect_faults  checks the tables of dialects on these examples

Beside the commands:

    running         calls a command and returns its exit code
    errors          defines the errors, and the exit codes 1 and 2
    terminal        wraps and colours lines, and tells a warning from a note
    progress        shows how far a command is
    folding         folds names of arrays that differ in a number alone
    documents       returns the path of a documentation page
    version         the version of Triptych, and its packages
    installed       lists the versions of the frameworks
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .execute import write
    from .optimizer.plan import with_optimizer
    from .plans.plan import Plan
    from .plans.planning import plan

__all__ = ["Plan", "__version__", "plan", "with_optimizer", "write"]
_HOMES = {"Plan": "plans.plan", "plan": "plans.planning", "with_optimizer": "optimizer.plan", "write": "execute"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line starts without numpy and hashing."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
