"""Executes a plan a tensor at a time: read by ranges, permuted in strips, verified on disk, renamed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from . import manifest
from .errors import ConvertError, UsageError
from .formats import open_checkpoint, writer_for
from .formats.base import ITEMSIZE, Tensor, Writer
from .formats.sharded import shard_name
from .notation import Move
from .planning import FLOATS, Constant, Plan, Step
from .progress import Progress

if TYPE_CHECKING:
    import numpy as np

PIECE = 1 << 17  # bytes a write: larger ones are slower on common virtual disks
STRIP = 64  # rows of a source read and permuted at once


def write(
    plan: Plan, out: str, force: bool = False, prove: Callable[[str], Any] | None = None, shard_size: int | None = None
) -> dict[str, Any]:
    """Write a plan's target file; it appears whole, verified and under its name, or not at all.

    Args:
      out: target; its suffix picks the format.
      force: replace an existing file.
      prove: called with the path of the finished file before it gets its name; raises to refuse it.
      shard_size: bytes of payload a file; more become several files and an index (safetensors only).
    Returns: the record that travels with the file.
    """
    writer_type = writer_for(out)
    shards = split(plan.steps, shard_size)
    if len(shards) > 1 and not writer_type.keeps_metadata:
        raise UsageError(f"{out}: only .safetensors is written in shards")
    names = [out] if len(shards) == 1 else [shard_name(out, k + 1, len(shards)) for k in range(len(shards))]
    index = out + ".index.json" if len(shards) > 1 else None
    for name in [*names, *filter(None, [index])]:
        _check_target(plan.reader.path, name, force)
    about = manifest.describe(plan)
    with contextlib.ExitStack() as stack:
        progress = Progress(sum(tensor.nbytes for tensor, _ in plan.steps), os.path.basename(out))
        stack.callback(progress.close)
        claims = [stack.enter_context(_claimed(name)) for name in names]
        about["tensors"] = {}
        for steps, (file, temporary) in zip(shards, claims, strict=True):
            record = about if index is None else None
            about["tensors"] |= _write_file(plan, steps, writer_type, file, temporary, record, progress)
        if index is not None:
            _write_index(index, about, shards, names, [temporary for _, temporary in claims], prove, force)
        elif prove is not None:
            prove(claims[0][1])
        if not writer_type.keeps_metadata:
            _write_beside(out + ".json", {**about, "bytes": os.path.getsize(claims[0][1])})
        for name, (_, temporary) in zip(names, claims, strict=True):
            _publish(temporary, name, force)
    return about


def split(steps: list[Step], shard_size: int | None) -> list[list[Step]]:
    """Steps in groups whose payloads fit the size; a tensor larger than it has a group of its own."""
    groups: list[list[Step]] = [[]]
    room = shard_size
    for step in steps:
        if shard_size is not None and room is not None:
            if step[0].nbytes > room and groups[-1]:
                groups.append([])
                room = shard_size
            room -= step[0].nbytes
        groups[-1].append(step)
    return groups


def _write_file(
    plan: Plan,
    steps: list[Step],
    writer_type: type[Writer],
    file: IO[bytes],
    path: str,
    about: dict[str, Any] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Some of a plan's tensors into one file, synced and verified; their lines of the record.

    The record goes into the file's own metadata where it has such, unless `about` is None: then an index holds it.
    """
    tensors = [tensor for tensor, _ in steps]
    reserved = manifest.blank(about, tensors) if about is not None else None
    writer = writer_type(file, tensors, _kept(writer_type, reserved, reserve=True))
    lines = {}
    for step in steps:
        digest = manifest.Digest(step[0])
        writer.write(step[0], progress.of(digest.of(chunks(plan, step))))
        lines[step[0].name] = digest.line()
    if about is not None and writer_type.keeps_metadata:
        writer.annotate(_kept(writer_type, {**about, "tensors": lines}))
    writer.finish()
    file.flush()
    os.fsync(file.fileno())
    _verify(path, lines)
    return lines


