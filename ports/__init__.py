"""The same architectures in flax linen, PyTorch and PaddlePaddle, called the same way.

    port = ports.load("mixer.safetensors", framework="torch", dtype="float64")
    logits = port(images)  # numpy (n, c, h, w) -> numpy (n, classes)

Importing this imports no framework; `load` and `build`, below, import the one they are asked for, and make a Port.

flax/, torch/ and paddle/ have the networks, and runners/ the call that all models have in common. port is a network of
ours behind it, model what a port and a user's own model share; frameworks tells which are installed. images checks
inputs, preprocess and resampling make them; resize has the matrices by which networks resize. saving writes a
checkpoint, source and structure tell what a model is. new writes the files of a new architecture from template/, and
__main__ is the command line.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

try:
    import specs
    from convert.errors import UsageError, loading
    from convert.records.altered import WARNING
    from specs import config as configs
    from specs.spec import Spec
    from specs.words import count, hint, with_article
except ImportError:
    from triptych import hidden

    if hidden():
        raise ImportError(hidden()) from None
    raise

from .frameworks import available, network, ported, require

if TYPE_CHECKING:
    import numpy as np

    from convert.arrays.casting import Tally
    from convert.config.settings import Settings, Stated
    from convert.plans.plan import Plan

    from .port import Port

    Tallies = dict[str, Tally]  # by the names of arrays

__all__ = ["available", "build", "load", "names", "network", "ported", "require", "save", "variants"]
INITS = ("upstream", "random")
SHOWN = 60  # characters of a value in an error
# Paddle warns when it is imported that a compiler cache is missing, which nothing here needs.
warnings.filterwarnings("ignore", "No ccache found", UserWarning, r"paddle\.")
# torch warns once that it pads such inputs itself, which costs memory and changes no value.
warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths", UserWarning)


def load(
    path: str,
    framework: str,
    dtype: str | None = None,
    device: str = "cpu",
    *,
    src: str | None = None,
    weights: str | None = None,
    assume: bool = False,
    settings: Stated = None,
    unreplicate: bool = False,
    step: int | None = None,
    spec: str = "",
    **config: Any,
) -> Port:
    """Load a checkpoint of any dialect and format as a running port.

    Args:
      path: checkpoint: a file, a folder, or a file without its suffix.
      framework: flax, torch or paddle.
      dtype: what to compute in ("float64", "float32", "bfloat16", "float16"); by default the widest that the file
        holds, float32 of float8.
        float64 in flax switches JAX's x64 mode on, for the whole process.
      device: "cpu" or "gpu".
      src: dialect of the file, where it does not tell by itself.
      weights: which part of a training checkpoint, e.g. "state_dict_ema"; "/" is the root of the file.
      assume: accept the default of each setting that changes the outputs and that nobody states.
      settings: what the file leaves open: Config fields by name, or the path of a configuration file or of a checkpoint
        that has a record.
      unreplicate: take one of the equal replicas that pmap leaves in every array.
      step: which step of a training run's folder; None takes the newest.
      spec: a page of yours to add first, as `--spec` names it: a .py file or an entry point.
      config: the same, Config fields alone, and `preprocessing`, a mapping of its fields; they go above `settings`.
        `config="x.pdparams"`, as `ports.save` and the command line name a file or a Config, is taken as `settings`;
        what the file's arrays show, as other classes, must agree with it, unless it is stated by name too.
    Warns of the part that was taken, unless it is the root, of arrays that were set aside, of batch counters that the
    file does not hold and that begin at 0, of what the dialect's own code computes and the file does not say, of what
    is assumed of the file, now or when it was written, where `config` contradicts its record, of arrays of several
    dtypes in one file, and of values that become zero, infinite or imprecise in `dtype`.
    Raises: ConvertError for a file that does not fit, or whose arrays the port does not all use; UsageError for a
    framework that is not installed, and OpenFields, one of them, for what changes the outputs and nobody states.
    """
    from convert.pages import use
    from convert.plans.planning import plan

    require(framework)
    use([spec] if spec else [])
    from .port import Port
    from .source import Source

    options: dict[str, Any] = {"weights": weights, "assume": assume, "unreplicate": unreplicate, "step": step}
    with loading(), plan(path, src, framework, _stated(settings, config), **options) as loaded:
        source = Source.of(loaded.reader.path, loaded.reading.prefix)
        dtype, remarks = _dtype_and_remarks(loaded, dtype)
        _warn(path, remarks)
        lost: Tallies = {}
        arrays = _counted(loaded.arrays(), dtype, lost)
        port = Port(framework, loaded.architecture, loaded.config, arrays, dtype, device)
        _warn(path, _losses(lost, dtype))
        port.check_arrays()
        port.assumed, port.suggested, port.preprocessing = loaded.assumed, loaded.suggested, loaded.preprocessing
        port.supplied, port.source = loaded.supplied, source
        port.altered = loaded.record.changed.removeprefix(WARNING) if loaded.record.change else ""
        return port


class FileWarning(UserWarning):
    """All that there is to know of a file that `load` reads, one line each."""

    def __init__(self, path: str | os.PathLike[str], remarks: Sequence[str]):
        text = f" {remarks[0]}" if len(remarks) == 1 else "".join(f"\n  - {remark}" for remark in remarks)
        super().__init__(f"{path}:{text}")
        self.path, self.remarks = path, tuple(remarks)


def _warn(path: str | os.PathLike[str], remarks: Sequence[str]) -> None:
    """Warn the caller of `load` once."""
    if remarks:
        warnings.warn(FileWarning(path, remarks), stacklevel=3)


def _stated(settings: Stated, config: dict[str, Any]) -> Settings:
    """Join what `load` is told of the configuration: single fields go above `settings`. Raises: UsageError."""
    from convert.config.settings import Settings

    if (given := config.pop("config", None)) is not None:
        if settings is not None:
            raise UsageError("config and settings: both state the configuration: give one of them")
        from .saving import stated_by

        settings = stated_by(given)
    return Settings.of(settings).above(config)


def _dtype_and_remarks(loaded: Plan, dtype: str | None) -> tuple[str, list[str]]:
    """Return what to compute in, as `load` is asked or as the file holds it, and what there is to know of the file."""
    notes = *loaded.doubts(), *loaded.taken_from_dialect(), *loaded.filled(), *loaded.counts()[1]
    remarks = [note.removeprefix(WARNING) for note in (*loaded.part(), *loaded.left_out(), *notes)]
    if dtype is not None:
        return dtype, remarks
    dtypes = {tensor.dtype for tensor, _ in loaded.steps if tensor.dtype.startswith(("float", "bfloat"))}
    dtype = widest(dtypes)
    if len(dtypes) > 1:
        remarks.append(f"holds arrays of {', '.join(sorted(dtypes))}: computed in {dtype}")
    return dtype, remarks


def widest(dtypes: set[str]) -> str:
    """Return the narrowest dtype to compute in that holds every value of these floating-point dtypes."""
    from convert.arrays.dtypes import FLOATS, is_exact

    known = FLOATS if dtypes <= set(FLOATS) else ("float64", "float32")  # no framework computes in float8
    return next(wide for wide in reversed(known) if all(is_exact(dtype, wide) for dtype in dtypes))


def _counted(arrays: Iterable[tuple[str, np.ndarray]], dtype: str, lost: Tallies) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays as they are; collect in `lost` what values of which of them lose in this dtype."""
    from convert.arrays.casting import tally

    for name, array in arrays:
        yield name, array
        losses = tally(array, dtype)
        if losses.lost():
            lost[name] = losses


