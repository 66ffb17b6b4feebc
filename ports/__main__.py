"""List architectures, variants and parameter counts, or write a new one's files: `python -m ports [new NAME]`."""

from __future__ import annotations

import sys

from convert.errors import called
from convert.program import Arguments, Version, dumps, guarded


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("ports", lambda: new(argv) if argv[:1] == ["new"] else table(argv), argv)


def table(argv: list[str]) -> int:
    """Print every variant of every architecture, with its trained parameters by the spec."""
    prog = called("ports")
    parser = Arguments(
        "ports", "[--spec PAGE] [--json]", description="List architectures, their variants and parameter counts.",
        epilog=f"{prog} new NAME writes the files of a new architecture\n\nexample:\n  {prog} --json",
    )  # fmt: skip
    parser.add_argument("--version", action=Version)
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
    lines = [f"{'architecture':14} {'variant':10} {'parameters':>13}"]
    lines += [f"{row['architecture']:14} {row['variant']:10} {row['parameters']:>13,}" for row in rows]
    print(dumps(rows) if arguments.json else "\n".join(lines))
    return 0


def new(argv: list[str]) -> int:
    """Write the files of a new architecture and print what to do with them."""
    parser = Arguments(
        "ports new", "NAME [--out FOLDER]",
        description="Write a page, its three ports and a script that writes golden cases; all run\nas they are.",
        epilog=f"example:\n  {called('ports')} new my_network",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="of the architecture: letters, digits and _")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="where the files go (default: here)")
    arguments = parser.parse_args(argv[1:])
    from .new import write

    for line in write(arguments.name, arguments.out):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
