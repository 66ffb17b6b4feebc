"""List what the command line compares: variants and tiny twins of an architecture, or a checkpoint."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import specs
from convert.config.settings import Settings, in_our_terms
from convert.errors import MissingFile, UsageError, called, option, printable
from convert.files.base import URL
from convert.files.inside import look
from convert.records.record import marked_by
from convert.terminal import say_note
from specs import config as configs
from specs.spec import TINY, SpecError
from specs.words import hint, unknown

if TYPE_CHECKING:
    import numpy as np

    from ports.port import Port

ASSUMED = "assumed: "  # begins what the code of a file's dialect suggests, see marked_by


def suggestions(config: Any, origins: Mapping[str, str]) -> tuple[str, ...]:
    """Return the settings that are assumed as a dialect's code computes: "gelu=tanh (official's own code)".

    Args:
      origins: what suggests each field, see marked_by.
    """
    marked = {name: by.removeprefix(ASSUMED) for name, by in origins.items() if by.startswith(ASSUMED)}
    return tuple(f"{text} ({marked[name]})" for name, text in configs.written(config).items() if name in marked)


@dataclass(frozen=True)
class Target:
    """One model with one set of weights.

    Args:
      variant: an official variant, "tiny NAME" for its small twin, or for a checkpoint its file's name and the variant
        that it was recognised as, if it was.
      path: the checkpoint; None for random weights, the same in every framework.
      src: the checkpoint's dialect, where it does not tell by itself.
      settings: Config fields that the user sets; of a checkpoint, all.
      assumed: those of them that nobody knows. origins: what states or suggests others that no array shows: "--set".
      weights: the part of the checkpoint that holds the model; None finds it.
    """

    architecture: str
    variant: str
    path: str | None = None
    seed: int = 0
    src: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    weights: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        return self.path is None and self.variant.startswith(TINY)

    def port(self, framework: str, dtype: str, device: str) -> Port:
        """Return the model in a framework. Raises: ConvertError, Unavailable."""
        import ports

        if self.path is not None:
            with warnings.catch_warnings(action="ignore"):  # `targets` has printed these notes
                return ports.load(
                    self.path, framework, dtype, device, src=self.src, weights=self.weights, **self.settings
                )
        return ports.build(self.architecture, self.config(), framework, self.seed, "random", dtype, device)

    def config(self) -> Any:
        """Return the model's Config. Raises: UsageError for settings that it cannot have."""
        spec = specs.get(self.architecture)
        if self.path is not None:
            return configs.build(spec.config, self.settings)
        config = spec.named[self.variant]
        try:
            return configs.build(spec.config, {**configs.as_dict(config), **self.settings}) if self.settings else config
        except ValueError as error:
            raise UsageError(f"{self.architecture}:{self.variant}: {error}") from None

    def assumptions(self) -> tuple[str, ...]:
        """Return the settings that are assumed, each with its value: "gelu=erf"."""
        return tuple(text for name, text in configs.written(self.config()).items() if name in self.assumed)

    def suggestions(self) -> tuple[str, ...]:
        """Return the settings that the code of the file's dialect states alone: "gelu=tanh (official's own code)"."""
        return suggestions(self.config(), self.origins)

    def settings_with_origins(self) -> dict[str, str]:
        """Write each setting by its name, with what states or suggests it: "gelu=erf (assumed)"."""
        origins = {**self.origins, **dict.fromkeys(self.assumed, "assumed")}
        texts = configs.written(self.config())
        return {name: f"{text} ({origins[name]})" if name in origins else text for name, text in texts.items()}

    def images(self, config: object, batch: int) -> np.ndarray:
        """Draw standard normal images (n, c, h, w) of the size that the network is built for."""
        from .random_images import draw

        return draw(batch, specs.get(self.architecture).input_shape(config), self.seed)


