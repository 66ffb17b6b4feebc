"""Run the command line, `python -m parity`, thin; everything heavier is imported where it is used."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable

from convert.errors import called
from convert.running import Arguments, Version, add_quiet, add_settings, add_spec, guarded
from parity.results.tolerance import CHECKS
from specs.kinds import DTYPES, FRAMEWORKS

EXAMPLES = """examples:
  {0} ARCH                         its tiny twins, random weights
  {0} ARCH:VARIANT --check layers  a variant at full size
  {0} my --spec my.py              an architecture of yours
  {0} ckpt.pt --report out.html    a checkpoint
  {0} ARCH --dtype float32 bfloat16 --frameworks flax torch

--json prints strict JSON: a number that is not finite is null.
Exit status: 0 all that could run agrees, 1 something differs or nothing could
be compared; 2 wrong usage, as a file that is missing; 130 interrupted."""


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    """Make a type for argparse that accepts the known names and suggests the nearest for any other."""

    def check(name: str) -> str:
        if name in known:
            return name
        from specs.words import FAR, hint

        if "," in name and set(name.split(",")) <= set(known):
            raise argparse.ArgumentTypeError(f"{name!r}: separate them by spaces, as in {name.replace(',', ' ')}")
        raise argparse.ArgumentTypeError(
            f"invalid choice: {name!r}{hint(name, known, FAR)} (choose from {', '.join(known)})"
        )

    return check


def parser() -> argparse.ArgumentParser:
    flags = Arguments(
        "parity",
        "TARGET... [options]",
        description="Run the same model in several frameworks and compare: outputs, every layer,\ngradients, training. "
        "This needs two frameworks; `convert ROUTE FILE --prove`\nruns with one, too.",
        epilog=EXAMPLES.format(called("parity")),
    )
    _add_runs(flags)
    _add_models(flags)
    _add_output(flags)
    flags.add_argument("--version", action=Version)
    return flags


def _add_runs(flags: Arguments) -> None:
    """Add what is compared, and how."""
    flags.add_argument("targets", nargs="+", metavar="TARGET", help="ARCH, ARCH:VARIANT or a checkpoint")
    flags.add_argument(
        "--frameworks", nargs="+", type=_one_of(FRAMEWORKS), metavar="NAME", default=list(FRAMEWORKS),
        help=f"which to compare: {', '.join(FRAMEWORKS)}",
    )  # fmt: skip
    flags.add_argument(
        "--dtype", nargs="+", type=_one_of(DTYPES), metavar="DTYPE", default=["float64"],
        help=f"what to compute in: {', '.join(DTYPES)}",
    )  # fmt: skip
    flags.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu also compares GPU with CPU")
    flags.add_argument(
        "--check", nargs="+", type=_one_of(CHECKS), metavar="CHECK", default=[c for c in CHECKS if c != "single-step"],
        help=f"{', '.join(CHECKS)}; single-step: each layer on the reference's input; default: all others",
    )  # fmt: skip


def _add_models(flags: Arguments) -> None:
    """Add what says of a model what its name or its file does not."""
    add_spec(flags)
    flags.add_argument(
        "--src", metavar="DIALECT", help="dialect of the checkpoints, if the names of their arrays do not tell"
    )
    flags.add_argument("--step", type=int, metavar="N", help="step of a training run's folder (default: newest)")
    flags.add_argument("--weights", metavar="PART", help="part of checkpoints, e.g. state_dict_ema; / is the root")
    add_settings(flags)


def _add_output(flags: Arguments) -> None:
    """Add what is printed and written, and the sizes of a run."""
    flags.add_argument("--report", metavar="FILE", help="write one self-contained HTML page")
    flags.add_argument("--force", action="store_true", help="replace an existing file at --report")
    flags.add_argument("--json", action="store_true", help="print the rows as JSON")
    add_quiet(flags)
    flags.add_argument(
        "--isolate",
        action="store_true",
        help="run each framework in a process of its own: if one crashes, the others go on (always on gpu)",
    )
    flags.add_argument("--batch", type=int, default=2, metavar="N", help="images (default 2)")
    flags.add_argument("--steps", type=int, default=10, metavar="N", help="of training (default 10)")
    flags.add_argument("--seed", type=int, default=0, metavar="N", help="of images and random weights (default 0)")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("parity", lambda: _run(argv), argv)


def _run(argv: list[str]) -> int:
    flags = parser()
    arguments = flags.parse_args(argv)
    for name in ("frameworks", "dtype", "check"):
        setattr(arguments, name, list(dict.fromkeys(getattr(arguments, name))))
    if min(arguments.batch, arguments.steps) < 1:
        flags.error("--batch and --steps are 1 or more")
    if arguments.seed < 0:
        flags.error(f"--seed is 0 or more, not {arguments.seed}")
    arguments.isolate |= arguments.device == "gpu"
    arguments.command = shlex.join([*flags.prog.split(), *argv])
    from .comparing import suite

    return suite.finish(suite.run(arguments), arguments)


if __name__ == "__main__":
    sys.exit(main())
