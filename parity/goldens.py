"""Read golden cases: a checkpoint of an original implementation, and that code's outputs for some images.

A case is a folder with the checkpoint in its own format, io.safetensors, which has the arrays "input_nchw"
and "eval/logits.f64", and case.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

import ports
import specs
from convert.config.variants import restrictions
from convert.dialect_faults import check_dialects
from convert.documents import document
from convert.errors import ConvertError, OpenFields, UsageError, called
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.plans.plan import Plan
from convert.plans.planning import plan
from convert.reading.recognise import dialects
from convert.terminal import say_note
from parity.given.quoting import some
from parity.results.elements import relative_error, worst
from parity.results.tolerance import FLOAT64
from ports.frameworks import unported
from specs.config import misfits, tuples
from specs.numbers import exact, limit, short
from specs.spec import SpecError
from specs.words import in_a_row

LIMIT = FLOAT64["forward"]  # of errors of logits
IO, ABOUT = "io.safetensors", "case.json"
IMAGES, LOGITS = "input_nchw", "eval/logits.f64"  # arrays in IO
EXAMPLE = '{"repo": "owner/name", "commit": "1a2b3c4"}'  # of `upstream`
COMPARISON = """
import parity, ports, specs.dialects
import {script} as golden

model, images = golden.build()
port = ports.load({options})
table = specs.dialects.table(port.spec, {framework!r}, {dialect!r}, port.config)
models = {{{framework!r}: port, 'original': model{cast}}}
print(parity.compare(models, images.numpy(), check='layers', names=table))
"""  # of a port with the original, as docs/own-architecture.md explains it


def write(
    folder: str | os.PathLike[str],
    *,
    checkpoint: str,
    architecture: str,
    images: np.ndarray,
    logits: np.ndarray,
    settings: Mapping[str, Any],
    param_count: int,
    upstream: Mapping[str, str],
    page: str = "",
    **arrays: np.ndarray,
) -> None:
    """Write io.safetensors and case.json beside the checkpoint that lies in a folder.

    Args:
      checkpoint: the name of the file there.
      images: (n, c, h, w), float64.
      logits: (n, classes), what the original computes of them in inference, in float64.
      settings: Config fields that the checkpoint leaves open.
      param_count: the original's own count of its trained parameters.
      upstream: whose code ran: {"repo": ..., "commit": ...}.
      page: the file of the architecture, with whose Config `settings` are compared; "" for one that is known already.
      arrays: anything else that it recorded.
    Raises: UsageError that lists everything that makes this no golden case; nothing is written then. SpecError for a
    page with a fault.
    """
    folder = os.fspath(folder)
    if page:
        specs.add(page)
    wrong = _of_settings(architecture, settings)
    problems = [*_of_checkpoint(folder, checkpoint), *_of_arrays(images, logits), *wrong, *_of_upstream(upstream)]
    if problems:
        raise UsageError(f"{folder}: this is no golden case", problems)
    stored = {IMAGES: images, LOGITS: logits, **arrays}
    stored = {name: np.ascontiguousarray(array) for name, array in stored.items()}
    tensors = {name: Tensor(name, array.shape, array.dtype.name) for name, array in stored.items()}
    path = os.path.join(folder, IO)
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, list(tensors.values()), {})
        for name, tensor in tensors.items():
            writer.write(tensor, [stored[name].tobytes()])
        writer.finish()
    about = {
        "case": os.path.basename(folder), "architecture": architecture, "upstream": dict(upstream),
        "settings": dict(settings), "input_layout": "NCHW", "param_count": param_count,
        "files": {name: _sha256(os.path.join(folder, name)) for name in sorted([checkpoint, IO])},
    }  # fmt: skip
    with open(os.path.join(folder, ABOUT), "w", encoding="utf-8") as text:
        text.write(json.dumps(about, indent=1) + "\n")


def _of_checkpoint(folder: str, name: str) -> Iterator[str]:
    """Describe a checkpoint that is not there, or is no file."""
    path = os.path.join(folder, name)
    if os.path.isdir(path):
        yield f"checkpoint: {path} is a folder: save the model as one file"
    elif not os.path.isfile(path):
        yield f"checkpoint: there is no file {path}: save it before the case is written"
    elif name in (IO, ABOUT):
        yield f"checkpoint: {name} is a file that this function writes: call the checkpoint otherwise"


def _of_arrays(images: np.ndarray, logits: np.ndarray) -> Iterator[str]:
    """Describe what is wrong with the images and logits of a case."""
    for name, array, axes in (("images", images, "n c h w"), ("logits", logits, "n classes")):
        if array.dtype != np.float64:
            yield f"{name}: are {array.dtype}: run the model in float64, on images in float64"
        if array.ndim != len(axes.split()):
            yield f"{name}: have shape {list(array.shape)}, not ({', '.join(axes.split())})"
        elif not np.isfinite(array).all():
            yield f"{name}: have NaNs or infinities"
    if len(images) != len(logits):
        yield f"logits: are of {len(logits)} images, and there are {len(images)}"


def _of_settings(architecture: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Describe settings that no Config of an architecture has; nothing, if the architecture is not known."""
    if architecture in specs.names():
        yield from (f"settings: {problem}" for problem in misfits(specs.get(architecture).config, settings))


