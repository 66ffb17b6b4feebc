"""Run the installed command: `triptych convert`, `triptych parity` and `triptych ports`, the same as `python -m`.

Python puts the folder of an installed script first on its path, not the current one, as `python -m` does: so a user's
own convert.py, ports.py or parity/ stands in nobody's way.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib.machinery import PathFinder

PARTS = {
    "convert": "translate checkpoints between frameworks and dialects",
    "parity": "run one model in several frameworks and compare",
    "ports": "list architectures, or write the files of a new one",
}
PACKAGES = ("specs", *PARTS)
HOME = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    argv = sys.argv[1:]
    if shadow := _shadow():
        print(f"triptych: {shadow} hides Triptych's own: take its folder out of PYTHONPATH", file=sys.stderr)
        return 1
    part = argv[0] if argv else ""
    if part in PARTS:
        module = importlib.import_module(f"{part}.__main__")
        return getattr(module, "program", module.main)(argv[1:])
    from convert.running import guarded

    return guarded("", lambda: _overview(argv), argv)


def _overview(argv: list[str]) -> int:
    """Parse what is no part's: --help, --version, or a mistake."""
    from argparse import SUPPRESS

    from convert.documents import document
    from convert.errors import UsageError
    from convert.running import Arguments, Version

    rows = "\n".join(f"  {name:10}{about}" for name, about in PARTS.items())
    flags = Arguments(
        "", "COMMAND ... [options]",
        description="Get the same model in another framework, and prove that it is the same.",
        epilog=f"commands:\n{rows}\n\ntriptych COMMAND --help lists the options of one\n\n"
        f"example:\n  triptych convert inspect model.safetensors\n\ndocumentation: {document('quick-start')}",
    )  # fmt: skip
    flags.add_argument("command", metavar="COMMAND", choices=list(PARTS), help=SUPPRESS)
    flags.add_argument("--version", action=Version)
    if argv and not argv[0].startswith("-"):
        raise UsageError(_unknown(argv[0]))
    flags.parse_args(argv)
    return 2


def _unknown(word: str) -> str:
    """Say that a word is no command, and which command is meant, if one is."""
    from convert.command_line.parsers import COMMANDS
    from specs.words import unknown

    listed = "triptych --help lists the commands"
    if word in COMMANDS or (re.fullmatch(r"[a-z]\w*2[a-z]\w*", word)):
        return f"{word} is a command of convert: triptych convert {word} ({listed})"
    return f"{unknown(word, PARTS)} ({listed})"


def hidden() -> str:
    """Say which file hides one of our packages from a user's script, and the remedy; "" if none does."""
    pages = [
        os.path.join(HOME, *folders, "docs", "quick-start.md") for folders in (("convert",), ())
    ]  # of a wheel first
    page = next(filter(os.path.exists, pages), "")
    remedy = f"rename it, or run the script as python -P{f' ({page})' if page else ''}"
    return f"{shadow} hides Triptych's own: {remedy}" if (shadow := _shadow()) else ""


def _shadow() -> str:
    """Return a file of other people's that Python would import for one of our packages; "" if there is none."""
    for name in PACKAGES:
        found = PathFinder.find_spec(name)
        if found and found.origin and os.path.dirname(os.path.abspath(found.origin)) != os.path.join(HOME, name):
            return found.origin
    return ""


if __name__ == "__main__":
    sys.exit(main())
