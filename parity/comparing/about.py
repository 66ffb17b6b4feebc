"""State what was compared: models, weights and inputs, each with its version or its hash."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from convert.installed import version
from parity.given.own import OWN, Own
from parity.report import Result
from parity.running.provenance import fingerprint, script, surroundings
from parity.running.recording import ACTIVATIONS, training
from ports.port import Port
from ports.runners.inputs import Inputs, is_numpy
from specs.config import written
from specs.words import count, in_a_row

from .inputs import listed


def variant(port: Port | Own) -> str:
    """Return the name of the official variant or tiny twin that a port is, or "own"."""
    if isinstance(port, Own):
        return OWN
    return next((name for name, config in port.spec.named.items() if config == port.config), OWN)


def describe(
    ports: Mapping[str, Port | Own], inputs: Mapping[str, Inputs], check: str, steps: int, results: Sequence[Result]
) -> dict[str, str]:
    """Return what was run on what, by label."""
    about = {"check": check, **({"training": training(steps)} if check == "train" else {})}
    arrays = {label: given.named(is_numpy) for label, given in inputs.items()}
    texts = {label: listed(given) for label, given in inputs.items()}
    shared = len(set(map(id, inputs.values()))) == 1  # the same for all
    first = next(iter(texts))
    about["inputs"] = texts[first] if shared else "; ".join(f"{label}: {text}" for label, text in texts.items())
    own = {label: port for label, port in ports.items() if isinstance(port, Own)}
    if len(own) == len(ports):
        about["inputs"] = about["inputs"].removeprefix("images ")  # what a lone array is called, whatever it holds
        about["models"] = in_a_row(f"{port.modules[''].kind} ({label})" for label, port in own.items())
    devices = {port.device for port in ports.values()}
    known = {label: _known(port) for label, port in ports.items() if isinstance(port, Port)}
    about |= {"model": next(iter(known.values()))} if len({*known.values()}) == 1 else {}
    alone = {label: _file(ports[label]) if "model" in about else f"{text}; " for label, text in known.items()}
    alone |= {label: f"{port.modules[''].kind}{f' in {port.file}' * bool(port.file)}; " for label, port in own.items()}
    sides, weights = _states(ports, check, results)
    return {
        **about,
        **script(),
        **surroundings("gpu" if "gpu" in devices else "cpu"),
        **{label: alone.get(label, "") + text for label, text in sides.items()},
        "hash of inputs": fingerprint(arrays[first])
        if shared
        else "; ".join(f"{label}: {fingerprint(given)}" for label, given in arrays.items()),
        **weights,
    }


def _states(
    ports: Mapping[str, Port | Own], check: str, results: Sequence[Result]
) -> tuple[dict[str, str], dict[str, str]]:
    """State of each model, by its label, what it is; and by "LABEL weights" its file with a hash, or its own hash."""
    sources = {port.source for port in ports.values()}
    digests = {source: source.digest() for source in sources if source}  # each file is read once
    sides, weights = dict[str, str](), dict[str, str]()
    for label, port in ports.items():
        state, source = port.state(), port.source
        sides[label] = _side(port, state, check, results)
        own = f"from no file, {count(len(state), 'array')}"
        weights[f"{label} weights"] = (
            f"{source.path}{_part(source)}, {digests[source]}" if source else f"{own}, {fingerprint(state)}"
        )
    return sides, weights


def _known(port: Port) -> str:
    """State the architecture, the variant and every setting of a port."""
    settings = ", ".join(text + " (assumed)" * (name in port.assumed) for name, text in written(port.config).items())
    name = variant(port)
    return f"{port.architecture}{'' if name == OWN else f':{name}'} ({settings})"


def _file(port: Port | Own) -> str:
    """Name the file that a model's weights are from, ahead of what else is stated of it; "" for none."""
    return f"{os.path.basename(port.source.path.rstrip('/'))}{_part(port.source)}; " if port.source else ""


def _part(source: Any) -> str:
    """Name the part of a file that has the weights; "" for none."""
    return f" under {source.part!r}" if source.part else ""


def _side(port: Port | Own, state: Mapping[str, Any], check: str, results: Sequence[Result]) -> str:
    """State the framework, version, dtypes, device and mode of a model."""
    mode = "evaluation" if check in ACTIVATIONS else "training"
    others = {array.dtype.name for array in state.values() if array.dtype.kind == "f"} - {port.dtype}
    mixed = f", arrays in {', '.join(sorted(others))} as well" if others and port.dtype != "bfloat16" else ""
    dtypes = in_a_row(dict.fromkeys([*(r.dtype for r in results), port.dtype]))
    return f"{port.framework} {version(port.framework)}, {dtypes}{mixed}, {port.device}, {mode} mode"
