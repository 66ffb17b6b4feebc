"""Paddle counts steps by powers of its betas."""

import json
import pickle

import numpy as np
import pytest

from convert.errors import ConvertError, UsageError
from convert.files.base import Tensor
from convert.optimizer import from_paddle
from convert.optimizer.from_paddle import USUAL_BETAS
from convert.optimizer.powers import MOST, power, steps_of
from convert.optimizer.state import BETAS

from .test_optimizer_hyper import OWN, SHAPES, TABLE


class Powers:
    """A reader of paddle's two powers of betas."""

    path = "m.pdopt"

    def __init__(self, dtype, steps, **betas):
        self.values = {}
        for beta, value in betas.items():
            power = np.array([value], dtype)
            for _ in range(steps):
                power = power * np.array(value, dtype)
            self.values[beta] = power
        self.slots = {f"{b}_pow_acc": {"w": Tensor(b, (1,), dtype)} for b in betas}

    def read(self, name):
        return self.values[name].tobytes()


def joined(*every):
    """Join readers of powers into one with the parameters a, b and so on."""
    both = Powers("float32", 0)
    both.values = {f"{beta}{k}": each.values[beta] for k, each in enumerate(every) for beta in each.values}
    both.slots = {
        f"{beta}_pow_acc": {name: Tensor(f"{beta}{k}", (1,), "float32") for k, name in enumerate("abc"[: len(every)])}
        for beta in every[0].values
    }
    return both


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [0, 1, 10, 300, 655, 800, 5000, 20000, 80000])
def test_steps_that_paddle_counts_by_powers(steps, dtype):
    """The power of 0.9 is too small for float32 after 829 steps: then that of 0.999, if it is stated."""
    powers, both = Powers(dtype, steps, beta1=0.9, beta2=0.999), {"beta1": 0.9, "beta2": 0.999}
    if (dtype == "float32" and steps > 829) or steps > 6700:
        asked = rf"one power .*; with beta2=0.999 it is {steps:,} steps: state --hyper beta2=..., or --hyper step=..."
        with pytest.raises(UsageError, match=f"{asked}$"):
            from_paddle._paddle_step(powers, powers.slots, {"beta1": 0.9})
        with pytest.raises(UsageError, match=f"{asked}, and --hyper beta1=..., whose power is too small to show it$"):
            from_paddle._paddle_step(powers, powers.slots, {})
        assert from_paddle._paddle_step(powers, powers.slots, {"step": steps}) == (steps, {"beta2": 0.999})
    else:
        assert from_paddle._paddle_step(powers, powers.slots, {}) == (steps, both)
    assert from_paddle._paddle_step(powers, powers.slots, both) == (steps, both)
    assert from_paddle._paddle_step(powers, powers.slots, {**both, "step": steps}) == (steps, both)
    with pytest.raises(UsageError, match=rf"step={steps + 10} contradicts .*: {steps:,} steps with"):
        from_paddle._paddle_step(powers, powers.slots, {"step": steps + 10})
    for beta, value in both.items():
        assert power(value, steps, dtype) == powers.values[beta][0]


def test_powers_that_are_too_small_need_the_number_of_steps():
    powers = Powers("float32", 120_000, beta1=0.9, beta2=0.999)
    with pytest.raises(UsageError, match=r"state --hyper step=\.\.\., and --hyper beta1=\.\.\. --hyper beta2="):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 120_000}) == (120_000, {})
    assert power(0.9, 120_000, "float32") == powers.values["beta1"][0]


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.99), (0.9, 0.98), (0.8, 0.998), (0.81, 0.998), (0.95, 0.9995)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_step_or_beta_is_guessed(betas, dtype):
    """What powers do not determine is asked for, and what was true is never refused.

    After 1,004 steps in float32, the power of 0.95 is near that of 0.999 after 51,523 steps.
    """
    both = {"beta1": betas[0], "beta2": betas[1]}
    for steps in [*range(12), 25, 300, 829, *range(900, 1700, 8), 1169]:
        powers = Powers(dtype, steps, **both)
        for known in ({}, {"beta1": betas[0]}, {"beta2": betas[1]}, {"step": steps}, {**both, "step": steps}):
            try:
                step, shown = from_paddle._paddle_step(powers, powers.slots, known)
            except UsageError as error:
                assert "step" not in known and "state --hyper" in str(error), (steps, known, error)
            else:
                assert (step, shown) == (steps, {beta: both[beta] for beta in shown}), (steps, known)