def _losses(lost: Tallies, dtype: str) -> list[str]:
    """Describe what is lost: each array that a conversion refuses, and the others by what became of their values."""
    from convert.arrays.dtypes import LOSSES
    from convert.folding import misfits, summarised

    refused = {name: problem for name, losses in lost.items() if (problem := losses.problem(dtype))}
    lines = misfits(refused.items())
    for kind, became in LOSSES.items():
        counts = {n: losses.lost()[kind] for n, losses in lost.items() if n not in refused and kind in losses.lost()}
        if counts:
            lines.append(f"{count(sum(counts.values()), 'value')} {became} in {dtype}: {summarised(counts)}")
    return lines


def build(
    architecture: str,
    variant: str | Any,
    framework: str,
    seed: int = 0,
    init: str = "upstream",
    dtype: str = "float32",
    device: str = "cpu",
    **config: Any,
) -> Port:
    """Build a freshly initialised port: upstream's initialisation, the same values in every framework for one seed.

    Args:
      architecture: as `names()` lists them.
      variant: its variant's name, "tiny NAME" for a small twin, a Config, or the path of a configuration file.
      seed: of the values that are drawn; those of the frameworks themselves, as torch.manual_seed, have no effect.
      init: "upstream" draws as the model's authors do, to train; "random" is for tests: no array zero or one, so that
        no fault hides behind it.
      config: Config fields to change, e.g. classes=10; and `preprocessing`, a mapping of its fields.
    Raises: UsageError for what is not there or does not fit, with the nearest name; PortError, one of them, for a port
      whose arrays are not those of the page.
    """
    from convert.config.settings import PREPROCESSING, in_our_terms

    stated = config.pop(PREPROCESSING, {})
    try:
        architecture = specs.resolve(architecture)
        spec = specs.get(architecture)
        base = _base(spec, architecture, variant)
        chosen = configs.build(spec.config, {**configs.as_dict(base), **in_our_terms(spec, config)})
        if init not in INITS:
            raise ValueError(f"init={init!r}: one of {', '.join(INITS)}")
    except (LookupError, ValueError) as error:
        raise UsageError(str(error)) from None
    require(framework)
    from .port import Port

    port = Port(framework, architecture, chosen, initial(architecture, chosen, framework, seed, init), dtype, device)
    port.check_arrays()
    port.preprocessing = stated
    return port


