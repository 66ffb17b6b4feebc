"""`python -m ports`: architectures, variants and parameter counts; `python -m ports new NAME`: a page and its ports."""

from __future__ import annotations

import sys

from convert.program import Arguments, dumps, guarded

USAGE = """python -m ports [--spec PAGE] [--json]
       python -m ports new NAME [--out FOLDER]"""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("ports", lambda: new(argv) if argv[:1] == ["new"] else table(argv), argv)


def table(argv: list[str]) -> int:
    """Print every variant of every architecture, with its trained parameters by the spec."""
    parser = Arguments(prog="python -m ports", usage=USAGE, description="Architectures, variants, parameter counts.")
    parser.add_argument("--spec", metavar="PAGE", action="append", default=[], help="also an architecture of yours")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args(argv)
    import specs
    from convert.pages import use
    from specs.layer import count

    use(arguments.spec)
    rows = [
        {"architecture": name, "variant": variant, "parameters": count(list(specs.get(name).layers(config)))}
        for name in specs.names()
        for variant, config in specs.get(name).variants.items()
    ]
    lines = [f"{row['architecture']:14} {row['variant']:10} {row['parameters']:>13,}" for row in rows]
    print(dumps(rows) if arguments.json else "\n".join(lines))
    return 0


def new(argv: list[str]) -> int:
    """Write the files of a new architecture and print what to do with them."""
    parser = Arguments(
        prog="python -m ports", usage=USAGE,
        description="Write a page, its three ports and a script that writes golden cases; all run as they are.",
    )  # fmt: skip
    parser.add_argument("new", choices=["new"], help="this command")
    parser.add_argument("name", metavar="NAME", help="of the architecture: letters, digits and _")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="where the files go (default: here)")
    arguments = parser.parse_args(argv)
    from .new import write

    for line in write(arguments.name, arguments.out):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