def _write_index(
    index: str,
    about: dict[str, Any],
    shards: list[list[Step]],
    names: list[str],
    temporaries: list[str],
    prove: Callable[[str], Any] | None,
    force: bool,
) -> None:
    """The index of a sharded checkpoint; proven, where asked, through an index of the files not yet named."""
    about["bytes"] = None

    def content(files: list[str]) -> dict[str, Any]:
        where = {t.name: os.path.basename(f) for f, steps in zip(files, shards, strict=True) for t, _ in steps}
        size = sum(t.nbytes for steps in shards for t, _ in steps)
        return {"metadata": {"total_size": size, manifest.KEY: json.dumps(about)}, "weight_map": where}

    if prove is not None:
        unnamed = index.removesuffix(".index.json") + ".unproven.index.json"
        try:
            _write_beside(unnamed, content(temporaries))
            prove(unnamed)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unnamed)
    _write_beside(index, content(names))


def _kept(writer_type: type[Writer], about: dict[str, Any] | None, reserve: bool = False) -> dict[str, str]:
    """The record as safetensors metadata ("format" is what transformers asks for), with room for counts to come."""
    if not writer_type.keeps_metadata:
        return {}
    if about is None:
        return {"format": "pt"}
    room = " " * (32 * len(about["tensors"])) if reserve else ""
    return {"format": "pt", manifest.KEY: json.dumps(about) + room}


def arrays(plan: Plan) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every target tensor; bfloat16 widened to float32, exactly."""
    import numpy as np

    for tensor, filling in plan.steps:
        wide = Tensor(tensor.name, tensor.shape, "float32" if tensor.dtype == "bfloat16" else tensor.dtype)
        data = bytearray(b"".join(chunks(plan, (wide, filling))))
        yield tensor.name, np.frombuffer(data, wide.dtype).reshape(tensor.shape)


def chunks(plan: Plan, step: Step) -> Iterator[bytes | bytearray | memoryview]:
    """The payload of a target tensor, in pieces."""
    tensor, filling = step
    if isinstance(filling, Constant):
        yield filling.value.to_bytes(8, "little", signed=True) if filling.value else bytes(tensor.nbytes)
        return
    source = plan.sources[filling[0].source]
    held = "bfloat16" if source.dtype == "uint16" else source.dtype
    if filling[0].copies:
        pieces: Iterator[Any] = _ranges(plan, source)
    else:
        pieces = _sliced(_permuted(plan, tensor, filling))
    yield from pieces if held == tensor.dtype else (cast(piece, held, tensor) for piece in pieces)


def _ranges(plan: Plan, source: Tensor) -> Iterator[bytes | bytearray | memoryview]:
    for start in range(0, source.nbytes, PIECE):
        yield plan.reader.read(source.name, start, min(start + PIECE, source.nbytes))


def _sliced(array: np.ndarray) -> Iterator[memoryview]:
    flat = array.reshape(-1).view("u1").data
    for start in range(0, len(flat), PIECE):
        yield flat[start : start + PIECE]


def _permuted(plan: Plan, tensor: Tensor, parts: list[Move]) -> np.ndarray:
    """A target tensor's bits, filled from strips of its sources: memory for one tensor and one strip."""
    import numpy as np

    bits = f"V{size}" if (size := ITEMSIZE[plan.sources[parts[0].source].dtype]) > 8 else f"u{size}"
    out = np.empty(tensor.shape, bits)
    for move in parts:
        source = plan.sources[move.source]
        if source.size:
            _fill(out.reshape(move.target_atoms)[move.place], move, source, plan, bits)
    return out


