"""Define what each command of `python -m convert` takes. Imports next to nothing, so that --help answers at once.

COMMANDS lists the commands; above it each has a function that adds its arguments.
"""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable
from typing import NamedTuple

from convert.documents import document
from convert.errors import called
from convert.running import Arguments, Version, add_quiet, add_settings, add_spec


class Command(NamedTuple):
    """One command.

    Args:
      usage: its words.
      about: what it does, in one line for the list of all commands.
      example: the words of an example after `python -m convert`.
      add: adds its arguments to a parser.
      more: what its help says after its options.
    """

    usage: str
    about: str
    example: str
    add: Callable[[ArgumentParser], None]
    more: str = ""


ROUTE, TABLE = "SRC2DST", "--table"  # the two forms that convert: any word with a 2 in it is a route


def parser(command: str) -> ArgumentParser:
    """Return the parser of one command; "" is for what all of them share."""
    if not command:
        return _overview()
    name = command if command in COMMANDS else ROUTE
    chosen = COMMANDS[name]
    words = "convert" if name == TABLE else f"convert {command}"
    example = f"example:\n  {called('convert')} {chosen.example}"
    usage = chosen.usage if name == TABLE else chosen.usage.partition(" ")[2]
    about = f"{chosen.about[0].upper()}{chosen.about[1:]}."
    flags = Arguments(words, usage, description=about, epilog="\n\n".join(filter(None, (chosen.more, example))))
    flags.set_defaults(command=name, table=None, prove=False, config=None, quiet=False, spec=[])
    if name != TABLE:
        flags.add_argument("command", help=SUPPRESS)
    chosen.add(flags)
    flags.add_argument("--json", action="store_true", help="machine-readable output")
    return flags


def _overview() -> ArgumentParser:
    """Return the parser of --help and --version; it lists the commands."""
    shown = {command.usage.partition("[")[0]: command.about for command in COMMANDS.values()}
    rows = "\n".join(f"  {words:22}{about}" for words, about in shown.items())
    prog = called("convert")
    flags = Arguments(
        "convert", "COMMAND ... [options]", description="Translate checkpoints between frameworks and dialects.",
        epilog=f"commands:\n{rows}\n\n{prog} COMMAND --help lists the options of one\n\n{EXAMPLES.format(prog)}",
    )  # fmt: skip
    flags.add_argument("command", metavar="COMMAND", help=SUPPRESS)
    flags.add_argument("--version", action=Version)
    return flags


EXAMPLES = """examples:
  {0} inspect B_16.npz
  {0} google2torch B_16.npz --prove      -> B_16.safetensors
  {0} torch2flax tuned.pt -o tuned.msgpack
  {0} diff B_16.npz B_16.safetensors
  {0} --table my.table my.pt -o my.npz

--json prints strict JSON: a number that is not finite is null. Where it prints
an error, that is one line on standard error, and standard output is empty.
Exit status: 0 done; 1 differs, damaged, not proven, or a checkpoint is refused;
2 wrong usage, as a file that is missing or exists already; 130 interrupted."""


def _add_inspect_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="CKPT", help="a checkpoint, or a folder that is one")
    parser.add_argument("--hash", action="store_true", help="also the file's sha256, which reads all of it")
    parser.add_argument(
        "--table", metavar="FILE", help="say which line of this Table reads which arrays, and how long its axes are"
    )
    parser.add_argument("--reverse", action="store_true", help="with --table: the file is of its right side")
    add_settings(parser, "KEY=VALUE", "one Config field, or with --table AXIS=LENGTH; may be repeated", assume="")
    _add_weights(parser)
    add_spec(parser)
    add_quiet(parser)


def _add_diff_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a checkpoint, in any format and dialect")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument(
        "--step", type=int, metavar="N", action="append", default=[],
        help="step of a training run's folder (default: newest); given twice: of A, then of B",
    )  # fmt: skip
    parser.add_argument("--rtol", type=float, default=0.0, help="relative difference to tolerate (default: none)")
    parser.add_argument(
        "--atol", type=float, default=0.0, help="absolute difference to tolerate, whatever --rtol says (default: none)"
    )
    parser.add_argument(
        "--weights", metavar="PART", action="append", default=[],
        help="part of both files, e.g. state_dict_ema; / is all that they store; given twice: of A, then of B",
    )  # fmt: skip
    parser.add_argument(
        "--table", metavar="FILE", help="compare across a Table, or a record with one: A is its left side"
    )
    parser.add_argument("--reverse", action="store_true", help="with --table: A is its right side")
    add_settings(parser, "KEY=VALUE", "one Config field, or with --table AXIS=LENGTH; may be repeated", ASSUME_ALIKE)
    add_spec(parser)
    add_quiet(parser)


def _add_verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="files that were written with a record")
    _add_step(parser)
    add_spec(parser)
    add_quiet(parser)


def _add_derive_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("left", metavar="LEFT", help="file.py:function that returns (model, inputs); it is run")
    parser.add_argument("right", metavar="RIGHT", help="the same for the other model; inputs may be left out")
    parser.add_argument("-o", "--out", help="where to save the table (default: print it)")
    parser.add_argument("--table", metavar="FILE", help="lines that are known: taken as given, and completed")
    parser.add_argument("--left-weights", metavar="CKPT", help="derive on these weights instead of random ones")
    parser.add_argument("--report", metavar="FILE", help="write one self-contained HTML page")
    parser.add_argument("--force", action="store_true", help="replace existing files at -o and --report")
    add_quiet(parser, ", and the Table if neither -o nor --report has it")


