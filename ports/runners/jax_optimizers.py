"""Build optax's optimizers from the hyperparameters that all frameworks share."""

from __future__ import annotations

from typing import Any

import optax

from .records import Optimizer


def _sgd(o: Optimizer) -> Any:
    return optax.chain(optax.add_decayed_weights(o.decay), optax.sgd(o.rate, o.momentum))


def _adam(o: Optimizer) -> Any:
    return optax.chain(optax.add_decayed_weights(o.decay), optax.adam(o.rate, o.beta1, o.beta2, o.epsilon))


def _adamw(o: Optimizer) -> Any:
    return optax.adamw(o.rate, o.beta1, o.beta2, o.epsilon, weight_decay=o.decay)


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
