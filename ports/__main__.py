"""List architectures, variants and parameter counts, or write a new one's files: `python -m ports [new NAME]`."""

from __future__ import annotations

import sys
from typing import Any

from convert.errors import UsageError, called
from convert.running import Arguments, Version, dumps, guarded
from specs.numbers import exact

HEAD = "Config fields, for --set, ports.load and ports.build"
DEFAULTS = (
    "Defaults are those of ports.build. Where a checkpoint's outputs depend on a field that nobody states, --assume "
    "accepts its default."
)
HXW = " HxW is a height and a width, as in 4x8; in Python (4, 8) is the same."

OPEN = "Fields that no array shows, so that a checkpoint may leave them open:"
SMALL = (
    "Small models, for tests and trials, with the fields that are not at their defaults. "
    'ports.build("{}", "tiny {}", "torch") builds the first.'
)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return guarded("ports", lambda: new(argv) if argv[:1] == ["new"] else table(argv), argv)


def table(argv: list[str]) -> int:
    """Print every variant of every architecture, with its trained parameters by the spec."""
    prog = called("ports")
    parser = Arguments(
        "ports", "[NAME] [--spec PAGE] [--json]",
        description="List architectures, their variants and parameter counts.",
        epilog=f"{prog} new NAME writes the files of a new architecture\n\nexample:\n  {prog} --json",
    )  # fmt: skip
    parser.add_argument("architecture", nargs="?", metavar="NAME", help="list the Config fields of this one as well")
    parser.add_argument("--version", action=Version)
    parser.add_argument("--spec", metavar="PAGE", action="append", default=[], help="also an architecture of yours")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments, others = parser.parse_known_args(argv)
    if any(not other.startswith("-") for other in others):
        from specs.words import hint

        parser.error(f"unrecognized arguments: {' '.join(others)}{hint(arguments.architecture or '', ['new'])}")
    arguments = parser.parse_args(argv)  # which says what option a misspelt one stands for
    import specs
    from convert.pages import use
    from convert.terminal import table
    from specs.layer import count

    use(arguments.spec)
    try:
        chosen = [specs.resolve(arguments.architecture)] if arguments.architecture else specs.names()
    except (LookupError, ValueError) as error:
        raise UsageError(str(error)) from None
    rows = [
        {"architecture": name, "variant": variant, "parameters": count(list(specs.get(name).layers(config)))}
        for name in chosen
        for variant, config in specs.get(name).variants.items()
    ]
    without = [name for name in chosen if not specs.get(name).variants]
    cells = [(str(row["architecture"]), str(row["variant"]), f"{row['parameters']:,}") for row in rows]
    cells += [(name, "no variants", "") for name in without]
    if arguments.json:
        print(dumps(rows))
        return 0
    for line in table(("architecture", "variant", "parameters"), cells, (2,)):
        print(line[2:])
    if arguments.architecture:
        _describe(chosen[0])
    return 0


def _describe(architecture: str) -> None:
    """Print the Config fields of an architecture, what its open fields mean, and its small twins."""
    import specs
    from convert.terminal import help_columns, wrapped

    spec, width = specs.get(architecture), help_columns(sys.stdout)
    fields = _fields(spec.config)
    lines = ["", HEAD, *wrapped(DEFAULTS + HXW * any("HxW" in line for line in fields), width)]
    lines += [part for line in fields for part in wrapped(line, width, rest=" " * 21)]
    if spec.meanings:
        lines += ["", *wrapped(OPEN, width)]
        for name, meaning in spec.meanings.items():
            lines += wrapped(meaning, width, f"  {name:18} ", " " * 21)
    lines += ["", *wrapped(SMALL.format(architecture, next(iter(spec.tiny))), width)]
    for name, config in spec.tiny.items():
        lines += [f"  tiny {name}", *wrapped(" ".join(_settings(config)), width, "    ", "    ")]
    print("\n".join(lines))


def _settings(config: Any) -> list[str]:
    """Return the fields of a Config that have no default, or another value, as --set takes them."""
    from dataclasses import fields

    from convert.config.settings import spelled
    from specs.config import as_hxw

    values = {f.name: value for f in fields(config) if (value := getattr(config, f.name)) != f.default}
    each = (spelled(name, as_hxw(type(config), name, value)) for name, value in values.items())
    return [text.removeprefix("--set ") for text in each]


def _fields(config: type) -> list[str]:
    """Return a line for each field of a Config: its name, its values, its default."""
    from dataclasses import MISSING, fields

    from specs.config import describe, types_of

    types = types_of(config)
    return [
        f"  {field.name:18} {describe(types[field.name])}"
        + ("" if field.default is MISSING else f" (default: {exact(field.default)})")
        for field in fields(config)
    ]


def new(argv: list[str]) -> int:
    """Write the files of a new architecture and print what to do with them."""
    parser = Arguments(
        "ports new", "NAME [--class CLASS] [--out FOLDER]",
        description="Write a page, its three ports and a script that writes golden cases; all run\nas they are.",
        epilog=f"example:\n  {called('ports')} new my_network",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="of the architecture: letters, digits and _")
    parser.add_argument("--class", dest="network", metavar="CLASS", default="", help="of the network, e.g. MyNetwork")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="where the files go (default: here)")
    arguments = parser.parse_args(argv[1:])
    from .new import write

    for line in write(arguments.name, arguments.out, arguments.network):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