def _base(spec: Spec, architecture: str, variant: Any) -> Any:
    """Return the Config that `build` is asked for. Raises: ValueError, UsageError, LookupError for what is none."""
    if isinstance(variant, spec.config):
        return variant
    if isinstance(variant, str) and variant in spec.named:
        return spec.named[variant]
    if isinstance(variant, str | os.PathLike) and os.path.isfile(variant):
        return _configured(spec, architecture, os.fspath(variant))
    named = ", ".join(map(repr, spec.named))
    allowed = f"a variant ({named}), a Config of {architecture}, or the path of a configuration file"
    if isinstance(variant, str):
        raise ValueError(f"{architecture} has no variant {variant!r}{hint(variant, spec.named)} (give {allowed})")
    shown = repr(variant) if len(repr(variant)) <= SHOWN else f"{repr(variant)[:SHOWN]}..."
    some = ": fields go as keywords beside a variant, classes=10, or all of them into a JSON file"
    raise ValueError(f"{shown} is not {allowed}{some if isinstance(variant, Mapping) else ''}")


def _configured(spec: Spec, architecture: str, path: str) -> Any:
    """Return the Config that a configuration file states; the rest is as in the one variant that agrees with it.

    Raises: ValueError, UsageError, LookupError.
    """
    from convert.config.settings import in_our_terms, read_config

    settings = read_config(path)
    if settings.architecture not in ("", architecture):
        raise UsageError(f"{path}: is the configuration of {with_article(settings.architecture)}")
    for note in settings.notes:
        warnings.warn(note, stacklevel=3)
    try:
        values = in_our_terms(spec, settings.values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    every = [configs.as_dict(variant) for variant in spec.variants.values()]
    telling = [name for name in values if len({repr(variant.get(name)) for variant in every}) > 1]
    agreeing = [variant for variant in every if all(variant[name] == values[name] for name in telling)]
    base = agreeing[0] if telling and len(agreeing) == 1 else {}
    return configs.build(spec.config, {**base, **values})


def save(
    model: Any, path: str | os.PathLike[str], config: Any = None, architecture: str | None = None, **options: Any
) -> dict[str, Any]:
    """Write a port, torch module, linen module with variables or paddle layer with its record.

    Args:
      path: target; its suffix picks the format.
      config, architecture: of a model that is no port: a Config, {field: value}, or the path of a file that states it.
      options: assume=True accepts defaults of settings that change the outputs and that `config` does not state;
        force=True replaces an existing target.
    Returns: the record that travels with the checkpoint.
    Raises: UsageError for what is no model or does not fit; ConvertError where the target cannot be written.
    """
    from .port import Port
    from .saving import save

    if isinstance(model, Port):
        if config is not None:
            raise UsageError("config: a port has its own configuration")
        model, config = model.model, model.settings()
    return save(model, path, config, architecture, **options)


def initial(
    architecture: str, config: Any, framework: str, seed: int, init: str = "upstream"
) -> Iterable[tuple[str, np.ndarray]]:
    """Yield (name, values) of every array of a freshly initialised model, as the framework names and lays it out."""
    import numpy as np

    from specs.applied.arrays import apply
    from specs.dialects import HUB, table
    from specs.init import draw, sample
    from specs.layer import parameters

    values_of = {"upstream": draw, "random": sample}[init]
    spec = specs.get(architecture)
    ours = {parameter.name: parameter for parameter in parameters(list(spec.layers(config)))}
    layout = table(spec, HUB, framework, config).layout({name: parameter.shape for name, parameter in ours.items()})

    def values(name: str) -> np.ndarray:
        return values_of(ours[name], seed)

    for entry in layout.entries:
        assert isinstance(entry.filling, list)
        yield entry.name, np.ascontiguousarray(apply(entry.filling, entry.shape, values))


def names() -> list[str]:
    """Return every architecture."""
    return specs.names()


def variants(architecture: str) -> list[str]:
    """Return every official variant of an architecture. Raises: ValueError with the nearest name."""
    return list(specs.get(specs.resolve(architecture)).variants)
