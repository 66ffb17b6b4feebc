"""Recognise arrays that are stored once for each device, as pmap leaves them, and read one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from convert.errors import ConvertError, command_or_call, option
from convert.files import open_checkpoint
from convert.files.base import PIECE, Reader, Tensor, Wrapped
from convert.folding import fold
from specs.words import first_few

from .readings import Reading
from .spelling import respelled

ONCE = (
    "save one replica, as one axis is removed here and no second one, e.g. "
    "jax.tree.map(lambda array: array[0, 0], state)"
)
NAMED = 5  # arrays that an error names


def leading(tensors: Iterable[Tensor]) -> int:
    """Return the length of a first axis that every array has; 0 where they differ, or one has none."""
    lengths = {tensor.shape[:1] for tensor in tensors}
    return lengths.pop()[0] if len(lengths) == 1 and () not in lengths else 0


def without_replicas(reading: Reading) -> Reading | None:
    """Remove a leading axis that has the same length on every array; None where there is none."""
    if not leading(reading.tensors.values()):
        return None
    tensors = {name: tensor._replace(shape=tensor.shape[1:]) for name, tensor in reading.tensors.items()}
    return replace(reading, tensors=tensors)


def twice(path: str, reading: Reading) -> ConvertError:
    """Return the error for a file whose arrays fit once two such axes are removed, as of hosts and of devices."""
    first, second = next(iter(reading.tensors.values())).shape[:2]
    problem = f"every array has two leading axes, of {first} and {second}, as where pmap's replicas were stacked again"
    rest = f"behind both they are those of {reading.architecture} ({reading.dialect})"
    return ConvertError(f"{path}: {problem} (hosts, devices); {rest}: {ONCE}")


def count(reading: Reading) -> int:
    """Return the number of replicas, for a reading that has them."""
    return next(iter(reading.tensors.values())).shape[0]


def replication(number: int, behind: str) -> str:
    """Say that the arrays of a file fit once an axis of so many replicas is removed, and how to take one.

    Args:
      behind: what the arrays behind that axis do: "are those of ...".
    """
    problem = f"every array has a leading axis of {number}, as pmap adds for {number} devices"
    save = "or save one, e.g. flax.jax_utils.unreplicate(state)"
    call = command_or_call("a conversion with --unreplicate", option("unreplicate"))
    return f"{problem}; behind it they {behind}: {call} takes one of them if all are equal; {save}"


def replicated(path: str, reading: Reading) -> ConvertError:
    """Return the error for a file whose arrays fit once that axis is removed."""
    return ConvertError(
        f"{path}: {replication(count(reading), f'are those of {reading.architecture} ({reading.dialect})')}"
    )


class FirstReplica(Wrapped):
    """A file with the first replica in place of each of some arrays, whose leading axis counts the replicas.

    Raises: ConvertError that names arrays whose replicas are not all equal.
    """

    def __init__(self, reader: Reader, replicated: Iterable[Tensor], what: str = ""):
        wholes = {tensor.name: tensor for tensor in replicated}
        _check_equal(reader, wholes)
        tensors = {
            name: tensor._replace(shape=tensor.shape[1:]) if name in wholes else tensor
            for name, tensor in reader.tensors.items()
        }
        number = next(iter(wholes.values())).shape[0]
        super().__init__(reader, tensors, [f"took the first of {number} replicas{what}, which are equal"])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        return self.reader.read(name, start, self.tensors[name].nbytes if stop is None else stop)

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        return Reader.pieces(self, name)  # by `read`, up to the end of the first replica


def _check_equal(reader: Reader, wholes: Mapping[str, Tensor]) -> None:
    """Compare all replicas with the first. Raises: ConvertError that names arrays whose replicas differ.

    A second reader goes ahead through the file, so that each reads in order: compressed arrays have no other way.
    """
    with contextlib.ExitStack() as stack:
        ahead = stack.enter_context(open_checkpoint(reader.path)) if reader.on_disk else reader
        ahead = ahead if wholes.keys() <= ahead.tensors.keys() else respelled(ahead)
        ahead = ahead if wholes.keys() <= ahead.tensors.keys() else reader  # which has names of its own
        differing = [name for name, tensor in wholes.items() if not all(_pieces_equal(reader, ahead, tensor))]
    if differing:
        remedy = "average what was never synced (batch statistics: jax.lax.pmean) and save one replica"
        raise ConvertError(f"{reader.path}: the replicas of {first_few(fold(differing), NAMED)} differ: {remedy}")


def _pieces_equal(reader: Reader, ahead: Reader, tensor: Tensor) -> Iterator[bool]:
    """Compare every replica with the first, a piece at a time; of small replicas, as many as fit a piece."""
    name, whole = tensor.name, tensor.nbytes
    size = whole // tensor.shape[0]
    if 0 < size <= PIECE:
        first, group = bytes(reader.read(name, 0, size)), PIECE // size * size
        for start in range(0, whole, group):
            stop = min(start + group, whole)
            yield ahead.read(name, start, stop) == first * ((stop - start) // size)
    elif size:
        for replica in range(size, whole, size):
            for start in range(0, size, PIECE):
                stop = min(start + PIECE, size)
                yield reader.read(name, start, stop) == ahead.read(name, replica + start, replica + stop)
