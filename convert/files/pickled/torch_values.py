"""Represent what the names in a torch checkpoint's pickle stand for: storages and views of them, all inert.

Source: torch/_utils.py (`_rebuild_*`), torch/storage.py (storage types), torch/serialization.py (persistent ids).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from convert.files.base import ITEMSIZE, shown
from convert.files.strided import span

from .numpy_values import NUMPY, Array, checked_shape
from .sources import Refused
from .values import HARMLESS, MALFORMED, Handler, Handlers, Pairs, Symbol, deferred, ignored, is_foreign, unexpected

# Storage types by name; UntypedStorage counts bytes, and the tensor brings its dtype.
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}  # fmt: skip
STORAGE_DTYPES = {
    **{f"{module}.{name}": dtype for module in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
    **dict.fromkeys(["torch.storage.UntypedStorage", "torch.storage._UntypedStorage"], "uint8"),
}
# Storages of quantized tensors, of which two or four elements may share a byte, by the dtype that is as wide.
QUANTIZED = {
    f"torch.Q{name}Storage": dtype
    for name, dtype in {
        "Int8": "int8", "Int32": "int32", "UInt8": "uint8", "UInt4x2": "uint8", "UInt2x4": "uint8",
    }.items()
}  # fmt: skip

# torch's names of dtypes that may be mentioned; those in ITEMSIZE may be read.
ALIASES = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
DTYPES = {f"torch.{name}": name for name in ITEMSIZE} | {f"torch.{name}": dtype for name, dtype in ALIASES.items()}

_PLAIN = "save plain, dense tensors: state_dict() of the model before quantization or compilation"
_WRAPPED = (
    "is of a subclass: spread over devices (DTensor), or quantized",
    "where it was written save {name: value.full_tensor()} of DTensors, value.dequantize() of quantized ones",
)
_NOT_PLAIN = {
    "qtensor": "is quantized",
    "sparse_tensor": "is sparse",
    "sparse_csr_tensor": "is sparse",
    "nested_tensor": "is a nested tensor",
    "meta_tensor_no_storage": "is a tensor without data (device 'meta')",
}
UNSUPPORTED = {
    "torch._dynamo.eval_frame.OptimizedModule": (
        "a module of torch.compile that was pickled whole",
        "load it by the program that wrote it, and save model.state_dict()",
    ),
    "torch.jit._pickle.restore_type_tag": ("a TorchScript module", "save torch.jit.load(file).state_dict()"),
}
MAX_FLAGS = 8  # of one tensor; torch has two


@dataclass(frozen=True, slots=True)
class Storage:
    """`size` elements of `dtype`, from element `offset` of the `whole` ones that the file keeps under `key`."""

    key: str
    dtype: str
    offset: int
    size: int
    whole: int
    quantized: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: elements of a storage; offset and strides in elements of `dtype`."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    attributes: bool = False  # does the file set attributes on the tensor object?


def storage_of(identity: Any) -> Storage:
    """Return the storage a persistent id refers to. Raises: Refused."""
    match identity:
        case ("storage", Symbol(name=name), str() as key, _, int() as size, *view) if (
            name in STORAGE_DTYPES | QUANTIZED and size >= 0
        ):
            dtype = (STORAGE_DTYPES | QUANTIZED)[name]
        case _:
            raise Refused(
                "refers to data in an unknown way (its persistent id is no storage)", "do not trust this file"
            )
    match view:
        case [] | [None]:
            return Storage(key, dtype, 0, size, size, quantized=name in QUANTIZED)
        case [(_, int() as offset, int() as part)] if offset >= 0 and 0 <= part <= size - offset:
            return Storage(key, dtype, offset, part, size)
    raise Refused("holds a storage that reaches outside another", MALFORMED)


def view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str = "") -> View:
    """Return a tensor within its storage. Raises: Refused where it reaches outside or repeats elements."""
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise unexpected("a tensor's constructor")
    if storage.quantized:
        raise Refused("is quantized", _PLAIN)
    shape, strides = checked_shape(shape), checked_shape(strides)
    dtype = dtype or storage.dtype
    there = storage.size * ITEMSIZE[storage.dtype] // ITEMSIZE[dtype]
    if len(shape) != len(strides) or offset < 0 or offset + span(shape, strides) > max(there, offset):
        problem = f"its shape {shape}, strides {strides} and offset {offset} lead outside its storage of {there:,}"
        raise Refused(f"{problem} elements", MALFORMED)
    if math.prod(shape) > there:
        problem = f"has shape {shape} on a storage of only {there:,} elements"
        raise Refused(problem, "if it was expanded on purpose, save it after .contiguous()")
    return View(storage, offset, shape, strides, dtype)


def _no_flags(flags: list[Any]) -> None:
    """Refuse the optional last argument, which says that bits are to be read conjugated or negated."""
    match flags:
        case [] | [None]:
            return
        case [Pairs() as pairs] if len(pairs) <= MAX_FLAGS and not any(value for _, value in pairs):
            return
    raise Refused("is lazily conjugated or negated", "save it after .resolve_conj().resolve_neg()")


def _rebuild(args: tuple[Any, ...]) -> View:
    match args:
        case (storage, offset, shape, strides):
            return view(storage, offset, shape, strides)
    raise unexpected("a tensor's constructor")


def _rebuild_v2(args: tuple[Any, ...]) -> View:
    match args:
        case (storage, offset, shape, strides, _, _, *flags):
            _no_flags(flags)
            return view(storage, offset, shape, strides)
    raise unexpected("a tensor's constructor")


def _rebuild_v3(args: tuple[Any, ...]) -> View:
    match args:
        case (storage, offset, shape, strides, _, _, Symbol(name=name), *flags) if name in DTYPES:
            _no_flags(flags)
            return view(storage, offset, shape, strides, DTYPES[name])
        case (_, _, _, _, _, _, Symbol(name=name), *_):
            raise Refused(f"has dtype {name}, which cannot be converted", "save it as another dtype")
    raise unexpected("a tensor's constructor")


def _refuse(problem: str, remedy: str = _PLAIN) -> Handler:
    """Return the handler of tensors that are not stored as plain numbers."""

    def handle(args: tuple[Any, ...]) -> View:
        raise Refused(problem, remedy)

    return handle


def _parameter(args: tuple[Any, ...]) -> View | Array:
    """Return torch's (data, requires_grad, hooks) and, for a parameter with attributes of its own, their dict."""
    match args:
        case (View() as data, *rest):
            return replace(data, attributes=data.attributes or any(rest[2:]))
        case (Array() as array, *_):  # of a device without storages
            return array
    raise unexpected("torch's parameter constructor")


