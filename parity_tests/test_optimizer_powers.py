"""Paddle counts steps by powers of its betas."""

import numpy as np
import pytest

from convert.errors import UsageError
from convert.files.base import Tensor
from convert.optimizer import from_paddle
from convert.optimizer.powers import MOST, power, steps_of


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [0, 1, 10, 300, 655, 800, 5000, 20000, 80000])
def test_steps_that_paddle_counts_by_powers(steps, dtype):
    """The power of 0.9 is too small for float32 after 829 steps: then that of 0.999 alone tells them, and itself."""
    powers, both = Powers(dtype, steps, beta1=0.9, beta2=0.999), {"beta1": 0.9, "beta2": 0.999}
    shown = {"beta2": 0.999} if (dtype == "float32" and steps > 829) or steps > 6700 else both
    assert from_paddle._paddle_step(powers, powers.slots, {}) == (steps, shown)
    assert from_paddle._paddle_step(powers, powers.slots, both) == (steps, both)
    assert from_paddle._paddle_step(powers, powers.slots, {**both, "step": steps}) == (steps, both)
    with pytest.raises(UsageError, match=rf"step={steps + 10} contradicts .*: {steps:,} steps with"):
        from_paddle._paddle_step(powers, powers.slots, {"step": steps + 10})
    for beta, value in both.items():
        assert power(value, steps, dtype) == powers.values[beta][0]


def test_powers_that_are_too_small_need_the_number_of_steps():
    powers = Powers("float32", 120_000, beta1=0.9, beta2=0.999)
    with pytest.raises(UsageError, match="too small to show a number of steps: state --hyper step="):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 120_000}) == (120_000, {})
    assert power(0.9, 120_000, "float32") == powers.values["beta1"][0]


def test_a_beta_of_another_value_is_no_number_of_steps():
    """One power alone has to be nearly exact: powers of 0.95 are seldom those of 0.999."""
    powers = Powers("float32", 1000, beta1=0.9, beta2=0.95)
    with pytest.raises(UsageError, match=r"no whole number of steps with beta2 0\.999: state --hyper beta1"):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"beta2": 0.95}) == (1000, {"beta2": 0.95})


def test_betas_that_paddle_does_not_state():
    powers = Powers("float32", 7, beta1=0.8, beta2=0.999)
    with pytest.raises(UsageError, match="no whole number of steps with"):
        from_paddle._paddle_step(powers, powers.slots, {})
    assert from_paddle._paddle_step(powers, powers.slots, {"beta1": 0.8})[0] == 7
    assert from_paddle._paddle_step(powers, powers.slots, {"step": 7}) == (7, {"beta2": 0.999})  # what its power shows


def test_powers_of_other_dtypes_and_after_very_many_steps():
    assert steps_of(0.9**5, 0.9, "bfloat16") == pytest.approx(4, abs=0.01)  # rounded to 16 bits it would be off by more
    assert power(0.9999999, MOST + 5, "float64") == 0.9999999 ** (MOST + 6)
