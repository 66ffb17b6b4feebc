"""The command line: `python -m convert`. Thin, so that --help answers at once; the work is in commands.py."""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import signal
import sys

from .program import Arguments, guarded

USAGE = """python -m convert SRC2DST CKPT... [-o OUT] [options]
       python -m convert --table FILE CKPT... [--reverse] [--like FILE] [--set AXIS=LENGTH] [-o OUT] [options]
       python -m convert inspect CKPT [--weights PART] [--json] [--hash]
       python -m convert diff A B [--weights PART [--weights PART_OF_B]] [--set KEY=VALUE] [--table FILE] [--json]
       python -m convert verify FILE [--json]
       python -m convert derive LEFT.py:FUNCTION RIGHT.py:FUNCTION [-o OUT.table] [--table START] [--json]
       python -m convert routes [--json]"""

EXAMPLES = """examples:
  python -m convert google2torch B_16.npz                -> B_16.safetensors
  python -m convert torch2flax B_16.safetensors --prove  -> B_16.msgpack, both run in float64 and compared
  python -m convert timm2paddle weights.pth -o out.pdparams --dry-run
  python -m convert --table bert.table bert.safetensors -o bert.msgpack    any model, by a table of its arrays

The suffix of OUT picks its format: .safetensors .msgpack .npz .pt .pth .pdparams, or the folders .orbax and .dcp.
--spec my.py adds an architecture of yours to every command (docs/own-architecture.md).
diff exits with 0 for "the same model". Where the arrays are the same and a file leaves open what changes the outputs
(an activation), it exits with 1 for "the same arrays; equal only if act agrees": --set act=... states it for the files
that do not, --assume accepts it.
--json prints strict JSON: a number that is not finite is null. Where it prints an error, that is one line on
standard error, and nothing is printed on standard output.
Exit status: 0 done, 1 differs or refused, 2 wrong usage, 130 interrupted."""


COMMANDS = ("inspect", "diff", "verify", "derive", "routes")
VALUED = (
    "-o",
    "--out",
    "--config",
    "--set",
    "--dtype",
    "--weights",
    "--shard-size",
    "--rtol",
    "--layout",
    "--step",
    "--table",
    "--left-weights",
    "--like",
    "--spec",
    "--optimizer",
    "--hyper",
)  # take a value


class Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, asked without shutil, whose import takes longer than all else here."""

    def __init__(self, prog: str):
        try:
            columns = os.get_terminal_size().columns
        except OSError:  # no terminal
            columns = 120
        super().__init__(prog, width=columns - 2)


def parser(command: str) -> argparse.ArgumentParser:
    """The arguments of one command; any word with a 2 in it is a route, and "--table" is a conversion by a Table."""
    parser = Arguments(
        prog="python -m convert", usage=USAGE, description="Translate checkpoints between frameworks and dialects.",
        epilog=EXAMPLES, formatter_class=Formatter,
    )  # fmt: skip
    if command == TABLE:
        parser.set_defaults(command=TABLE, prove=False, config=None)
    else:
        parser.add_argument(
            "command", metavar="SRC2DST", help="a route, as in google2torch; or inspect, diff, verify, derive, routes"
        )
        parser.set_defaults(table=None)
    if command in ("inspect", "verify"):
        parser.add_argument("file", metavar="CKPT")
    elif command == "diff":
        parser.add_argument("files", nargs=2, metavar="CKPT")
        parser.add_argument(
            "--table", metavar="FILE", help="compare across a Table (docs/table.md): A is its left side"
        )
        parser.add_argument("--reverse", action="store_true", help="with --table: A is its right side")
        _add_settings(parser)
    elif command == "derive":
        parser.add_argument("left", metavar="LEFT", help="file.py:function that returns (model, inputs); it is run")
        parser.add_argument("right", metavar="RIGHT", help="the same for the other model; inputs may be left out")
        parser.add_argument("-o", "--out", help="where to save the table (default: print it)")
        parser.add_argument("--table", metavar="FILE", help="lines that are known: taken as given, and completed")
        parser.add_argument("--left-weights", metavar="CKPT", help="derive on these weights instead of random ones")
    elif command == TABLE:
        _add_table_arguments(parser)
    elif command != "routes":
        _add_route_arguments(parser)
    if command == "inspect":
        parser.add_argument("--hash", action="store_true", help="also the file's sha256, which reads all of it")
        _add_weights(parser)
    if command == "diff":
        parser.add_argument(
            "--weights", metavar="PART", action="append", default=[],
            help="which part of both files, or given twice, of A and of B; / is a file's root",
        )  # fmt: skip
        parser.add_argument("--rtol", type=float, default=0.0, help="relative difference to tolerate (default: none)")
    parser.add_argument(
        "--spec", metavar="PAGE", action="append", default=[],
        help="an architecture of yours: its .py file, or an installed entry point; runs its code (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="Config fields: JSON, YAML, a checkpoint with a record, or the .json beside one",
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one Config field; may be repeated"
    )
    parser.add_argument(
        "--assume", action="store_true", help="accept defaults for what changes the outputs and nobody states"
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", type=int, metavar="N", help="which step of a training run's folder (default: newest)")
    parser.add_argument(
        "--weights", metavar="PART", help="which part of a training checkpoint, e.g. state_dict_ema; / is its root"
    )


def _add_route_arguments(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.add_argument(
        "--unreplicate", action="store_true", help="take one of the equal replicas that pmap leaves in every array"
    )
    parser.add_argument("--layout", choices=["nnx"], help="name a flax target's arrays as nnx does: for nnx.update")
    parser.add_argument("--prove", action="store_true", help="run source and target in float64 and print the error")
    parser.add_argument(
        "--like", metavar="FILE", help="with --with-optimizer: a new target model's weights, saved by its framework"
    )
    _add_conversion_arguments(parser)


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", metavar="FILE", required=True, help="the arrays' translation (docs/table.md)")
    parser.add_argument("--reverse", action="store_true", help="from the table's right side to its left")
    parser.add_argument("--like", metavar="FILE", help="a checkpoint with the target's names and shapes")
    parser.add_argument(
        "--set", metavar="AXIS=LENGTH", action="append", default=[], help="length of an axis; may be repeated"
    )
    _add_conversion_arguments(parser)


def _add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="CKPT", help="checkpoints, or folders of them")
    parser.add_argument("-o", "--out", help="target file; a folder for several sources (default: beside the source)")
    parser.add_argument("--dtype", help="float64, float32, bfloat16 or float16 (default: as the source)")
    parser.add_argument(
        "--lossy", action="store_true", help="accept values that --dtype makes infinite, and many that it makes zero"
    )
    _add_weights(parser)
    parser.add_argument("--shard-size", metavar="SIZE", help="split into shards of this size, as in 5GB")
    parser.add_argument(
        "--with-optimizer", action="store_true", help="also the state of SGD with momentum, Adam or AdamW"
    )
    parser.add_argument("--optimizer", metavar="FILE", help="its own file, where the checkpoint does not contain it")
    parser.add_argument(
        "--hyper", metavar="KEY=VALUE", action="append", default=[], help="a hyperparameter of it; may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="neither hash nor read back what was written"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing target")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("convert", lambda: _run(argv), argv, "interrupted; no partial file was left behind")


def _run(argv: list[str]) -> int:
    arguments = parser(_command(argv)).parse_args(argv)
    from . import commands

    return commands.run(arguments)


TABLE = "--table"


def _command(argv: list[str]) -> str:
    """The first word that is neither an option nor the value of one; --table where that stands for a command."""
    words = iter(argv)
    table = any(word.partition("=")[0] == TABLE for word in argv)
    for word in words:
        if not word.startswith("-"):
            return TABLE if table and word not in COMMANDS else word
        if any(option.startswith(word) for option in VALUED):  # options may be shortened
            next(words, None)
    return TABLE if table else ""


def program() -> int:
    """`main` in a process of its own, which is set up to move bytes and not to calculate."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's others would spin, and nothing here multiplies
    gc.set_threshold(100_000)  # directories are many small objects and no garbage
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # shards are open at once
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names that it cannot spell
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # like Ctrl-C: nothing is left behind
    return main()


if __name__ == "__main__":
    sys.exit(program())
