"""Run a JAX function of (parameters, inputs) behind the common call (gradients, training: functional.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convert.errors import UsageError

from ..structure import Structure
from . import functional, jax_trees
from .inputs import Inputs
from .records import Module


class Function(NamedTuple):
    """A function and the tree that it takes first; leaves of it that are no arrays stay as they are."""

    function: Callable[..., Any]
    tree: Any

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class Runner(functional.Runner):
    """It has no modules: its outputs, gradients and parameters are compared, and no layers."""

    library = "jax"
    model: Function
    handler: Callable[..., Any] | None = None  # takes the place of the call

    @classmethod
    def own(cls, model: Any, training: Mapping[str, Any] | None = None) -> Runner:
        """Run a user's (function, parameters)."""
        function, tree = model
        arrays = [leaf for leaf in jax.tree.leaves(tree) if jax_trees.is_array(leaf) or isinstance(leaf, np.ndarray)]
        return cls(Function(function, tree), jax_trees.floating(arrays), jax_trees.device_of(arrays), {})

    @classmethod
    def build(
        cls, network: Any, config: Any, tensors: Iterable[tuple[str, np.ndarray]], dtype: str, device: str
    ) -> Runner:
        raise UsageError("ports in flax are linen modules")

    def called(self) -> Any:
        return functools.partial(self.model.function, self.model.tree)

    def signature(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        return self.called(), {}

    def structure(self) -> Structure:
        return {}

    def split(self) -> tuple[Any, Any]:
        """Return the arrays of real and complex numbers of the tree, and its other arrays, by path."""
        arrays = {path: jnp.asarray(leaf) for path, leaf in _leaves(self.model.tree) if _is_array(leaf)}
        trained = {path: array for path, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.inexact)}
        return trained, {path: array for path, array in arrays.items() if path not in trained}

    def joined(self, params: Any, rest: Any) -> Function:
        arrays = {**params, **rest}
        leaves = [arrays.get(path, leaf) for path, leaf in _leaves(self.model.tree)]
        return Function(self.model.function, jax.tree.unflatten(jax.tree.structure(self.model.tree), leaves))

    def run(self, params: Any, rest: Any, inputs: Inputs, training: bool, seed: Any = 0) -> tuple[Any, Any]:
        call = functools.partial(self.model.function, self.joined(params, rest).tree)
        if self.handler is None:
            return call(*inputs.args, **inputs.kwargs), rest
        return self.handler(call, call, "", inputs.args, inputs.kwargs), rest

    @contextmanager
    def intercepted(self, handler: Callable[..., Any]) -> Iterator[None]:
        before, self.handler = self.handler, handler
        try:
            yield
        finally:
            self.handler = before

    def modules(self, inputs: Inputs) -> dict[str, Module]:
        return {"": Module((self.model.name,))}

    def is_dropout(self, module: Any) -> bool:
        return False

    def require_training(self, inputs: Inputs) -> None:
        """Take the function as it is in training too: what it does there is its arguments' and its tree's business."""

    def flat(self, params: Any, rest: Any) -> dict[str, np.ndarray]:
        return {path: jax_trees.to_numpy(array) for path, array in {**params, **rest}.items()}

    def cast(self, dtype: str) -> Runner:
        params, rest = self.split()
        other = type(self)(self.joined(jax_trees.cast(params, dtype), rest), dtype, self.device, self.training)
        other.without_dropout = self.without_dropout
        return other


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return each leaf with its path, as derive names it: "layers/0/w"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)
