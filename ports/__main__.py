"""`python -m ports [--json]`: architectures, variants and parameter counts, computed from the specs."""

from __future__ import annotations

import argparse
import json

import specs
from specs.layer import count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ports", description="Architectures, variants, parameter counts.")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args()
    table = [
        {"architecture": name, "variant": variant, "parameters": count(list(specs.get(name).layers(config)))}
        for name in specs.names()
        for variant, config in specs.get(name).VARIANTS.items()
    ]
    if arguments.json:
        print(json.dumps(table, indent=1))
        return
    for row in table:
        print(f"{row['architecture']:14} {row['variant']:10} {row['parameters']:>13,}")


if __name__ == "__main__":
    main()
