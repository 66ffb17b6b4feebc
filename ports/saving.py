"""Write a model in memory as a checkpoint with its record: names and layout of its own framework, any format."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import specs
from convert.config.conventions import computing, same
from convert.config.settings import Settings
from convert.errors import ConvertError, UsageError, saving
from convert.files.memory import MemoryReader
from convert.files.modules import of_paddle, of_torch
from convert.plans.planning import Asked, plan_read
from convert.records.altered import WARNING
from convert.records.odd_values import not_finite
from convert.records.record import Record
from specs.config import as_dict
from specs.numbers import exact
from specs.words import unknown, with_article

if TYPE_CHECKING:
    import numpy as np

READ_MODULES = {"torch": of_torch, "paddle": of_paddle, "flax": lambda _: ()}  # a linen module has a Config, if any
Arrays = dict[str, tuple[str, "np.ndarray"]]  # name -> (dtype, array or its bits)


def save(
    model: Any,
    path: str | os.PathLike[str],
    config: Any = None,
    architecture: str | None = None,
    *,
    assume: bool = False,
    force: bool = False,
    supplied: Iterable[str] = (),
) -> dict[str, Any]:
    """Write a model's arrays and configuration as a checkpoint, through the converter: whole, verified, or not at all.

        ports.save(torch_module, "tuned.safetensors", config="mixer.safetensors")

    Args:
      model: a torch module, (linen module, variables), a bound linen module or a paddle layer.
      path: target; its suffix picks the format. Names and layout are those of the model's framework.
      config: Config, Settings, {field: value}, or the path of a configuration file or of a checkpoint with a record.
        What the arrays or the modules show need not be stated; of a Config or a file, `classes` is not read, as the
        model may have another head.
      architecture: its name, where the names of the arrays leave it open.
      assume: accept the default of each setting that changes the outputs and that `config` does not state; the record
        marks them.
      force: replace an existing target.
      supplied: arrays that began at 0, as no source states them: those that are still 0 are marked in the record.
    Returns: the record that travels with the checkpoint.
    Warns of the model's arrays that are set aside, of what is assumed, and of NaNs and infinities.
    Raises: UsageError for what is no model or does not fit, as where its modules state other settings, and OpenFields,
    one of them, for what nobody states; ConvertError where the target cannot be written.
    """
    with saving():
        settings = settings_of(config)
        if architecture is not None:
            settings = settings._replace(architecture=_architecture(architecture, settings))
        framework, arrays = arrays_of(model)
        if framework == "flax":
            settings = _as_built(settings, model)
        known = Record(content={"supplied": [n for n in supplied if n in arrays and not arrays[n][1].any()]})
        reader = MemoryReader(f"the {framework} model", arrays, READ_MODULES[framework](model))
        with plan_read(reader, Asked(framework, framework, settings, assume=assume), known) as plan:
            record = plan.write(path, force)
            for note in filter(None, (*plan.notes(), not_finite(record["tensors"])[1])):
                text = f"{os.fspath(path)}: {note.removeprefix(WARNING)}"
                warnings.warn(text, stacklevel=3)  # of who called ports.save or port.save
            return record


def _architecture(name: str, settings: Settings) -> str:
    """Return the architecture that the user names. Raises: UsageError where there is none, or settings of another."""
    if name not in specs.names():
        raise UsageError(f"architecture: {unknown(name, specs.names(), listed=True)}")
    if settings.architecture not in ("", name):
        raise UsageError(f"architecture={name!r}: the configuration is of {with_article(settings.architecture)}")
    return name


def settings_of(config: Any) -> Settings:
    """Return what is known of a model. Its arrays tell the number of classes, not what it was built from."""
    settings = stated_by(config)
    if config is None or isinstance(config, Mapping | Settings):
        return settings
    return settings._replace(values={name: v for name, v in settings.values.items() if name != "classes"})


def stated_by(config: Any) -> Settings:
    """Return all that a Config, a mapping or the path of a configuration states. Raises: UsageError for other types."""
    if config is None or isinstance(config, Mapping | Settings | str | os.PathLike):
        return Settings.of(config)
    if architecture := _architecture_of(config):
        return Settings(as_dict(config), architecture=architecture)
    raise UsageError(f"config: {type(config).__name__} is neither a Config, nor a mapping, nor a path")


def _architecture_of(config: Any) -> str:
    """Return the architecture whose Config this is; "" for anything else."""
    return next((name for name in specs.names() if isinstance(config, specs.get(name).config)), "")


def _as_built(settings: Settings, model: Any) -> Settings:
    """Add what the Config that a port's linen module was built with states. Raises: UsageError where it differs."""
    config = getattr(model[0] if isinstance(model, tuple) else model, "config", None)
    architecture = _architecture_of(config)
    fields = computing(specs.get(architecture)) if architecture else set()
    built = {name: value for name, value in as_dict(config).items() if name in fields} if fields else {}
    problems = [
        f"{name}={exact(stated)} {settings.how(name)}; the module was built with {name}={exact(built[name])}"
        for name, stated in settings.values.items()
        if name in built and not same(stated, built[name])
    ]
    if problems:
        raise UsageError("the flax model: its module was built with other settings", problems)
    return settings._replace(values={**built, **settings.values})


def arrays_of(model: Any) -> tuple[str, Arrays]:
    """Return (framework, arrays) of a model, by what is imported: a model's own framework always is.

    Raises: UsageError for what is no model.
    """
    torch, paddle, linen = (sys.modules.get(name) for name in ("torch", "paddle", "flax.linen"))
    if torch and isinstance(model, torch.nn.Module):
        return "torch", _torch(model)
    if paddle and isinstance(model, paddle.nn.Layer):
        return "paddle", {name: _paddle(tensor) for name, tensor in model.state_dict().items()}
    if linen and isinstance(model, linen.Module) and model.scope is not None:
        return "flax", _flax(model.unbind()[1])
    if linen and isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        return "flax", _flax(model[1])
    what = "give a port, a torch module, (linen module, variables), a bound linen module or a paddle layer"
    raise UsageError(f"{type(model).__name__} is no model: {what}")


def _torch(model: Any) -> Arrays:
    import torch

    arrays: Arrays = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ConvertError(f"the torch model: {name} is {with_article(type(tensor).__name__)}, no tensor")
        if tensor.is_meta:
            raise ConvertError(f"the torch model: {name} is on the device meta, without values: load weights first")
        plain, dtype = tensor.detach().cpu().contiguous(), str(tensor.dtype).removeprefix("torch.")
        bits = {"bfloat16": torch.int16}.get(dtype) or (torch.uint8 if dtype.startswith("float8") else plain.dtype)
        arrays[name] = dtype, plain.view(bits).numpy()
    return arrays


def _paddle(tensor: Any) -> tuple[str, Any]:
    return str(tensor.dtype).removeprefix("paddle."), tensor.detach().numpy()  # bfloat16 comes as bits


def _flax(variables: Mapping[str, Any]) -> Arrays:
    import numpy as np
    from flax.traverse_util import flatten_dict

    collections = variables if "params" in variables else {"params": variables}
    arrays = {name: np.asarray(array) for name, array in flatten_dict(dict(collections), sep="/").items()}
    lacking = {"bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1"}  # dtypes that numpy does not have
    return {name: (a.dtype.name, a.view(lacking.get(a.dtype.name, a.dtype))) for name, a in arrays.items()}