def _from_device(args: tuple[Any, ...]) -> View | Array:
    """Return a tensor of a TPU, XLA or like device: (its data on the CPU, dtype, device, requires_grad).

    bfloat16 is stored as float32, numpy having no such type, and is read as that.
    """
    match args:
        case (View() | Array() as data, Symbol(name=name), *_) if DTYPES.get(name) == data.dtype or (
            (DTYPES.get(name), data.dtype) == ("bfloat16", "float32")
        ):
            return data
    raise unexpected("a device's tensor constructor")


def _rebuild_npu(args: tuple[Any, ...]) -> View:
    """Return a tensor of an NPU: torch's arguments, and the layout that it had there; the file has the usual one."""
    match args:
        case (storage, offset, shape, strides, _, _, *_):
            return view(storage, offset, shape, strides)
    raise unexpected("a tensor's constructor")


def _from_type(args: tuple[Any, ...]) -> View:
    match args:
        case (Symbol(name=function), Symbol(name=kind), tuple() as inner, state) if function in REBUILD and (
            kind in TYPES or (is_foreign(kind) and not kind.startswith("torch."))
        ):
            return replace(REBUILD[function](inner), attributes=bool(state))
        case (Symbol(name=function), *_) if function == WRAPPER:
            raise Refused(*_WRAPPED)
        case (Symbol(name=function), *_) if function not in REBUILD and is_foreign(function):
            raise Refused(f"is of a subclass that {shown(function)[1:-1]} builds; nothing was run", _PLAIN)
    raise unexpected("a tensor subclass")


def _size(args: tuple[Any, ...]) -> tuple[int, ...]:
    match args:
        case (tuple() as shape,):
            return checked_shape(shape)
    raise unexpected("torch.Size")


REBUILD: dict[str, Handler] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    **{f"torch._utils._rebuild_{name}": _refuse(problem) for name, problem in _NOT_PLAIN.items()},
}
TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

WRAPPER = "torch._utils._rebuild_wrapper_subclass"
DEVICES = ("xla_tensor", "device_tensor_from_numpy", "device_tensor_from_cpu_tensor")
_TENSORS: dict[str, Handler] = {
    **REBUILD,
    **dict.fromkeys([WRAPPER, "torch.distributed.tensor.DTensor"], _refuse(*_WRAPPED)),
    **dict.fromkeys(["torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"], _parameter),
    **dict.fromkeys(["torch._tensor._rebuild_from_type_v2", "torch.tensor._rebuild_from_type_v2"], _from_type),
    **{f"torch._utils._rebuild_{name}": _from_device for name in DEVICES},
    **{f"torch_npu.utils.{module}._rebuild_npu_tensor": _rebuild_npu for module in ("storage", "serialization")},
}
HANDLERS: Handlers = {
    **HARMLESS,
    **NUMPY,
    **{name: deferred(handler) for name, handler in _TENSORS.items()},
    **dict.fromkeys([*TYPES, *STORAGE_DTYPES, *QUANTIZED], None),
    **dict.fromkeys(DTYPES, None),
    **dict.fromkeys([f"torch.{kind}" for kind in ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")], None),
    "torch.device": ignored("a device"),
    "torch.torch_version.TorchVersion": ignored("a text"),
    "torch.serialization._get_layout": ignored("a memory layout"),
    "torch.Size": _size,
}
