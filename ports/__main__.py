"""`python -m ports [--json]`: architectures, variants and parameter counts, computed from the specs."""

from __future__ import annotations

import sys

import specs
from convert.program import Arguments, dumps, guarded
from specs.layer import count


def main() -> int:
    return guarded("ports", table, sys.argv[1:])


def table() -> int:
    """Print every variant of every architecture."""
    parser = Arguments(prog="python -m ports", description="Architectures, variants, parameter counts.")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args()
    rows = [
        {"architecture": name, "variant": variant, "parameters": count(list(specs.get(name).layers(config)))}
        for name in specs.names()
        for variant, config in specs.get(name).variants.items()
    ]
    lines = [f"{row['architecture']:14} {row['variant']:10} {row['parameters']:>13,}" for row in rows]
    print(dumps(rows) if arguments.json else "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
