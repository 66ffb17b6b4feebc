"""Give the right model the left one's weights, by a Table that is derived and proven on the spot."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from convert.errors import ConvertError, UsageError
from specs.applied.arrays import flat
from specs.solving.matching import Matcher
from specs.table import Table, TableError
from specs.words import in_a_row

from .deriving import derive
from .findings.derivation import Derivation
from .fold.rows import DerivedTable, moved
from .trace.call import call_of
from .trace.sides import arrays_of, class_of, side
from .trace.tape import Array


def transfer(
    left: Any, right: Any, inputs: Any = None, right_inputs: Any = None, *, reverse: bool | None = None, **options: Any
) -> Any:
    """Derive the Table, and return a copy of the right model with the left's weights.

    Args:
      left, right, inputs, right_inputs, options: as those of derive(). With table=d, what derive() returned, nothing is
        derived again: the models may have other weights, depths and widths, inputs are not needed, and `left` may also
        be {name: array}. It takes weights back as well, from what was the right model to what was the left one. Beside
        it, lengths of axes that no shape of either model shows, as `d.table.apply` takes them: p=5.
      reverse: beside table=d, whether to take weights back. Names of arrays tell it, and classes where both sides have
        the same names.
    Returns: what `right` is: a torch module, a paddle layer, an nnx module, (linen module, variables) or (function,
      parameters). Its dtypes stay as they are.
    Raises: ConvertError where the Table is not proven, with what derive() found; TableError where a Table at hand does
      not fit the models; UsageError where neither names nor classes tell the direction in which to read it.
    """
    derivation, like, lengths = options.get("table"), None, dict[str, int]()
    if not isinstance(derivation, Derivation):
        if inputs is None and isinstance(derivation, Table):
            raise UsageError(
                "a Table alone shows no proof: give inputs too, by which one with its lines is derived, or table=d, "
                "what derive() returned, which translates in both directions; table.apply(arrays) proves nothing"
            )
        if reverse is not None:
            raise UsageError("reverse: of use with table=d alone, what derive() returned")
        derivation = derive(left, right, () if inputs is None else inputs, right_inputs, **options)
    else:
        like, lengths = arrays_of(side(right, call_of(()))), _lengths(derivation.table, options)
    if not derivation.proven:
        raise ConvertError("the models were not proven equal: nothing was transferred", reasons(derivation))
    arrays = left if isinstance(left, Mapping) else arrays_of(side(left, call_of(())))
    is_back = _is_back(derivation, left, right, flat(arrays)) if reverse is None else reverse
    table = derivation.table.reverse() if is_back else derivation.table
    return loaded(right, table.apply(arrays, like, **lengths))


def _lengths(table: Table, options: Mapping[str, Any]) -> dict[str, int]:
    """Return the lengths of axes among the options beside table=d. Raises: UsageError for other options."""
    lengths = {name: length for name, length in options.items() if name != "table"}
    axes = set[str]().union(*(line.axes for line in table.lines))
    if others := lengths.keys() - axes:
        what = "of no use with table=d, by which nothing is derived again, and no axis of its Table"
        raise UsageError(f"{in_a_row(sorted(others))}: {what}")
    return lengths


def _fits(table: DerivedTable, names: Iterable[str]) -> bool:
    """Tell whether arrays of these names are those of a Table's left side."""
    matching = Matcher(table, {*names, *table.unread[0]}).match()
    return not (matching.missing or matching.unexpected or matching.problems)


def _is_back(derivation: Derivation, left: Any, right: Any, names: Iterable[str]) -> bool:
    """Tell whether weights go back: from a model with names of the right side alone, or else with its class.

    Raises: UsageError where neither tells it, and both directions give other arrays.
    """
    table, back = derivation.table, derivation.table.reverse()
    if not _fits(back, names) or not _fits(table, names):
        return _fits(back, names)
    if _are_alike(table, back):
        return False
    given = None if isinstance(left, Mapping) else class_of(left), class_of(right)
    ways = [own for own in (derivation.classes, derivation.classes[::-1])
            if all(name in (None, classes[""]) for name, classes in zip(given, own, strict=True))]  # fmt: skip
    if len(ways) != 1:
        what = "both models of the derivation have the same names, and give each other's weights another order"
        raise UsageError(
            f"{what}: state reverse=False to take them from what was the left one, reverse=True to go back"
        )
    return ways[0] is not derivation.classes


def _are_alike(table: DerivedTable, back: DerivedTable) -> bool:
    """Tell whether a Table and its reverse make the same of arrays."""
    numbers = {name: np.arange(math.prod(shape)).reshape(shape) for name, shape in table.known.items()}
    try:
        one, other = moved(table, numbers), moved(back, numbers)
    except TableError:  # of lengths that are not those of these arrays
        return False
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def reasons(derivation: Derivation) -> list[str]:
    """Return why a Table is not proven, a line each."""
    lines = [text for text in (derivation.depths, derivation.sizes) if text]
    lines += [*(line.text for line in derivation.places), *derivation.lacking]
    lines += [f"not shown, as both models read it and no proof exchanges it: {name}" for name in derivation.unshown]
    return lines or [f"{derivation.outputs}, or gradients do"]


def loaded(model: Any, arrays: Mapping[str, Array]) -> Any:
    """Return a copy of a model with these arrays in place of its own."""
    torch, paddle, nnx = (sys.modules.get(name) for name in ("torch", "paddle", "flax.nnx"))
    if torch and isinstance(model, torch.nn.Module):
        from ports.runners.torch_ties import copied

        model = copied(model)
        state = model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, array in arrays.items():
                state[name].copy_(torch.from_numpy(np.array(array)).reshape(state[name].shape))
                _check_finite(name, array, bool(state[name].isfinite().all()))
        return model
    if paddle and isinstance(model, paddle.nn.Layer):
        model = copy.deepcopy(model)
        state = model.state_dict()
        for name, array in arrays.items():
            state[name].set_value(paddle.to_tensor(np.array(array), dtype=state[name].dtype))
            _check_finite(name, array, bool(paddle.isfinite(state[name].astype("float64")).all()))
        return model
    if nnx and isinstance(model, nnx.Module):
        graph, state = nnx.split(model)
        flat = []
        for path, variable in nnx.to_flat_state(state):
            name = "/".join(map(str, path))
            flat.append((path, variable.replace(_like(name, arrays[name], variable.get_value())) if name in arrays
                         else variable))  # fmt: skip
        return nnx.merge(graph, nnx.from_flat_state(flat))
    if not isinstance(model, tuple):  # a bound linen module
        module, variables = model.unbind()
        return module.bind(loaded((module, variables), arrays)[1])
    return model[0], _tree(model[1], arrays)


def _tree(tree: Any, arrays: Mapping[str, Array]) -> Any:
    import jax

    from .trace.jax_tape import path_name

    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    new = [_like(name, arrays[name], leaf) if (name := path_name(path)) in arrays else leaf for path, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, new)


def _like(name: str, array: Array, leaf: Any) -> Any:
    import jax.numpy as jnp

    new = jnp.asarray(array, leaf.dtype)
    _check_finite(name, array, bool(jnp.isfinite(new).all()))
    return new


def _check_finite(name: str, array: Array, finite: bool) -> None:
    """Check that no value became infinite in the right model's dtype. Raises: ConvertError."""
    if not finite and np.isfinite(array).all():
        raise ConvertError(f"{name}: has values that are infinite in the right model's dtype: give it a wider one")
