"""List the modules of a JAX model, check that they go into training mode, and record its calls of dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import jax
from jax.extend.core import get_opaque_trace_state

from convert.errors import UsageError
from specs.notation.paths import dotted
from specs.words import first_few

from . import trees
from .inputs import Inputs
from .jax_trees import to_numpy
from .modes import evaluating, signed
from .records import Drop, Gradients, Module, classes, describe_drop


class Runner(Protocol):
    """What is needed of a functional.Runner."""

    training: Mapping[str, Any] | None

    def is_dropout(self, module: Any) -> bool: ...
    def intercepted(self, handler: Callable[..., Any]) -> Any: ...
    def split(self) -> tuple[Any, Any]: ...
    def run(self, params: Any, rest: Any, inputs: Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]: ...
    def arrays(self, inputs: Inputs) -> list[jax.Array]: ...
    def with_arrays(self, inputs: Inputs, arrays: Sequence[Any]) -> Inputs: ...
    def state(self) -> dict[str, Any]: ...
    def gradients(self, inputs: Inputs) -> Gradients: ...
    def compile(self, what: str, inputs: Inputs, make: Callable[[list[Any]], Any]) -> tuple[Any, list[Any]]: ...


def modules(runner: Runner, inputs: Inputs) -> dict[str, Module]:
    """List every module by its path: paths come from the arrays and from a run, classes from the run."""
    visits = visited(runner, inputs, False)
    kinds = {path: classes(visit.module) for path, visit in visits.items()}
    inside = {path for path, visit in visits.items() if visit.inside}
    leaves: dict[str, dict[str, str]] = {path: {} for path in ["", *kinds]}
    trained, spelled = set(), {dotted(path): ".".join(path) for path in map(_path, visits.values())}
    for name in runner.state():
        collection, *parts, leaf = name.split("/")
        paths = [dotted(parts[:depth]) for depth in range(len(parts) + 1)]
        for path in paths:
            leaves.setdefault(path, {})
        spelled |= {path: ".".join(parts[:depth]) for depth, path in enumerate(paths)}
        leaves[paths[-1]][leaf] = name
        trained.update(paths if collection == "params" else [])
    return {
        path: Module(kinds.get(path, ()), own, path in trained, path in inside, spelled.get(path, ""))
        for path, own in leaves.items()
    }


class Visit(NamedTuple):
    """A module that a run calls, its last call, and whether a transformation of JAX makes any of its calls."""

    module: Any
    call: trees.Call
    inside: bool


def _path(visit: Visit) -> tuple[str, ...]:
    """Return the path of a linen module, which knows it; () of another one."""
    path = getattr(visit.module, "path", ())
    return path if isinstance(path, tuple) and all(isinstance(part, str) for part in path) else ()


def visited(runner: Runner, inputs: Inputs, training: bool) -> dict[str, Visit]:
    """Return every module that a run calls, by its path."""
    visits: dict[str, Visit] = {}
    outside: list[Any] = []  # what JAX traces around the whole model

    def record(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
        inside = get_opaque_trace_state() not in outside or (path in visits and visits[path].inside)
        visits[path] = Visit(module, trees.Call(signed(module), args, kwargs), inside)
        return call(*args, **kwargs)

    with runner.intercepted(record):
        run_on_shapes(runner, inputs, training, lambda: outside.append(get_opaque_trace_state()))
    return visits


def run_on_shapes(runner: Runner, inputs: Inputs, training: bool, begin: Callable[[], None] = lambda: None) -> None:
    """Run a model without computing anything; `begin` is called first, where JAX traces the run."""

    def run(params: Any, rest: Any, arrays: list[Any]) -> int:
        begin()
        runner.run(params, rest, runner.with_arrays(inputs, arrays), training)
        return 0

    jax.eval_shape(run, *runner.split(), runner.arrays(inputs))


def require_training(runner: Runner, inputs: Inputs) -> None:
    """Raise UsageError if a module computes in training as in evaluation, unless the user says what to switch."""
    if runner.training is not None:
        return
    stuck = [
        f"{path or 'the model itself'} ({type(visit.module).__name__}, {name}={value})"
        for path, visit in visited(runner, inputs, True).items()
        for name, value in evaluating(visit.module, visit.call)
    ]
    if not stuck and not _learns_statistics(runner, inputs):
        stuck = ["its running statistics (batch_stats), which a step does not change"]
    if stuck:
        raise UsageError(
            f"the model does not go into training mode: {first_few(stuck, 3)}. Name the argument or "
            "attribute that switches it, and its value in training: training={'inference': False}; training={} "
            "compares the model as it runs"
        )


def _learns_statistics(runner: Runner, inputs: Inputs) -> bool:
    before = {name: array for name, array in runner.state().items() if name.startswith("batch_stats/")}
    after = runner.gradients(inputs).statistics
    return not before or any((after[name] != array).any() for name, array in before.items())


@contextmanager
def _each_dropout(runner: Runner, record: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Call record(module, input, output) at each call of dropout with a rate, inside a with statement."""

    def handler(call: Any, module: Any, path: str, args: Any, kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        if runner.is_dropout(module) and module.rate and args and out is not args[0]:
            record(module, args[0], out)
        return out

    with runner.intercepted(handler):
        yield


def dropout_calls(runner: Runner, inputs: Inputs, seed: int) -> list[Drop]:
    """Record every call of dropout. Raises: UsageError for one inside a transformation."""

    def make(drops: list[Any]) -> Any:
        def call(params: Any, rest: Any, arrays: list[Any], seed: Any) -> list[Any]:
            outside = get_opaque_trace_state()
            pairs: list[Any] = []
            drops.clear()

            def record(module: Any, into: Any, out: Any) -> None:
                if get_opaque_trace_state() != outside:
                    raise UsageError(
                        "masks of dropout inside nn.scan, nn.remat or another transformation cannot be judged"
                    )
                drops.append((module.rate, module.broadcast_dims))
                pairs.append((into, out))

            with _each_dropout(runner, record):
                runner.run(params, rest, runner.with_arrays(inputs, arrays), True, seed)
            return pairs

        return call

    function, drops = runner.compile("dropout", inputs, make)
    pairs = function(*runner.split(), runner.arrays(inputs), seed)
    return [
        describe_drop(to_numpy(into), to_numpy(out), rate, whole)
        for (into, out), (rate, whole) in zip(pairs, drops, strict=True)
    ]


def dropout_rates(runner: Runner, inputs: Inputs) -> list[float]:
    """List the rate of every call of dropout, from a run on shapes alone."""
    rates: list[float] = []
    with _each_dropout(runner, lambda module, into, out: rates.append(module.rate)):
        run_on_shapes(runner, inputs, True)
    return rates
