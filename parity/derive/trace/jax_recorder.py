"""Read jaxprs as tapes: calls are inlined and scans unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import jax.numpy as jnp
import numpy as np

from .call import WIDE
from .jax_values import BY_PARAMETERS, LOW, NUMPY, array_of, bound, evaluated, inner, layout_of
from .tape import Operation, Tape, identity

CALLS = frozenset([
    "pjit", "jit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
    "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
])  # fmt: skip
SAME = frozenset([
    "copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint", "device_put",
    "reshard", "mesh_cast", "pvary",
])  # fmt: skip

ROWS_BY_MATRIX = (((1,), (1,)), ((), ())), (0,), (0,)  # axes of a ragged product: rows, each with one of the matrices
CODED = {  # layouts that code asks for, and what they are called: of an axis of length 1, x[:, 0] is a squeeze in JAX
    "reshape": "reshape", "rev": "rev", "tile": "tile", "stack": "stack", "concatenate": "concatenate",
    "squeeze": "select",
}  # fmt: skip
EINSUM = "->"  # in what einsum adds to the path of the module that calls it: "bij,jk->bik"


def _arithmetic(operation: str, of_integers: Callable[..., Any] | None = None) -> Callable[..., int]:
    """Return the form of arithmetic of real or complex numbers. Args: of_integers: None for what JAX does."""

    def form(self: Reader, eqn: Any, inputs: list[int], site: str) -> int:
        if not self._floating(eqn):
            return self.tape.record("other", inputs, of_integers or bound(eqn), site)
        return getattr(self.tape, operation)(*inputs, site)

    return form


class Reader:
    """Write the equations of jaxprs to a tape; calls and scans are written out."""

    def __init__(self, tape: Tape):
        self.tape = tape

    def read(self, jaxpr: Any, constants: Sequence[int], arguments: Sequence[int], site: str = "") -> list[int]:
        def results(eqn: Any, inputs: list[int]) -> list[int]:
            own = "/".join(name for name in str(eqn.source_info.name_stack).split("/") if EINSUM not in name)
            return self._equation(eqn, inputs, "/".join(filter(None, (site, own))))

        return evaluated(jaxpr, constants, arguments, results, lambda atom: self.tape.constant(array_of(atom.val)))

    def _equation(self, eqn: Any, inputs: list[int], site: str) -> list[int]:
        name, params = eqn.primitive.name, eqn.params
        self.tape.complex |= any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in eqn.outvars)
        if name in CALLS:
            jaxpr, constants = next(inner(eqn))
            return self.read(jaxpr, [self.tape.constant(array_of(c)) for c in constants], inputs, site)
        if name == "scan":
            return self._scan(params, inputs, site)
        if name == "cond" and (branch := self._branch(params, inputs[0])) is not None:
            constants = [self.tape.constant(array_of(c)) for c in branch.consts]
            return self.read(branch.jaxpr, constants, inputs[1:], site)
        special = getattr(self, f"_{name}", None)
        if special is not None:
            return [special(eqn, inputs, site)]
        if name in SAME:
            return [self.tape.layout(value, identity, site) for value in inputs]
        run = layout_of(name, params, eqn)
        if run is not None and self._floating(eqn):
            call = Operation.of(CODED[name], params) if name in CODED else None
            return [self.tape.record("layout", inputs, run, site, call=call)]
        if name == "split":
            edges = np.cumsum(params["sizes"])[:-1]
            parts = (part_of(edges, params["axis"], k) for k in range(len(edges) + 1))
            call = Operation.of(name, params)
            return [self.tape.record("layout", inputs, part, site, call=call) for part in parts]
        if name == "unstack":  # how jax 0.11 takes an array apart
            return [self.tape.layout(inputs[0], row_of(params["axis"], k), site) for k in range(len(eqn.outvars))]
        if run is None:
            run = BY_PARAMETERS[name](params) if name in BY_PARAMETERS else NUMPY.get(name) or bound(eqn)
        call = Operation.of(name, params)
        every = self.tape.record("other", inputs, run, site, call=call)
        if not eqn.primitive.multiple_results:
            return [every]
        return [
            self.tape.record("other", [every], lambda values, k=k: values[k], site) for k in range(len(eqn.outvars))
        ]

    def _branch(self, params: Any, index: int) -> Any:
        """Return the branch that runs; None if that depends on the inputs.

        Of branches that compute the same for several platforms, return the one for any platform: it is the plainest.
        """
        platforms = params.get("branches_platforms") or ()
        if None in platforms:
            return params["branches"][platforms.index(None)]
        if index not in self.tape.constants:
            return None
        branches = params["branches"]
        return branches[int(np.clip(self.tape.constants[index], 0, len(branches) - 1))]  # as lax.switch clamps

    def _scan(self, params: Any, inputs: list[int], site: str) -> list[int]:
        fixed, carried = _scanned(params)
        length, closed, steps = params["length"], params["jaxpr"], range(params["length"])
        constants = [self.tape.constant(array_of(c)) for c in closed.consts]
        carry, rows = inputs[fixed : fixed + carried], []
        scanned = inputs[fixed + carried :]
        if params["reverse"]:
            scanned = [self.tape.record("layout", [value], np.flipud, site, call=Operation("rev")) for value in scanned]
        for t in steps:
            xs = [self.tape.layout(value, itemgetter(t), site) for value in scanned]
            results = self.read(closed.jaxpr, constants, [*inputs[:fixed], *carry, *xs], f"{site}[{t}]")
            carry = results[:carried]
            rows.append(results[carried:])
        if params["reverse"]:
            rows.reverse()
        stacked = [
            self.tape.record("layout", [row[k] for row in rows], lambda *a: np.stack(a), site)
            for k in range(len(rows[0]) if length else 0)
        ]
        return [*carry, *stacked]

    # Equations with a form of their own.

    def _floating(self, eqn: Any) -> bool:
        """Tell whether the result has real or complex numbers, no integers."""
        return bool(jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact))

    _add = _add_any = _arithmetic("add", np.add)
    _sub, _mul = _arithmetic("subtract", np.subtract), _arithmetic("multiply", np.multiply)
    _div = _arithmetic("divide")

    def _convert_element_type(self, eqn: Any, inputs: list[int], site: str) -> int:
        source, target = eqn.invars[0].aval.dtype, np.dtype(eqn.params["new_dtype"])
        if jnp.issubdtype(source, jnp.floating) and jnp.issubdtype(target, jnp.floating):
            return self.tape.layout(inputs[0], identity, site)
        if target.kind == "c" and source == target:
            return self.tape.layout(inputs[0], identity, site)
        wide = np.float64 if target.name in LOW else WIDE["c"] if target.kind == "c" else target
        lifted = np.dtype(wide)  # bfloat16 has a kind of its own
        call = Operation.of("convert_element_type", {})
        return self.tape.record("other", inputs, lambda a: np.asarray(a).astype(lifted), site, call=call)

    def _dot_general(self, eqn: Any, inputs: list[int], site: str) -> int:
        (left_k, right_k), (left_b, right_b) = eqn.params["dimension_numbers"]
        x, w = (v.aval.shape for v in eqn.invars)
        left_free = [d for d in range(len(x)) if d not in (*left_k, *left_b)]
        right_free = [d for d in range(len(w)) if d not in (*right_k, *right_b)]
        batch, k = _count(x, left_b), _count(x, left_k)
        shape = [*(x[d] for d in left_b), *(x[d] for d in left_free), *(w[d] for d in right_free)]
        left = self.tape.layout(
            inputs[0], lambda a: a.transpose(*left_b, *left_free, *left_k).reshape(batch, _count(x, left_free), k), site
        )
        right = self.tape.layout(
            inputs[1],
            lambda a: a.transpose(*right_b, *right_k, *right_free).reshape(batch, k, _count(w, right_free)),
            site,
        )
        join = self.tape.product if left_k else self.tape.multiply  # without a sum, as of outer products
        return self.tape.layout(join(left, right, site), lambda a: a.reshape(shape), site)

    def _ragged_dot_general(self, eqn: Any, inputs: list[int], site: str) -> int:
        """Record rows that are sorted by their matrices, as tokens by experts, as a batch of one row each."""
        dims = eqn.params["ragged_dot_dimension_numbers"]
        if (dims.dot_dimension_numbers, dims.lhs_ragged_dimensions, dims.rhs_group_dimensions) != ROWS_BY_MATRIX:
            return self.tape.record("other", inputs, bound(eqn), site)
        x, w = (v.aval.shape for v in eqn.invars[:2])
        matrices = np.arange(w[0] + 1)  # the last one, of zeros, is that of rows behind all groups
        which = self.tape.record(
            "other", inputs[2:3], lambda counts: np.repeat(matrices, [*counts, x[0] - sum(counts)]), site
        )
        chosen = self.tape.record(
            "layout", [inputs[1], which], lambda a, at: np.pad(a, ((0, 1), (0, 0), (0, 0)))[at], site
        )
        rows = self.tape.layout(inputs[0], lambda a: a[:, None], site)
        return self.tape.layout(self.tape.product(rows, chosen, site), lambda a: a[:, 0], site)

    def _pad(self, eqn: Any, inputs: list[int], site: str) -> int:
        zeros = not np.any(self.tape.constants.get(inputs[1], 1))
        kind = "layout" if zeros and self._floating(eqn) else "other"
        return self.tape.record(kind, inputs, bound(eqn, element_numbers=zeros), site, call=Operation("pad"))

    def _conv_general_dilated(self, eqn: Any, inputs: list[int], site: str) -> int:
        p = eqn.params
        if p["batch_group_count"] != 1:
            return self.tape.record("other", inputs, bound(eqn), site)
        lhs, rhs, out = p["dimension_numbers"]
        x = self.tape.layout(inputs[0], lambda a: a.transpose(lhs), site)
        w = self.tape.layout(inputs[1], lambda a: a.transpose(rhs), site)
        y = self.tape.convolve(
            x, w, p["window_strides"], list(map(tuple, p["padding"])), p["rhs_dilation"], p["feature_group_count"],
            p["lhs_dilation"], site,
        )  # fmt: skip
        return self.tape.layout(y, lambda a: a.transpose(np.argsort(out)), site)


def _count(shape: Sequence[int], dims: Sequence[int]) -> int:
    return int(np.prod([shape[d] for d in dims], dtype=int))


def _scanned(params: Any) -> tuple[int, int]:
    """Return how many of a scan's inputs are the same in each step, and how many are carried from step to step."""
    if "num_consts" in params:  # up to jax 0.10
        return params["num_consts"], params["num_carry"]
    fixed, carried, _ = params["ft_in"].unpack()
    return len(list(fixed)), len(list(carried))


def part_of(edges: Any, axis: int, k: int) -> Callable[[Any], Any]:
    return lambda a: np.split(a, edges, axis)[k]


def row_of(axis: int, k: int) -> Callable[[Any], Any]:
    return lambda a: np.moveaxis(a, axis, 0)[k]
