"""List which frameworks and devices there are, and import the class of a network in one of them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

import specs
from convert.errors import ConvertError, UsageError, command_or_call, install
from specs.checking.outside import import_file
from specs.kinds import FRAMEWORKS
from specs.spec import SpecError
from specs.words import unknown

DEVICES = ("cpu", "gpu")
ELSEWHERE = {  # names that frameworks and command lines have for these
    "cuda": "gpu", "fp64": "float64", "double": "float64", "fp32": "float32", "float": "float32", "bf16": "bfloat16",
    "fp16": "float16", "half": "float16",
}  # fmt: skip


class PortError(UsageError):
    """A port that a page declares and that is missing, fails to import, or does not fit the page."""


class Unavailable(ConvertError):
    """A device that this machine, or this build of a library, does not have; `why` says so without the library."""

    def __init__(self, library: str, what: str = "no GPU found here"):
        remedy = command_or_call("--device cpu", "device='cpu'")
        self.why = f"{what}: use {remedy}"
        super().__init__(f"{library}: {self.why}")


def available() -> list[str]:
    """Return the frameworks installed here."""
    return [name for name in FRAMEWORKS if importlib.util.find_spec(name)]


def network(architecture: str, framework: str) -> Any:
    """Return the network's class in a framework.

    Raises: UsageError for a framework that is not installed or has no port of this architecture; PortError, one of
      them, for a port that does not import.
    """
    require(framework)
    architecture = specs.resolve(architecture)
    spec, home = specs.get(architecture), place(architecture, framework)
    if not home:
        raise UsageError(f"{architecture} has no port in {framework}: its page lists {', '.join(spec.ports) or 'none'}")
    module = _module(home)
    if not hasattr(module, spec.network):
        raise PortError(f"{home}: has no class {spec.network!r}, the `network` of {architecture}")
    return getattr(module, spec.network)


def unfit(framework: str, network: type) -> str:
    """Begin an error about arrays of a port that are not the page's: "torch's Net (net_torch.py) does not fit ..."."""
    file = getattr(sys.modules.get(network.__module__), "__file__", None) or network.__module__
    return f"{framework}'s {network.__name__} ({file}) does not fit the page"


def ported(architecture: str) -> list[str]:
    """Return the frameworks installed here in which an architecture has a port."""
    return [framework for framework in available() if declared(architecture, framework)]


def declared(architecture: str, framework: str) -> bool:
    """Tell whether an architecture's page declares a port in a framework."""
    return bool(place(architecture, framework))


def unported(architecture: str, second: bool = False) -> str:
    """Say why no framework installed here runs an architecture, or no second one."""
    pages = [framework for framework in FRAMEWORKS if declared(architecture, framework)]
    ordinal = "second " if second else ""
    if len(pages) <= second:
        return f"the page of {architecture} declares no {ordinal}port"
    missing = [framework for framework in ("torch", *pages) if framework in pages and framework not in available()]
    return f"no {ordinal}framework with a port of it is installed: {install(missing[0])}"


def place(architecture: str, framework: str) -> str:
    """Return the file, or the dotted name of the module, that holds a port; "" if there is none."""
    spec, folder = specs.get(architecture), specs.folder(architecture)
    home = spec.ports.get(framework, "" if spec.ports or folder else f"ports.{framework}.{architecture}")
    return os.path.join(folder or os.path.dirname(specs.__file__), home) if home.endswith(".py") else home


def _module(place: str) -> Any:
    """Import the module of a port: a file, or a module's dotted name. Raises: PortError for whatever goes wrong."""
    try:
        return import_file(place) if place.endswith(".py") else importlib.import_module(place)
    except SpecError as error:
        raise PortError(str(error)) from None
    except Exception as error:  # a port is code: anything may be wrong with it
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise PortError(f"{place}: there is no such module") from None
        raise PortError(f"{place}: importing it fails: {type(error).__name__}: {error}") from error


def require(framework: str) -> None:
    """Raise UsageError that names the extra to install, if a framework is missing, or the nearest name."""
    if framework not in FRAMEWORKS:
        raise UsageError(f"framework: {unknown(framework, FRAMEWORKS, listed=True)}")
    if framework not in available():
        raise UsageError(f"{framework} is not installed: {install(framework)}")


def require_name(what: str, name: str, known: Sequence[str]) -> None:
    """Raise UsageError for a name that is not known, with the nearest one, or with ours for another's name."""
    if not isinstance(name, str):
        raise UsageError(f"{what} must be a name ({', '.join(known)}), not {name!r}")
    if name not in known:
        meant = ELSEWHERE.get(name.partition(":")[0])
        ours = f"unknown name {name!r}, did you mean {meant!r}? (one of {', '.join(known)})"
        raise UsageError(f"{what}: {ours if meant in known else unknown(name, known, listed=True)}")


def quick_xla_flags() -> str:
    """Return XLA_FLAGS that compile quickly, for tiny networks that run once. Set them before jax is imported.

    Below level 2, XLA computes some gradients wrongly: see parity/derive/trace/jax_tape. Functions without gradients
    take `quick_forward_options` as well.
    """
    from importlib import metadata

    flags = "--xla_backend_optimization_level=2 --xla_llvm_disable_expensive_passes=true"
    with contextlib.suppress(metadata.PackageNotFoundError):
        if metadata.version("jaxlib").startswith("0.10."):  # XLA ends the process on a flag that it does not know
            flags += " --xla_cpu_use_fusion_emitters=false"  # a third of the time to compile
            flags += " --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
            flags += " --xla_cpu_parallel_codegen_split_count=1"  # each part has a fixed cost, above that of its code
    return flags


def quick_forward_options() -> dict[str, int]:
    """Return compiler options for a function without gradients: level 0 where `quick_xla_flags` are set.

    It compiles in two fifths of the time of level 2.
    """
    return {"xla_backend_optimization_level": 0} if os.environ.get("XLA_FLAGS") == quick_xla_flags() else {}