class Golden(NamedTuple):
    """A case as read: `weights` is the path of its checkpoint, for the rest see `write`."""

    @property
    def name(self) -> str:
        """Return the name of the case's folder."""
        return os.path.basename(os.path.dirname(os.path.abspath(self.weights)))

    weights: str
    settings: Mapping[str, Any]
    images: np.ndarray
    logits: np.ndarray
    about: Mapping[str, Any]


def read(folder: str | os.PathLike[str]) -> Golden:
    """Read a case; of several checkpoints of one model take the last by name."""
    folder = os.fspath(folder)
    path = os.path.join(folder, ABOUT)
    if not os.path.isfile(path):
        raise ConvertError(f"{path}: there is no such file: is {folder} a golden case?")
    with open(path, encoding="utf-8") as text:
        about = json.load(text)
    if problems := list(_of_about(folder, about)):
        raise ConvertError(f"{path}: is not that of a complete golden case", problems)
    with open_checkpoint(os.path.join(folder, IO)) as reader:
        images, logits = (
            np.frombuffer(bytes(reader.read(name)), reader.tensors[name].dtype).reshape(reader.tensors[name].shape)
            for name in (IMAGES, LOGITS)
        )
    weights = max(name for name in about["files"] if name != IO)
    settings = {name: tuples(value) for name, value in about.get("settings", {}).items()}
    return Golden(os.path.join(folder, weights), settings, images, logits, about)


def _of_about(folder: str, about: Mapping[str, Any]) -> Iterator[str]:
    """Describe what case.json lacks, and the files that are not those that it lists."""
    if not isinstance(about.get("architecture"), str):
        yield "architecture: is missing: the name of the page"
    files = about.get("files", {})
    if not files.keys() - {IO}:
        yield f"files: name no checkpoint, with its SHA-256, beside {IO}"
    for name, stored in files.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            yield f"files: there is no file {path}"
        elif (own := _sha256(path)) != stored:
            yield f"files: {name} has the SHA-256 {own}, and not {stored}: write the case again"
    yield from _of_upstream(about.get("upstream", {}))


def _of_upstream(upstream: Mapping[str, str]) -> Iterator[str]:
    """Describe what is missing of where the original code comes from."""
    if lacking := [name for name in ("repo", "commit") if not upstream.get(name)]:
        yield f"upstream: lacks {in_a_row(lacking)}: where the original code comes from, as in {EXAMPLE}"


def outputs(case: Golden) -> dict[str, np.ndarray]:
    """Run a case's checkpoint in float64, in every framework that is installed and has a port of its architecture.

    Returns: {framework: logits}.
    """
    return {
        framework: ports.load(case.weights, framework, dtype="float64", **case.settings)(case.images)
        for framework in ports.ported(case.about["architecture"])
    }


def check(folder: str | os.PathLike[str], page: str = "") -> int:
    """Run a case in every framework, and print each error with what to do about those that are too large.

    What cannot be run is printed too, and is no exception; a fault of the page is printed once for all of its cases.

    Args:
      page: the file of the case's architecture; "" for an architecture of this repository.
    Returns: the exit status: 1 if an error is more than LIMIT, or if nothing was run.
    """
    folder = os.fspath(folder)
    try:
        return _check(folder, page)
    except OpenFields as error:
        text = str(_open_settings(folder, error))
    except (ConvertError, SpecError) as error:
        text = str(error)
    print(f"{folder}: was not run, for the same reason" if text in _printed else text, file=sys.stderr)
    _printed.add(text)
    return 1


_printed: set[str] = set()  # errors of cases so far


def run(main: Callable[[], int]) -> int:
    """Run the `main` of a script that writes a case, and print what its user has to mend as one error.

    Returns: the exit status.
    """
    try:
        return main()
    except (ConvertError, SpecError) as error:
        print(error, file=sys.stderr)
        return error.code if isinstance(error, ConvertError) else UsageError.code


def _open_settings(folder: str, error: OpenFields) -> ConvertError:
    """Return the error for Config fields that the settings of a case lack, with the remedies of a case."""
    fixed = "or in the `conventions` of the dialect, if the original code has no other value"
    lines = [f"{name} ({values}): state it in the `settings` of goldens.write, {fixed}"
             for name, values in error.fields.items()]  # fmt: skip
    return ConvertError(f"{folder}: the case leaves {in_a_row(error.fields)} open: {error.why}", lines)