def targets(
    text: str,
    seed: int = 0,
    src: str | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    assume: bool = False,
    weights: str | None = None,
    step: int | None = None,
) -> Iterator[Target]:
    """Yield what an argument names: ARCH (its tiny twins), ARCH:VARIANT, ARCH:tiny NAME or a checkpoint.

    Args:
      step: which step of a training run's folder; None takes the newest.
    Raises: UsageError with the nearest name, or for settings that do not fit.
    """
    architecture, _, variant = text.partition(":")
    if not os.path.exists(text) and architecture.isidentifier():
        try:
            specs.resolve(architecture)  # may be an entry point
        except SpecError as error:
            raise UsageError(str(error)) from None
        except ValueError:  # an unknown name, reported below
            pass
    if text.endswith(".py") and os.path.isfile(text):
        name = os.path.splitext(os.path.basename(text))[0]
        way = f"if it is the page of an architecture: {called('parity')} {name} --spec {shlex.quote(text)}"
        raise UsageError(f"{text}: is Python code, not a checkpoint ({way})")
    stated = Settings.of(settings)
    if os.path.exists(text) or (architecture not in specs.names() and _is_checkpoint(text)):
        yield _checkpoint(text, seed, src, stated, assume, weights, step)
    elif step is not None and architecture in specs.names():
        raise UsageError(f"{option('step', str(step))}: {text} is an architecture, not a folder of steps")
    elif architecture in specs.names():
        yield from _models(architecture, variant, seed, stated)
    elif "/" in text or os.path.splitext(text)[1]:
        raise MissingFile(text)
    else:
        page = f"{architecture}.py"
        more = f": if {page} is its page, add --spec {page}" if os.path.isfile(page) else hint(text, specs.names())
        raise UsageError(f"{text!r} is neither an architecture ({', '.join(specs.names())}) nor a file{more}")


def _models(architecture: str, variant: str, seed: int, stated: Settings) -> list[Target]:
    """Return a variant of an architecture, or its tiny twins, with the fields that the user states."""
    spec = specs.get(architecture)
    known = list(spec.named)
    twins = [name for name in known if name.startswith(TINY)]
    if variant and variant != TINY.strip() and variant not in known:
        raise UsageError(f"{architecture}: {unknown(variant, known)} (variants: {', '.join(map(repr, known))})")
    chosen = [variant] if variant in known else twins
    try:
        fields = in_our_terms(spec, stated.values)
    except (LookupError, ValueError) as error:
        file = option("config", stated.file) if stated.file else "its configuration"
        raise UsageError(f"{architecture}: {file}: {error.args[0]}") from None
    for note in stated.notes:
        say_note(note)
    origins = {name: _stated_by(stated, name) for name in fields}
    models = [Target(architecture, name, seed=seed, settings=fields, origins=origins) for name in chosen]
    for target in models:
        try:
            target.config()  # refused before the first one runs
        except UsageError as error:
            origin = f"; stated by {option('config', stated.file)}" if stated.file and not stated.chosen else ""
            refusal = UsageError(f"{error}{origin}")
            refusal.unknown = configs.unknown_fields(spec.config, fields)
            raise refusal from None
    return models


def _is_checkpoint(text: str) -> bool:
    """Tell whether a name that no file has is of a checkpoint: at a URL, or of a file without its suffix."""
    return bool(URL.match(text)) or look(text).path != text


def _checkpoint(
    path: str, seed: int, src: str | None, settings: Settings, assume: bool, weights: str | None, step: int | None
) -> Target:
    """Read the whole Config of a checkpoint; print once which part is taken, what is set aside and what is doubtful."""
    from convert.plans.planning import plan

    with plan(path, src, settings=settings, weights=weights, assume=assume, step=step) as planned:
        path = planned.reader.path
        for note in (*planned.part(), *planned.left_out(), *planned.doubts(), *planned.taken_from_dialect()):
            say_note(f"{path}: {note}")
        file, values = printable(os.path.basename(os.path.abspath(path))), configs.as_dict(planned.config)
        part = planned.reading.prefix
        name = " ".join(filter(None, (file, part and f"[{printable(part)}]", planned.variant)))
        stated = [f for f, by in planned.origins.items() if by == "user" and f not in planned.configuration.shown]
        origins = {f: _stated_by(settings, f) for f in stated}
        origins |= {f: marked_by(by) for f, by in planned.suggested.items()}
        return Target(planned.architecture, name, path, seed, src, values, planned.assumed, part or "/", origins)


def _stated_by(settings: Settings, name: str) -> str:
    """Name the option that states a Config field; a name of the dialect's own users has become another field."""
    option_of = "--config" if settings.of_file(name) else "--set"
    return option_of if name in settings.values else "stated"