def _fill(target: np.ndarray, move: Move, source: Tensor, plan: Plan, bits: str) -> None:
    """One source into its place, a strip of its leading axis at a time."""
    import numpy as np

    lead, *rest = move.source_atoms or (1,)
    row = source.nbytes // lead
    chosen = move.select[0] if move.select else slice(None)
    inverse = np.argsort(move.order)
    view = target.transpose(inverse)  # in the source's own order
    first, last = (chosen, chosen + 1) if isinstance(chosen, int) else (0, lead)
    for start in range(first, last, STRIP):
        stop = min(start + STRIP, last)
        data = plan.reader.read(source.name, start * row, stop * row)
        strip = np.frombuffer(data, bits).reshape(stop - start, *rest)[(slice(None), *move.select[1:])]
        if isinstance(chosen, int):
            view[...] = strip[0]
        elif strip.ndim == 2:
            padded = np.empty(
                (stop - start, strip.shape[1] + 64 // strip.itemsize), bits
            )  # off the cache's powers of two
            padded[:, : strip.shape[1]] = strip
            view[start:stop] = padded[:, : strip.shape[1]]
        elif move.select:
            view[start:stop] = strip
        else:
            view[...] = strip.reshape(view.shape)


def cast(piece: Any, held: str, tensor: Tensor) -> bytes:
    """A piece of payload in another floating-point dtype, rounded to nearest even.

    Raises: ConvertError where a finite value has no finite counterpart.
    """
    import numpy as np

    if held not in FLOATS:
        raise ConvertError(f"{tensor.name} is {held}: only floating-point tensors change dtype")
    with np.errstate(over="ignore"):
        wide = _from_bfloat16(piece) if held == "bfloat16" else np.frombuffer(piece, held)
        bits = _to_bfloat16(wide) if tensor.dtype == "bfloat16" else wide.astype(tensor.dtype)
        back = _from_bfloat16(bits) if tensor.dtype == "bfloat16" else bits
        lost = np.isfinite(wide) & ~np.isfinite(back)
    if lost.any():
        raise ConvertError(
            f"{tensor.name} holds {wide[lost][0]:.6g}, too large for {tensor.dtype}: keep the source's dtype"
        )
    return bits.tobytes()


def _from_bfloat16(bits: Any) -> np.ndarray:
    import numpy as np

    return (np.frombuffer(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Upper halves of float32, rounded to nearest even; NaNs stay NaNs. Doubles first go to float32, rounded to odd."""
    import numpy as np

    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    if values.dtype == np.float64:  # a sticky last bit keeps the second rounding from seeing a false tie
        inexact = (single != values) & np.isfinite(single)
        toward_zero = np.where(np.abs(single) > np.abs(values), bits - 1, bits)
        bits = np.where(inexact, toward_zero | 1, bits)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def _verify(path: str, lines: dict[str, dict[str, Any]]) -> None:
    """Read a written file back from disk and compare every tensor with what was meant."""
    with open_checkpoint(path) as reader:
        if problems := manifest.differences(reader, lines):
            raise ConvertError(f"{path}: reads back otherwise than it was written: the disk is at fault", problems)


def _check_target(source: str, out: str, force: bool) -> None:
    """Raises: ConvertError before anything is read where the target cannot be."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise ConvertError(f"{out}: there is no folder {folder}: create it first")
    if os.path.exists(out) and os.path.samefile(source, out):
        raise UsageError(f"{out}: is the source itself: give another -o")
    if os.path.isdir(out):
        raise ConvertError(f"{out}: is a folder: give a file name")
    for path in (out, out + ".json"):
        if os.path.lexists(path) and not force and path == out:
            raise ConvertError(f"{path}: exists: --force replaces it")
    if not os.access(folder, os.W_OK):
        raise ConvertError(f"{folder}: is not writable: give -o a place elsewhere")


@contextlib.contextmanager
def _claimed(out: str) -> Iterator[tuple[IO[bytes], str]]:
    """A temporary file beside the target that only this process writes; gone at the end, however it ends.

    A file that a killed run left behind is taken over: what is locked is alive, what is not is stale.
    """
    folder, name = os.path.split(os.path.abspath(out))
    temporary = os.path.join(folder, f".{name}.part")
    try:
        file = _lock(temporary)
    except OSError as error:
        raise ConvertError(f"{out}: cannot be written: {error.strerror}") from None
    if file is None:
        raise ConvertError(f"{out}: another conversion is writing it: wait for that one")
    try:
        yield file, temporary
    except OSError as error:
        raise ConvertError(f"{out}: cannot be written: {error.strerror}; nothing was left behind") from None
    finally:
        if os.path.exists(temporary) and os.fstat(file.fileno()).st_ino == os.stat(temporary).st_ino:
            os.unlink(temporary)
        file.close()


def _lock(path: str) -> IO[bytes] | None:
    """The file at `path`, empty and locked; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if os.path.exists(path) and os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
            file.truncate(0)
            return file
        file.close()  # its owner gave it its name between our opening and our locking


def _publish(temporary: str, out: str, force: bool) -> None:
    """Give a finished file its name: at once, and without force only if nothing has that name."""
    if force:
        os.replace(temporary, out)
    else:
        try:
            os.link(temporary, out)
        except FileExistsError:
            raise ConvertError(f"{out}: appeared meanwhile: --force replaces it") from None
        except OSError:  # a file system without hard links
            os.replace(temporary, out)
    folder = os.open(os.path.dirname(os.path.abspath(out)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_beside(path: str, about: dict[str, Any]) -> None:
    with _claimed(path) as (file, temporary):
        file.write((json.dumps(about, indent=1) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, path)
