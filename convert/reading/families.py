"""List how optax, torch.optim and paddle.optimizer name and nest the same state, and the calls that build them.

What they have in common was checked by training (parity_tests/test_optimizer.py): all three keep raw moments, correct
their bias by the number of steps, and add epsilon outside of the square root, after the correction. paddle counts steps
by powers of its betas: after n steps it stores beta^(n+1). SGD's momentum is equal where torch's dampening is 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from convert.files.base import PDOPT
from specs.numbers import exact


class Names(NamedTuple):
    """One thing as each library calls it."""

    optax: str
    torch: str
    paddle: str

    def of(self, library: str) -> str:
        name: str = getattr(self, library)
        return name


MOMENTS = {
    "first": Names("mu", "exp_avg", "moment1"),
    "second": Names("nu", "exp_avg_sq", "moment2"),
    "momentum": Names("trace", "momentum_buffer", "velocity"),
}
FAMILIES = {"adam": ("first", "second"), "sgd": ("momentum",)}  # optimizers that keep the same arrays
KEEPS = {
    "adam": Names("Adam's two moments", "Adam's two moments", "Adam's two moments"),
    "sgd": Names("SGD's momentum", "SGD's momentum", "Momentum's arrays"),
}
_SGD = "SGD with momentum, Adam and AdamW"
CONVERTED = Names(_SGD, _SGD, "Momentum, Adam and AdamW")  # optimizers
KINDS = {"sgd": "sgd", "adam": "adam", "adamw": "adam"}  # optimizer -> its family

HYPERPARAMETERS = {
    "lr": Names("learning_rate", "lr", "learning_rate"),
    "beta1": Names("b1", "betas", "beta1"),
    "beta2": Names("b2", "betas", "beta2"),
    "eps": Names("eps", "eps", "epsilon"),
    "momentum": Names("momentum", "momentum", "momentum"),
    "nesterov": Names("nesterov", "nesterov", "use_nesterov"),
    "weight_decay": Names("weight_decay", "weight_decay", "weight_decay"),
}
NEEDED = {  # of a family: what torch's param_groups hold
    "adam": ("lr", "beta1", "beta2", "eps", "weight_decay"),
    "sgd": ("lr", "momentum", "nesterov", "weight_decay"),
}
CLASSES = {
    "sgd": Names("optax.sgd", "torch.optim.SGD", "paddle.optimizer.Momentum"),
    "adam": Names("optax.adam", "torch.optim.Adam", "paddle.optimizer.Adam"),
    "adamw": Names("optax.adamw", "torch.optim.AdamW", "paddle.optimizer.AdamW"),
}
PADDLE = (".pdparams", ".pd", PDOPT)  # suffixes
LIBRARY = {  # suffix of a file -> whose state it can hold
    **dict.fromkeys((".msgpack", ".flax", ".orbax"), "optax"),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".dcp"), "torch"),
    **dict.fromkeys(PADDLE, "paddle"),
}
FRAMEWORK = {"optax": "flax", "torch": "torch", "paddle": "paddle"}
USUAL = {"flax": ".msgpack", "torch": ".pt", "paddle": ".pdparams"}  # suffix of a target with its optimizer

# Arrays of a module that are no parameters, by the names that torch and paddle give them.
BUFFER = re.compile(r"(?:^|[./])(?:running_mean|running_var|num_batches_tracked|_mean|_variance)$")
TENSOR = re.compile(r"(?:generated_tensor|eager_(?:in_)?tmp)_\d+")  # paddle's names of tensors that are no parameters
COLLECTION = re.compile(r"(?:^|/)(?:batch_stats|cache|intermediates)/")  # of linen: what is not trained
LOST = "the weights have lost paddle's parameter names ({}), as by astype or clone: save model.state_dict() itself"

# optax's chains, as its own functions nest them: STATE is the one that holds arrays, the others are empty.
STATE = "state"
NESTS: Mapping[str, Any] = {
    "sgd": {"0": STATE, "1": {}},
    "adam": {"0": STATE, "1": {}},
    "adamw": {"0": STATE, "1": {}, "2": {}},
}


def suffix_of(out: str) -> str:
    """Return the suffix of a file or folder, in lower case, as LIBRARY has it."""
    return os.path.splitext(out.rstrip(os.sep))[1].lower()


def lost_names(own: Mapping[str, str]) -> str:
    """Say that none of paddle's own names is a parameter's, as of copies of tensors; "" for names of parameters."""
    names = list(own.values())
    return LOST.format(names[0]) if names and all(map(TENSOR.fullmatch, names)) else ""


def kinds_of(family: str) -> str:
    """Return the optimizers of a family: "adam or adamw"."""
    return " or ".join(kind for kind, its in KINDS.items() if its == family)


def coupled(kind: str, hyper: Mapping[str, Any]) -> bool:
    """Tell whether weight decay is added to the gradient, and so passes through the moments."""
    return kind != "adamw" and bool(hyper.get("weight_decay"))


def nest(kind: str, hyper: Mapping[str, Any]) -> Any:
    """Tell how `call` nests its state in optax."""
    return {"0": {}, "1": NESTS[kind]} if coupled(kind, hyper) else NESTS[kind]


def call(kind: str, library: str, hyper: Mapping[str, Any], by_group: Collection[str] = ()) -> str:
    """Return the call that builds an optimizer, with ? for unknown hyperparameters, so that Python refuses it.

    Args:
      by_group: torch's names of what its groups of parameters state each, and the call does not.
    """
    values = {name: exact(hyper[name]) if name in hyper else "?" for name in NEEDED[KINDS[kind]]}
    before = ""
    if library == "optax" and kind != "adamw":
        decay = values.pop("weight_decay")
        before = f"optax.add_decayed_weights({decay}), " if coupled(kind, hyper) else ""
    betas = f"({values.pop('beta1')}, {values.pop('beta2')})" if library == "torch" and "beta1" in values else ""
    words = {HYPERPARAMETERS[name].of(library): value for name, value in values.items()} | (
        {"betas": betas} if betas else {}
    )
    stated = ", ".join(f"{name}={value}" for name, value in words.items() if name not in by_group)
    inner = f"{CLASSES[kind].of(library)}({stated})"
    return f"optax.chain({before}{inner})" if before else inner
