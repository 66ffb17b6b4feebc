"""What the command line compares: an architecture's variants and tiny twins, or a checkpoint. No framework needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import specs
from convert.errors import UsageError
from specs.config import unknown

if TYPE_CHECKING:
    import numpy as np

    from ports.port import Port

TINY = "tiny "  # ahead of a twin's name


@dataclass(frozen=True)
class Target:
    """One model with one set of weights.

    Args:
      variant: an official variant, "tiny NAME" for its small twin, or for a checkpoint what it was recognised as.
      path: the checkpoint; None for random weights, the same in every framework.
    """

    architecture: str
    variant: str
    path: str | None = None
    seed: int = 0

    @property
    def small(self) -> bool:
        return self.variant.startswith(TINY)

    def port(self, framework: str, dtype: str, device: str) -> Port:
        """The model in a framework. Raises: ConvertError, Unavailable."""
        import ports

        if self.path is not None:
            return ports.load(self.path, framework, dtype, device)
        spec = specs.get(self.architecture)
        config = spec.TINY[self.variant.removeprefix(TINY)] if self.small else spec.VARIANTS[self.variant]
        return ports.build(self.architecture, config, framework, self.seed, "random", dtype, device)

    def images(self, config: object, batch: int) -> np.ndarray:
        """Standard normal images (n, c, h, w) of the size that the network was made for."""
        from .numbers import draw

        return draw(batch, specs.get(self.architecture).input_shape(config), self.seed)


def targets(text: str, seed: int = 0) -> Iterator[Target]:
    """What an argument names: ARCH (its tiny twins), ARCH:VARIANT, ARCH:tiny NAME or a file.

    Raises: UsageError with the nearest name.
    """
    architecture, _, variant = text.partition(":")
    if os.path.exists(text):
        yield _checkpoint(text, seed)
    elif architecture in specs.names():
        spec = specs.get(architecture)
        twins = [TINY + name for name in spec.TINY]
        known = [*spec.VARIANTS, *twins]
        if variant and variant != TINY.strip() and variant not in known:
            raise UsageError(f"{architecture}: {unknown(variant, known)} (variants: {', '.join(known)})")
        chosen = [variant] if variant in known else twins
        yield from (Target(architecture, name, seed=seed) for name in chosen)
    else:
        raise UsageError(
            f"{unknown(text, specs.names())}: neither an architecture ({', '.join(specs.names())}) nor a file"
        )


def _checkpoint(path: str, seed: int) -> Target:
    from convert.planning import plan

    with plan(path) as made:
        return Target(made.architecture, made.variant or os.path.basename(path), path, seed)
