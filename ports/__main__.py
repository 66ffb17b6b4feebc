"""`python -m ports [--json]`: architectures, variants and parameter counts, computed from the specs."""

from __future__ import annotations

import argparse
import json
import sys

import specs
from convert.errors import unwritten
from specs.layer import count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ports", description="Architectures, variants, parameter counts.")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args()
    table = [
        {"architecture": name, "variant": variant, "parameters": count(list(specs.get(name).layers(config)))}
        for name in specs.names()
        for variant, config in specs.get(name).VARIANTS.items()
    ]
    lines = [f"{row['architecture']:14} {row['variant']:10} {row['parameters']:>13,}" for row in table]
    try:
        print(json.dumps(table, indent=1) if arguments.json else "\n".join(lines), flush=True)
    except BrokenPipeError:
        return unwritten()  # the reader of our output went away
    return 0


if __name__ == "__main__":
    sys.exit(main())