def test_powers_and_steps_determine_betas():
    """A beta of many decimals is left open."""
    powers = Powers("float32", 5, beta1=0.875, beta2=0.99)
    with pytest.raises(UsageError, match="no whole number of steps with"):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 5}) == (5, {"beta1": 0.875, "beta2": 0.99})
    assert from_paddle._paddle_step(powers, powers.slots, {"beta2": 0.99}) == (5, {"beta1": 0.875, "beta2": 0.99})
    powers = Powers("float32", 5, beta1=0.87654321, beta2=0.99)
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 5}) == (5, {"beta2": 0.99})
    powers = Powers("float32", 300, beta1=0.9, beta2=0.95)
    assert from_paddle._paddle_step(powers, powers.slots, {}) == (300, {"beta1": 0.9, "beta2": 0.95})


def test_a_vanished_power_contradicts_few_steps():
    powers = Powers("float32", 120_000, beta1=0.9, beta2=0.999)
    with pytest.raises(UsageError, match="not 10 steps with beta1 as stated"):
        from_paddle._paddle_step(powers, powers.slots, {"beta1": 0.9, "step": 10})


def test_parameters_of_few_steps_show_the_betas_of_all():
    """As of a part that is trained later: its powers show both betas, and so the steps of the others."""
    both = joined(*(Powers("float32", steps, beta1=0.9, beta2=0.999) for steps in (5000, 3)))
    expected = (5000, {"beta1": 0.9, "beta2": 0.999}, {"a": 5000, "b": 3})
    assert from_paddle._paddle_steps(both, both.slots, {}) == expected


@pytest.mark.parametrize("stated", [{}, {"step": 3}])
@pytest.mark.parametrize("value", [float("nan"), 1, 1.5, -0.1, None])
def test_a_power_that_is_none_or_absent_is_no_step_of_the_others(value, stated):
    powers = joined(*(Powers("float32", 3, beta1=0.9, beta2=0.999) for _ in range(3)))
    powers.slots["moment1"] = dict.fromkeys("abc", Tensor("m", (2,), "float32"))
    assert from_paddle._paddle_steps(powers, powers.slots, stated)[0] == 3
    said = r"beta1_pow_acc of b is .*, and no power of a beta: the file is damaged"
    if value is None:
        said = "b lacks a power of a beta: it is incomplete"
        for beta in ("beta1", "beta2"):
            del powers.slots[f"{beta}_pow_acc"]["b"]
    else:
        powers.values["beta11"] = np.array([value], "float32")
    with pytest.raises(ConvertError, match=rf"^m.pdopt: {said}$"):
        from_paddle._paddle_steps(powers, powers.slots, stated)


def test_a_state_without_powers_is_asked_for_its_steps():
    powers = Powers("float32", 3)
    powers.slots = {"moment1": {"w": Tensor("m", (2,), "float32")}}
    with pytest.raises(UsageError, match="has neither beta1_pow_acc nor beta2_pow_acc: nothing shows the number of"):
        from_paddle._paddle_steps(powers, powers.slots, {"kind": "adamw"})
    assert from_paddle._paddle_steps(powers, powers.slots, {"kind": "adamw", "step": 5})[0] == 5


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("beta, value", [("beta1", 0.9**2), ("beta1", 0.9**7), ("beta2", 0.5), ("beta1", 0)])
def test_a_parameter_whose_powers_contradict_those_of_the_others_is_named(place, beta, value):
    """No stated betas or steps help: they are those of the others."""
    every = [Powers("float32", 3, beta1=0.9, beta2=0.999) for _ in range(3)]
    every[place].values[beta] = np.array([value], "float32")
    powers, name = joined(*every), "abc"[place]
    others = "fit no number of steps with beta1 0.9 and beta2 0.999, which 2 other parameters show: the file is damaged"
    for stated in ({}, {"step": 3}, {"beta1": 0.9, "beta2": 0.999}):
        with pytest.raises(ConvertError, match=rf"^m.pdopt: the powers of {name} \(.*\) {others}, or") as raised:
            from_paddle._paddle_steps(powers, powers.slots, stated)
        assert raised.value.code == 1
    with pytest.raises(UsageError, match=r"no whole number of steps with beta1 0\.5 and beta2 0\.999"):
        from_paddle._paddle_steps(powers, powers.slots, {"beta1": 0.5})


