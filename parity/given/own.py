"""Wrap a user's own model (torch module, paddle layer, linen or nnx module) behind the call that ports have."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from convert.errors import UsageError
from ports.model import Model
from ports.runners.base import Runner
from ports.runners.inputs import OUTPUT, Inputs, is_image
from ports.runners.records import Drop, Gradients, Module, Optimizer, Tap, Taps, Training
from specs.layer import Layer
from specs.numbers import exact
from specs.words import count

from .layer_kinds import layer_of
from .module_names import Listed, PairedNames, chosen, path_of, possible, spellings, written_out
from .quoting import some
from .usage import require_arguments
from .views import View

OWN = "own"  # the architecture of a user's model
MODAL = r"Drop|BatchNorm"  # in names of classes: modules that compute otherwise in training than in evaluation
INSIDE = "inside nn.scan, nn.remat, nn.vmap or another transformation of JAX, where its outputs cannot be read"
LISTS = r"(Sequential|ModuleList|LayerList|List)$"  # hold modules in a row; one framework's list is another's loop


def wrap(
    model: Any,
    inputs: Any,
    names: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Own:
    """Put a model of no known architecture behind the call that ports have.

    Args:
      inputs: what it is going to be called with: a model whose modules exist while they run, is run to list them.
      names: paths of its modules -> names of taps; without it, every module that holds parameters is a tap by its path.
      training: the arguments or attributes that put a flax model into training mode; None: those with known names.
    Raises: UsageError for what is no model, for inputs that it does not take, and for names of modules that it lacks.
    """
    home, model = recognise(model)
    runner: Runner = importlib.import_module(f"ports.runners.{home}").Runner.own(model, training)
    require_arguments(*runner.signature(), Inputs.of(inputs))
    return Own(runner, Inputs.of(inputs), names, file_of(type(model[0] if home == "linen" else model)))


def file_of(kind: type) -> str:
    """Return the file that defines a class, without its folders; "" of one of a package, or typed in a shell."""
    try:
        path = inspect.getfile(kind)
    except (OSError, TypeError):
        return ""
    return "" if "site-packages" in path or path.startswith("<") else os.path.basename(path)


def recognise(model: Any) -> tuple[str, Any]:
    """Return (module in ports.runners, model), by what is imported: a model's own framework always is."""
    names = "torch", "paddle", "flax.linen", "flax.nnx"
    torch, paddle, linen, nnx = (sys.modules.get(name) for name in names)
    if torch and isinstance(model, torch.nn.Module):
        return "torch", model
    if paddle and isinstance(model, paddle.nn.Layer):
        return "paddle", model
    if nnx and isinstance(model, nnx.Module):
        return "nnx", model
    if linen and isinstance(model, linen.Module):
        if model.scope is None:
            raise UsageError("a linen module has no variables by itself: pass (module, variables)")
        return "linen", model.unbind()
    if linen and isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], linen.Module):
        return "linen", model
    if _is_function(model):
        return "function", model
    what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise UsageError(
        f"{what} is no model: pass a port, a torch module, (linen module, variables), a bound linen module, an nnx "
        "module, a paddle layer or (JAX function of parameters and inputs, parameters)"
    )


def _is_function(model: Any) -> bool:
    """Tell whether this is a function of JAX, and the parameters that it takes first."""
    if "jax" not in sys.modules or not (isinstance(model, tuple) and len(model) == 2 and callable(model[0])):
        return False
    bases = ("torch.nn", "Module"), ("paddle.nn", "Layer"), ("flax.nnx", "Module"), ("flax.linen", "Module")
    modules = tuple(getattr(sys.modules[name], base) for name, base in bases if name in sys.modules)
    return not isinstance(model[0], (type, *modules))


