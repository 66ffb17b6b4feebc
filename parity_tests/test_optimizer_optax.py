"""States that optax and Orbax nest: by labels, with injected hyperparameters, as items of a CheckpointManager."""

from __future__ import annotations

import numpy as np
import pytest

from convert.files import open_checkpoint

from .conftest import needs

SHAPES = {"first": (3, 5), "last": (5, 2)}
TABLE = "table 1: a <-> b\n" + "".join(
    f"params/{n}/{leaf}: {axes} <-> params/{n}/{leaf}: {axes}\n"
    for n in SHAPES
    for leaf, axes in (("kernel", "i o"), ("bias", "o"))
)
LABELS = {n: {"kernel": "a", "bias": "b"} for n in SHAPES}


@pytest.fixture
def moved(run, tmp_path):
    """Return what converts a state after some steps, saved as m.msgpack, to s.msgpack: exit status and notes."""
    needs("flax")
    import jax
    from flax import serialization

    def move(tx, *words, steps=3):
        params = {n: {"kernel": np.ones(s, "float32"), "bias": np.ones(s[1:], "float32")} for n, s in SHAPES.items()}
        state = tx.init(params)
        for step in range(steps):
            _, state = tx.update(jax.tree.map(lambda p, by=step: p * (by + p.ndim), params), state, params)
        saved = {"params": params, "opt_state": state, "step": np.int32(steps)}
        (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(saved))
        (tmp_path / "same.table").write_text(TABLE)
        paths = [tmp_path / "m.msgpack", "-o", tmp_path / "s.msgpack"]
        stated = [f"--hyper={word}" for word in ("kind=adam", *words)]
        code, _, err = run("--table", tmp_path / "same.table", *paths, "--force", "--with-optimizer", *stated)
        return code, err

    return move


def arrays(path):
    with open_checkpoint(str(path)) as reader:
        return {name: bytes(reader.read(name)) for name in reader.tensors}


def test_labels_that_all_have_moments_become_one_optimizer(moved, tmp_path):
    needs("flax")
    import optax

    code, err = moved(optax.multi_transform({"a": optax.adam(0.1), "b": optax.adam(0.2)}, LABELS))
    assert code == 0, err
    assert "the states of the labels a and b of optax.multi_transform go along as that of one optimizer" in err
    joined = arrays(tmp_path / "s.msgpack")
    assert moved(optax.adam(0.1))[0] == 0
    assert joined == arrays(tmp_path / "s.msgpack") and len(joined) == 4 * 3 + 2


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("sgd", "it keeps mu, nu, trace"),
        ("rate", "its labels have several values of learning_rate, 0.1"),
        ("average", "its labels have several values of b1"),
    ],
)
def test_labels_that_differ_are_refused(other, why, moved, tmp_path):
    needs("flax")
    import optax

    adam = optax.inject_hyperparams(optax.adam)
    one = optax.adam(0.1) if other == "sgd" else adam(0.1)
    two = {"sgd": optax.sgd(0.1, momentum=0.5), "rate": adam(0.2), "average": adam(0.1, b1=0.5)}[other]
    code, err = moved(optax.multi_transform({"a": one, "b": two}, LABELS))
    assert code == 1 and why in err and not (tmp_path / "s.msgpack").exists(), err


def test_an_injected_rate_that_follows_a_schedule_is_that_of_the_last_step(moved):
    needs("flax")
    import optax

    note = "inject_hyperparams stores lr=0.5 of the last step, and the next one takes what its schedule gives"
    scheduled = optax.inject_hyperparams(optax.adam)(lambda count: 0.25 * count)
    code, err = moved(scheduled)
    assert code == 0 and note in err, err
    assert "inject_hyperparams stores" not in moved(scheduled, "lr=0.75")[1]  # which states it
    assert "inject_hyperparams stores" not in moved(optax.inject_hyperparams(optax.adam)(0.5))[1]


def test_an_average_in_an_item_of_its_own_is_named(run, tmp_path):
    needs("flax")
    import orbax.checkpoint as ocp

    params = {"params": {"w": np.ones((2, 3), "float32")}}
    for item in ("state", "ema", "metrics"):
        ocp.PyTreeCheckpointer().save(tmp_path / "run" / "3" / item, params)
    (tmp_path / "w.table").write_text("table 1: a <-> b\nparams/w: i o <-> w: o i\n")
    place = tmp_path / "run" / "3"
    code, _, err = run("--table", tmp_path / "w.table", place / "state", "-o", tmp_path / "w.pt")
    note = "lies beside it, by its name an average of the weights: convert it alone"
    assert code == 0 and f"{place / 'ema'} {note}" in err and err.count(note) == 1, err