@pytest.mark.parametrize("others", [{}, {"beta1": 0.81, "beta2": 0.998001}])
def test_betas_that_two_readings_explain_are_marked_as_assumed(others, run, tmp_path):
    """Until they are stated: 0.9 and 0.999 after 3 steps have the powers of their squares after 1."""
    weights = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()}
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": OWN}))
    state = {f"{own}_moment{k}_0": weights[name] for name, own in OWN.items() for k in (1, 2)}
    powers = Powers("float32", 1 if others else 3, **(others or USUAL_BETAS)).values
    state |= {f"{own}_{beta}_pow_acc_0": power for own in OWN.values() for beta, power in powers.items()}
    (tmp_path / "net.pdopt").write_bytes(pickle.dumps(state))
    (tmp_path / "net.table").write_text(TABLE)

    def convert(file, out, *words):
        words = ["--with-optimizer", "-o", tmp_path / out, *words, "--hyper", "kind=adamw"]
        code, _, err = run("--table", tmp_path / "net.table", tmp_path / file, *words)
        assert code == 0, err
        return err, json.loads((tmp_path / f"{out}.json").read_text())["optimizer"]

    known = "assumed, not known: betas 0.9 and 0.999 after 3 steps, as usual; betas 0.81 and 0.998001 after 1 step"
    err, record = convert("net.pdparams", "x.msgpack")
    assert f"note: {known} fit as well" in err and BETAS in record["assumed"], err
    err, record = convert("x.msgpack", "back.msgpack", "--reverse")
    assert f"not known: {BETAS} in the optimizer's state" in err and BETAS in record["assumed"], err
    stated = [word for beta, value in (others or USUAL_BETAS).items() for word in ("--hyper", f"{beta}={value}")]
    err, record = convert("net.pdparams", "y.msgpack", *stated)
    assert "not known" not in err and BETAS not in record["assumed"] and record["step"] == (1 if others else 3), err


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 7, 8, 300, 655])
def test_betas_that_one_reading_alone_explains_are_not_assumed(steps):
    powers = Powers("float32", steps, **USUAL_BETAS)
    assert bool(from_paddle._other_reading(powers, powers.slots, USUAL_BETAS, steps, {})) == (steps == 5)


def test_powers_of_other_dtypes_and_after_very_many_steps():
    assert steps_of(0.9**5, 0.9, "bfloat16") == pytest.approx(4, abs=0.01)  # rounded to 16 bits it would be off by more
    assert power(0.9999999, MOST + 5, "float64") == 0.9999999 ** (MOST + 6)


def test_powers_of_betas_that_are_rounded_to_float32_beside_float64_may_be_those_of_lamb():
    powers = Powers("float64", 5, beta1=0.9, beta2=0.999)
    for beta, value in (("beta1", 0.9), ("beta2", 0.999)):
        powers.values[beta] = np.array([value * float(np.float32(value)) ** 5])
    rounded = "no whole number of steps .* but 5 steps with these rounded to float32, as Lamb, which is not converted,"
    remedy = "--hyper step=5 --hyper beta1=0.9 --hyper beta2=0.999"
    with pytest.raises(UsageError, match=f": beta1_pow_acc = .*{rounded} .* state {remedy}$"):
        from_paddle._paddle_step(powers, powers.slots, {"kind": "adamw"})
    with pytest.raises(
        UsageError, match=f"m.pdopt: paddle's state does not say .* kind=adam or .*; and beta1.*{rounded}"
    ):
        from_paddle._paddle_step(powers, powers.slots, {})
    both = {"beta1": 0.9, "beta2": 0.999}
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 5, **both}) == (5, both)