def _check(folder: str, page: str) -> int:
    case = read(folder)
    architecture = case.about["architecture"]
    if (named := specs.add(page) if page else architecture) != architecture:
        raise ConvertError(f"{folder}: is a case of {architecture!r}, and the page is {named!r}: state the page's name")
    if architecture not in specs.names():
        raise ConvertError(f"{folder}: is a case of {architecture!r}, which is no architecture here: name its page")
    if not ports.ported(architecture):
        raise UsageError(f"{folder}: nothing was run, as {unported(architecture)}")
    check_dialects(architecture)
    shared = _shared(folder, case, page)
    if constant := _constant(case.weights):
        what = "holds one number throughout" if len(constant) == 1 else "hold one number each throughout"
        say_note(f"{case.name}: {some(constant)} {what}: a fault could hide behind it, so draw random numbers")
    with warnings.catch_warnings(record=True) as caught:
        computed = outputs(case)
    for note in dict.fromkeys(line for one in caught for line in _remarks(one.message)):  # of each port alike
        say_note(note.replace(f"{case.weights}: ", f"{case.name}: "))
    errors = {framework: worst(case.logits, logits) for framework, logits in computed.items()}
    for framework, compared in errors.items():
        remark = f", more than {limit(LIMIT)}" if compared.error > LIMIT else ""
        error = f"error relative to the largest logit: {short(compared.error)}{remark}"
        print(f"{case.name}, {framework}: {compared.between('the case', framework).cause or error}")
    if all(compared.error <= LIMIT for compared in errors.values()):
        return 0
    first, *others = computed.values()
    if all(relative_error(first, other) <= LIMIT for other in others):
        print(shared)
    else:
        words = [case.weights, *(["--spec", page] if page else [])]
        words += [word for name, value in case.settings.items() for word in ("--set", f"{name}={exact(value)}")]
        print(f"to find where the ports part: {called('parity')} {shlex.join(words)} --check layers")
    return 1


def _constant(path: str) -> list[str]:
    """Return the arrays of a checkpoint that have several numbers, which are all equal, as those of new norms are."""
    with open_checkpoint(path) as reader:
        several = [name for name, t in reader.tensors.items() if t.dtype in ("float32", "float64") and t.size > 1]
        values = ((name, np.frombuffer(bytes(reader.read(name)), reader.tensors[name].dtype)) for name in several)
        return [name for name, numbers in values if (numbers == numbers[0]).all()]


def _remarks(warning: Warning | str) -> list[str]:
    """Return what `ports.load` warns of, each behind the file's name."""
    if isinstance(warning, ports.FileWarning):
        return [f"{warning.path}: {remark}" for remark in warning.remarks]
    return [str(warning)]


def _shared(folder: str, case: Golden, page: str) -> str:
    """Return what all ports compute a case's logits from: where to look if they agree with each other alone.

    Raises: ConvertError that lists what does not fit a case.
    """
    with plan(case.weights, settings=case.settings, architecture=case.about["architecture"]) as made:
        if problems := list(_misfits(case, made)):
            raise ConvertError(f"{folder}: does not fit its checkpoint", problems)
        fixed = dialects(made.architecture)[made.src].conventions
        values = ", ".join(f"{name}={exact(value)}" for name, value in {**fixed, **case.settings}.items())
        first, *others = ports.ported(made.architecture)
        cause = f"one port ran: what the port in {first} computes is wrong, or one of these"
        if others:
            cause = "the ports agree with each other: what they share is wrong, or all have the same mistake"
        return (
            f"{cause}\n"
            f"  - the settings of the case and the conventions of dialect {made.src!r}: {values or 'none'}\n"
            f"  - the lines of dialect {made.src!r}\n"
            f"  - the case: logits of other weights or images, or of training mode\n"
            f"  - the network, as the page and {'all ports' if others else 'the port'} have it\n"
            f"to find the layer, compare a port with the original itself, beside the script that wrote the case "
            f"({document('own-architecture')}):\n{_comparison(case, made, page)}"
        )


def _comparison(case: Golden, made: Plan, page: str) -> str:
    """Return the lines of Python that compare a port with the model that the script of a case builds."""
    outside = specs.folder(made.architecture) is not None
    dialect, ported = dialects(made.architecture)[made.src], ports.ported(made.architecture)
    framework = dialect.framework if dialect.framework in ported else ported[0]
    options = [repr(case.weights), repr(framework), "dtype='float64'", *([f"spec={page!r}"] if outside else [])]
    return COMPARISON.format(
        script=f"{'' if outside else 'parity_tests.'}{made.architecture}_golden",
        options=", ".join([*options, *(f"{name}={value!r}" for name, value in case.settings.items())]),
        framework=framework,
        dialect=made.src,
        cast=".double()" if dialect.framework == "torch" else "",
    )


def _misfits(case: Golden, made: Plan) -> Iterator[str]:
    """Describe what a case, or the page's dialect, says of a model and its checkpoint does not."""
    if case.about.get("param_count", made.parameters) != made.parameters:
        yield f"param_count: the case says {case.about['param_count']:,}, the page's layers have {made.parameters:,}"
    classes = case.logits.shape[-1]
    if made.config.classes not in (0, classes):
        yield f"logits: are of {classes} classes, the model has {made.config.classes}"
    for name, (fixed, own) in restrictions(made.architecture, made.config, made.src).items():
        wrote = f"{made.src}'s own code wrote the case with {name}={exact(own)}"
        yield f"{wrote}, and `requires` of the dialect says that it has {name}={exact(fixed)} alone: leave that out"


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