class Own(Model):
    """A user's model: a Runner, and names for its modules in place of a spec.

    Args:
      file: defines its class, see file_of.

    `views` has what is compared in another order of axes than the model's own, and `said` says why: see find_layouts.
    """

    architecture, config, spec = OWN, None, None
    views: dict[str, View]
    paired: PairedNames | None

    def __init__(self, runner: Runner, inputs: Inputs, names: Mapping[str, str] | None, file: str = ""):
        self.runner, self.inputs, self.names, self.file = runner, inputs, names, file
        self.views, self.said = {}, list[str]()
        self._kept: tuple[Any, Any] = None, None
        self.paired = names if isinstance(names, PairedNames) else None
        self._order = self.paired.order if self.paired is not None else ()
        self.output_order = self.paired.output_order if self.paired is not None else ()
        self.modules = runner.modules(self._taken(inputs))
        self._spelled = spellings(self.modules)
        self._stated = {} if self.paired is not None else written_out(names or {}, self._spelled)
        self._wanted = set[str]()
        for path in self._stated:
            if self.modules[path].inside:
                raise UsageError(f"names: module {path!r} is {INSIDE}: name one outside of it")
        self.match(())

    def _taken(self, inputs: Any) -> Inputs:
        """Return inputs in the order of axes in which this model takes them."""
        order = self._order
        return Inputs.of(inputs).map(lambda array: array.transpose(order) if array.ndim == len(order) else array)

    @property
    def framework(self) -> str:
        return self.runner.framework

    def tap_names(self) -> list[str]:
        """Return names of its taps, without the output of the whole model."""
        return list(self.chosen.values())

    def spellings(self) -> dict[str, str]:
        """Return the spellings of the modules that the user gives no name."""
        return {name: path for name, path in self._spelled.items() if path not in self._stated}

    def take(self, others: Mapping[str, str]) -> None:
        """Take a stated name that is another model's own spelling of a module as the path of that module."""
        self._stated = {path: path_of(name, others) for path, name in self._stated.items()}

    def stated_names(self) -> set[str]:
        """Return the names that the user gives to its modules."""
        return {*self._stated.values()}

    def want(self, names: Collection[str]) -> None:
        """Make taps of the modules whose paths the user states as names of another model's modules."""
        self._wanted = {path for path in names if path and path in self.modules and not self.modules[path].inside}

    def possible_names(self) -> set[str]:
        """Return every name that one of its taps may get from `match`."""
        return possible(self._tapped(), self._stated) if self.paired is None else set(self.paired.values())

    def match(self, others: Collection[str]) -> None:
        """Name the taps, where the other models' taps may have these names: by the Table, or see module_names."""
        if self.paired is None:
            self._name(chosen(self._tapped(), self._stated, others))
        else:
            self._name({path: name for path, name in self.paired.items() if not self.modules[path].inside})

    def _name(self, taps: dict[str, str]) -> None:
        self.chosen = taps
        self._taps = Taps({**taps, "": OUTPUT}.get, lambda name: 0)  # `views` turn images

    def tree(self) -> list[Listed]:
        """List every module, in the model's order: by the name of its tap, or else by its path."""
        taken = set(self.chosen.values())
        rows, reasons = (
            (self.paired.rows, self.paired.reasons_of(self.modules)) if self.paired is not None else ({}, {})
        )
        names = {path: rows.get(path, path) for path in self.modules}
        names = {path: f"{path} (module)" if name in taken else name for path, name in names.items()} | self.chosen
        return [
            Listed(names[path], module.kind, module.own or path, "" if path in self.chosen else reasons.get(path, ""))
            for path, module in self.modules.items()
            if path
        ]

    def _tapped(self) -> list[str]:
        """List the modules to compare: those with parameters, and those that the user names, here or as a partner."""
        named = {*self._stated, *self._wanted}
        return [path for path, module in self.modules.items() if path in named or _is_tap(path, module)]

    def keep(self, inputs: Inputs, run: Any) -> None:
        """Keep what `outputs` or `trace` returned for these inputs without any views: the next call takes it."""
        self._kept = inputs, run

    def _kept_of(self, inputs: Any) -> Any:
        """Return the run that is kept of these inputs, once; None where there is none."""
        (kept_inputs, run), self._kept = self._kept, (None, None)
        return run if kept_inputs is inputs else None

    def outputs(self, inputs: Any) -> dict[str, np.ndarray]:
        """Run inference: "output", and "output:KEY" for each further one."""
        kept = self._kept_of(inputs)
        return self.seen(kept if kept is not None else self._own(self.runner(self._taken(inputs))))

    def _own(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what a runner returns as the model has it: a runner of flax takes all its outputs for images."""
        turned = is_flax(self)
        return {name: np.moveaxis(a, 1, -1) if turned and is_image(a) else a for name, a in outputs.items()}

    def seen(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays with their axes in the order in which they are compared."""
        return {name: self.views[name].seen(array) if name in self.views else array for name, array in arrays.items()}

    def trace(self, inputs: Any, feed: Mapping[str, Sequence[np.ndarray]] | None = None) -> list[Tap]:
        """Return every call of a tap, under its name. Raises: UsageError for a tap that the run never reaches."""
        kept, views = self._kept_of(inputs), self.views
        own = {
            name: [views[key].back(a) if (key := f"{name} <- {k}") in views else a for k, a in enumerate(arrays)]
            for name, arrays in (feed or {}).items()
        }
        taps = kept if kept is not None and not feed else self.runner.trace(self._taken(inputs), self._taps, own)
        taps = [tap.of(self.seen(dict(tap.arrays()))) for tap in taps]
        uncalled = self._uncalled(taps)
        called = [path for path in self.chosen if path not in uncalled]
        for path, name in self._stated.items():
            if path in called or any(other.startswith(f"{path}.") for other in called):
                continue  # the name of a list of modules is that of the modules in it
            raise UsageError(f"names: module {path!r} is not called in this run, so that {name!r} has no output")
        return taps

    def _uncalled(self, taps: Iterable[Tap]) -> list[str]:
        """Return the paths of taps that a run did not reach."""
        reached = {tap.name.partition("#")[0] for tap in taps}
        return [path for path, name in self.chosen.items() if name not in reached]

    def unreached(self, taps: Iterable[Tap]) -> list[str]:
        """Name modules with parameters that were not called, the outermost ones.

        Not those whose children were called, nor those whose parameters another module computes with, as
        nn.MultiheadAttention does with its out_proj.
        """
        uncalled = self._uncalled(taps)
        called = [path for path in self.chosen if path not in uncalled]
        uncalled = [path for path in uncalled if self.modules[path].trained]
        alone = [path for path in uncalled if not any(other.startswith(f"{path}.") for other in called)]
        used = self._trainable() if alone else ()
        alone = [path for path in alone if not any(name.startswith(f"{path}.") for name in used)]
        outer = [path for path in alone if not any(path.startswith(f"{other}.") for other in alone)]
        return [f"modules with parameters that were never called: {some(outer)}"] if outer else []

    def left_out(self) -> list[str]:
        """Count and name modules with parameters that are not compared, and say why: a Table, or a transformation."""
        owners = [path for path, module in self.modules.items() if path and module.leaves]
        inner = [path for path in owners if self.modules[path].inside and (self.paired is None or path in self.paired)]
        inside = [f"{count(len(inner), 'module')} not compared, {INSIDE}: {some(inner)}"] if inner else []
        if self.paired is None:
            return inside
        owners = [path for path in owners if path not in self.paired]
        unlike = {why: [path for path in paths if path in owners] for why, paths in self.paired.unlike.items()}
        alone = [path for path in owners if not any(path in paths for paths in unlike.values())]
        reasons = {**unlike, "the Table of names pairs them with no module": alone}
        return inside + [
            f"{count(len(paths), 'module')} not compared, as {why}: {some(paths)}"
            for why, paths in reasons.items()
            if paths
        ]

    def _trainable(self) -> list[str]:
        """Name the parameters that some output depends on, by their gradients; [] where these cannot be computed."""
        try:
            gradients = self.gradients(self.inputs).parameters
        except Exception:  # whatever a user's model raises in training mode: then the modules are known uncalled alone
            return []
        return [name for name, gradient in gradients.items() if np.any(gradient)]

    def turned(self) -> list[str]:
        """Say in which order of axes this model takes the input, and in which its arrays are compared."""
        taken = [f"gets the input with its axes in the order {self._order}, as derive found it"] if self._order else []
        order = self.output_order
        output = [f"its output is compared with its axes in the order {order}, as derive found it"] if order else []
        return [*taken, *output, *self.said]

    def switched(self, training: bool) -> list[str]:
        """Name modules that depend on the mode and were in the other one than the check's."""
        modes = self.runner.modes()
        other = [path for path, mode in modes.items() if mode is not training and self._depends_on_mode(path)]
        ours, theirs = ("training", "evaluation") if training else ("evaluation", "training")
        named = [self.chosen.get(path, path) for path in other]
        which = f"these modules, which depend on it, were in {theirs} mode: {some(named)}"
        return [f"ran in {ours} mode; {which}"] if other else []

    def _depends_on_mode(self, path: str) -> bool:
        is_leaf = path and not any(other.startswith(f"{path}.") for other in self.modules)
        return bool(is_leaf) and any(re.search(MODAL, name) for name in self.modules[path].classes)

    def gradients(self, inputs: Any) -> Gradients:
        """Return the loss mean(output ** 2) in training mode, its gradients, and the running statistics after it."""
        taken = self._taken(inputs)
        self.runner.require_training(taken)
        gradients = self.runner.gradients(taken)
        gradients = replace(gradients, outputs=self.seen(self._own(gradients.outputs)))
        if not self._order:
            return gradients
        order = np.argsort(self._order)
        inputs = {name: a.transpose(order) if a.ndim == len(order) else a for name, a in gradients.inputs.items()}
        return replace(gradients, inputs=inputs)

    def train(self, batches: Sequence[Any], optimizer: Optimizer) -> Training:
        """Take a step a batch on loss mean(output ** 2); the model itself stays as it is."""
        inputs = [self._taken(batch) for batch in batches]
        self.runner.require_training(inputs[0])
        return self.runner.train(inputs, optimizer)

    def dropout_calls(self, inputs: Any, seed: int) -> list[Drop]:
        """Return every call of dropout with a rate above 0 in one training-mode pass, in execution order."""
        return self.runner.dropout_calls(self._taken(inputs), seed)

    def dropout_rates(self) -> list[str]:
        """Return what makes training random: calls of dropout, by their rates."""
        return [f"dropout {exact(rate)}" for rate in self.runner.dropout_rates(self._taken(self.inputs))]

    def is_random(self, inputs: Any, training: bool) -> bool:
        """Tell whether the outputs depend on random numbers, in training other than those of dropout."""
        with self.no_dropout() if training else nullcontext():
            return self.runner.is_random(self._taken(inputs), training)

    def with_dtype(self, dtype: str) -> Own:
        """Copy the model into another dtype. Raises: UsageError for a model that cannot be copied."""
        try:
            runner = self.runner.cast(dtype)
        except UsageError:
            raise
        except Exception as error:  # whatever copying a user's attributes raises
            what = f"copying the {self.runner.library} model into {dtype} fails"
            if "graph leaves" in str(error):  # torch's words
                what += ": it has a tensor that was computed from parameters, and that no call computes anew"
                raise UsageError(f"{what}: detach that tensor, or compute it in forward") from error
            what += f": {type(error).__name__}: {error}"
            raise UsageError(f"{what}: pass it in {dtype}, or let its attributes be copied (copy.deepcopy)") from error
        cast = Own(runner, self.inputs, self.names, self.file)
        cast._name(self.chosen)
        cast.views, cast.said = self.views, self.said
        return cast

    def shared(self, name: str) -> str:
        """Name an array by the nearest tap above it, or by its own path: linen's "layer_0.scale" is "layer.0.scale"."""
        for paths in (self._spelled, self.chosen):
            around = (path for path in paths if f"{name}.".startswith(f"{path}."))
            if path := max(around, key=len, default=""):
                name = paths[path] + name[len(path) :]
        return name

    def layers(self) -> list[Layer]:
        """Return the layers whose kind is known by their class."""
        state = self.state()
        layers = [layer_of(path, module, state, self.runner.library) for path, module in self.modules.items()]
        return [layer for layer in layers if layer is not None]


def is_flax(port: object) -> bool:
    """Tell whether a user's own model runs in JAX."""
    return isinstance(port, Own) and port.framework == "flax"


def _is_tap(path: str, module: Module) -> bool:
    return bool(path) and module.trained and not module.inside and not re.search(LISTS, module.kind)