def _add_routes_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("architectures", nargs="*", metavar="ARCH", help="which to list (default: all)")
    add_spec(parser)


ASSUME_ALIKE = "accept that both files agree in each setting that changes the outputs and that nothing states of either"


def _add_step(parser: ArgumentParser) -> None:
    parser.add_argument("--step", type=int, metavar="N", help="which step of a training run's folder (default: newest)")


def _add_weights(parser: ArgumentParser) -> None:
    _add_step(parser)
    parser.add_argument(
        "--weights", metavar="PART", help="which part of a training checkpoint, e.g. state_dict_ema; / is its root"
    )


def _add_route_arguments(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument(
        "--unreplicate", action="store_true", help="take one of the equal replicas that pmap leaves in every array"
    )
    parser.add_argument("--layout", choices=["nnx"], help="name a flax target's arrays as nnx does: for nnx.update")
    parser.add_argument(
        "--image", metavar="SIZE", help="record that images of this size go in, as in 384 or 384x512; arrays stay"
    )
    parser.add_argument(
        "--prove", action="store_true", help="run source and target in float64 and print the error, with --quiet too"
    )
    parser.add_argument(
        "--like",
        metavar="FILE",
        help="to paddle or with --with-optimizer: a new model's weights, saved by its framework",
    )
    add_spec(parser)
    _add_conversion_arguments(parser)


def _add_table_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--table", metavar="FILE", required=True, help="the arrays' translation, or a record with one")
    parser.add_argument("--reverse", action="store_true", help="from the table's right side to its left")
    parser.add_argument("--like", metavar="FILE", help="a checkpoint with the target's names and shapes")
    parser.add_argument(
        "--unreplicate", action="store_true", help="take one of the equal replicas that pmap leaves in every array"
    )
    parser.add_argument(
        "--set", metavar="AXIS=LENGTH", action="append", default=[], help="length of an axis; may be repeated"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="with --with-optimizer: a checkpoint whose record states hyperparameters"
    )
    parser.add_argument("--prove", action="store_true", help=SUPPRESS)  # refused with a reason, as is --layout
    parser.add_argument("--layout", help=SUPPRESS)
    _add_conversion_arguments(parser)


def _add_conversion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="CKPT", help="checkpoints, or folders of them")
    parser.add_argument("-o", "--out", help="target file; a folder for several sources (default: beside the source)")
    parser.add_argument("--dtype", help="float64, float32, bfloat16 or float16 (default: as the source)")
    parser.add_argument(
        "--lossy", action="store_true", help="accept values that --dtype makes infinite, and many that it makes zero"
    )
    _add_weights(parser)
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        help="split into shards of this size, as in 5GB, which OUT.index.json lists",
    )
    parser.add_argument(
        "--with-optimizer", action="store_true", help="also the state of SGD with momentum, Adam or AdamW"
    )
    parser.add_argument("--optimizer", metavar="FILE", help="file of the optimizer's state, if CKPT lacks it")
    parser.add_argument(
        "--hyper", metavar="KEY=VALUE", action="append", default=[],
        help="what CKPT does not say of the optimizer; may be repeated; KEY is kind (sgd, adam or adamw), lr, beta1, "
        "beta2, eps, weight_decay, momentum, nesterov, step or averaged",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="neither hash nor read back what was written"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing target")
    add_quiet(parser)


SUFFIXES = """The suffix of OUT picks its format: .safetensors, flax's .msgpack .flax, .npz,
torch's .pt .pth .ckpt .bin, paddle's .pdparams .pd (.pdopt: the optimizer
alone), or a folder, .orbax or .dcp."""


DIFFERS = """Exit status 0 says "the same model". Where the arrays are the same and a file
leaves open what changes the outputs (an activation), it is 1 and the verdict
"the same arrays; equal only if act agrees": --set act=... states it for the
files that do not, --assume accepts that they agree. Where the code of a file's
dialect fixes what the file does not state (timm's GELU), that value is taken;
--set states another for it too."""


def is_route(word: str) -> bool:
    """Tell whether a word is spelled as a route is, with a 2 between two names; a path may have a 2, too."""
    return "2" in word and {"/", "."}.isdisjoint(word)


COMMANDS = {
    ROUTE: Command(
        f"{ROUTE} CKPT... [-o OUT] [options]", "convert by a route, as in google2torch",
        "google2torch B_16.npz --prove", _add_route_arguments, SUFFIXES,
    ),
    TABLE: Command(
        "--table FILE CKPT... [-o OUT] [options]", "convert any model by a Table of its arrays",
        "--table bert.table bert.safetensors -o bert.msgpack", _add_table_arguments,
        f"{document('table')} describes Tables.\n{SUFFIXES}",
    ),
    "inspect": Command("inspect CKPT [options]", "describe a checkpoint", "inspect B_16.npz", _add_inspect_arguments),
    "diff": Command(
        "diff A B [options]", "compare two checkpoints", "diff B_16.npz B_16.safetensors", _add_diff_arguments, DIFFERS,
    ),
    "verify": Command(
        "verify FILE... [options]", "compare written files with their records", "verify B_16.safetensors",
        _add_verify_arguments,
    ),
    "derive": Command(
        "derive LEFT RIGHT [-o OUT] [options]", "find the Table between two models",
        "derive left.py:build right.py:build -o my.table", _add_derive_arguments,
        f"{document('own-model')} shows the way from two models to a converted file.",
    ),
    "routes": Command(
        "routes [ARCH...] [options]", "list the architectures and their dialects", "routes",
        _add_routes_arguments,
    ),
}  # fmt: skip
