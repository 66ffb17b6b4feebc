"""Define the tolerances of every check and dtype, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

from specs.numbers import measured

CHECKS = ("forward", "layers", "single-step", "gradients", "train")


class Limit(NamedTuple):
    """A tolerance, and the reason for its size in words that stand behind the number: "1e-10: fixed, ..."."""

    value: float
    reason: str


# float64, relative to the largest element: rounding over some hundred layers stays two decades below, any real fault
# lies decades above (the smallest known, paddle's epsilon rounded to float32, shows at 1e-12 to 1e-10 where variances
# are tiny). Ten steps of training feed rounding back into the weights: one decade more.
FLOAT64 = {"forward": 1e-10, "layers": 1e-10, "gradients": 1e-10, "train": 1e-9}

# A gradient that is zero in exact arithmetic (a bias that a following norm subtracts, say) comes out as the rounding of
# the terms that cancel, whose size is that of other gradients. So each gradient's error is taken relative to its own
# largest element, but to no less than this share of the largest of all gradients. (Over grids of 112 x 112 patches,
# whose terms nearly cancel, equally good float64 sums differed by 1e-12 of the largest.) In float64 a fault of a
# millionth shows in gradients down to 1e-5 of the largest.
GRADIENT_FLOOR = 2.0**-4

# Where a gradient is zero in exact arithmetic (a bias ahead of a norm), training moves an array that began at zero by
# rounding alone: 1e-20 a step of SGD, and up to 2e-12 of the largest parameter in ten of Adam, which divides by
# epsilon. So a trained array's error too is relative to no less than this share of the largest parameter. What an
# optimizer does wrong moves parameters by a share of its rate, 2^-10: decades above what this lets pass.
TRAINED_FLOOR = 2.0**-4

# Weights of two trainings in float64 that go alike differ by rounding: in ten steps of a small network, by
# 5e-12 of the largest of an array. This is two decades above.
WEIGHTS_RTOL = 1e-9

# A feature (a logit, a channel) is judged by its own largest element too, so that a large neighbour hides nothing. What
# stands beside large numbers shares their rounding: differences below 64 roundoffs of the largest of all are let pass.
FEATURE_FLOOR = 2.0**-47

# Integers are exact: this is below the least difference of two of 64 bits, relative to the largest.
INTEGERS = 2.0**-65

# A run may differ by this many times what it moves by when its weights move by eight roundoffs (recording.JITTER), the
# least over frameworks. Deep networks whose BatchNorm sees few values amplify rounding by many decades in ten steps of
# training; every other run stays within the limits above, which are the least that is asked for.
SPREAD_FACTOR = {"float64": 16.0, "float32": 4.0}

# A model may compute parts in float32 whatever its weights are (a float32 softmax or norm): then float64 twins differ
# by what float32 rounds there. So below float64, twins may differ by this many times float32's measured noise, whose
# spread over equally good implementations is up to 4. An epsilon of 1e-5 for 1e-6 is 20 times that noise.
TWIN_FACTOR = 4.0

# Below float64, a pass that uses up more than this share of its tolerance is reported: equal models stay below 13 / 24.
CLOSE_CALL = 0.6
# In float64, so is one that uses up more than this share of the limits above: rounding stays two decades below them.
CLOSE_CALL_FLOAT64 = 0.1

# A float64 tolerance beyond this, because a run amplifies rounding, is reported beside a pass: what an epsilon of 1e-5
# for 1e-6 changes would be within it.
WIDE = 1e-7

# Half a unit in the last place of 1: what writing a number down costs.
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# Below float64, a framework's error against the float64 truth may be this many times the least that any framework of
# the comparison shows there. Orders of summation, fused operations and float32 accumulation inside half-precision
# kernels spread the noise of equally good implementations by up to 4 for layers and, where sums cancel, by up to 13
# for gradients over the tiny variants here. What it must catch lies far beyond: TF32 is 2^13 times float32's
# rounding, the fast variance 10^4 times.
# In half precision one framework may accumulate in half, another in float32: apart by the square root of the terms,
# measured up to 25 against a floor of one roundoff or more.
NOISE_FACTOR = {"float32": 24.0, "float16": 64.0, "bfloat16": 64.0}
# A noise below a few roundoffs is luck (a small array may round exactly), and nothing to measure others by. For the
# same reason an array's noise counts for no less than the median array's of the check.
NOISE_FLOOR = {"float32": 4.0, "float16": 1.0, "bfloat16": 1.0}
# In training, rounding is fed back, and Adam divides a gradient by its own size: where a gradient is noise, so is the
# step. There the luck is larger, and so is the floor, in roundoffs.
# (In half precision the steps themselves are mostly rounded away, and little is fed back.)
TRAINING_FLOOR = {"float32": 1024.0, "float16": 16.0, "bfloat16": 4.0}

# What a small array's noise counts for in half-precision training is the largest of its run, see `typical`; the other
# framework's largest was at most 1.96 times that over all architectures here, and one array's up to 194 times its own.
# Where runs drown, up to 3.9 and 395 times (of the deepest one here, whose losses after ten steps are off by a third
# in bfloat16 and by half in float16): those are not judged.
# Adam's steps are of one size, whatever that of an array: one more or less counts most in a small array, whose largest
# value may be a few steps. So its noise counts for no less than a step, also where the other framework was lucky
# (a kernel whose largest value is 13 steps was 1.6 steps off in flax and 0.2 in torch).
LOTTERY_FACTOR = 4.0

# A tolerance beyond this would pass anything: even the best framework keeps nothing of such an array, which is said
# instead of passing it. (In half precision: steps of Adam whose second moment underflows, long chains of tiny widths.)
DROWNED = 1.0

# Dropout masks: the largest of some hundred standard scores reaches 5 once in ten thousand runs of a right sampler.
SCORES = 5.0

# Reasons of limits, as reports state them; those of limits below float64 are made by `below`.
TRAINED = "fixed, ten times that of the other checks, as training feeds rounding back"
FIXED = {
    **dict.fromkeys(FLOAT64, "fixed, as rounding of equal models stays at least a hundred times below it"),
    "train": TRAINED,
}
FEATURE = "64 float64 roundoffs of the array's largest value: this feature (a channel, a logit) shares its rounding"
WHOLE = "integers have to be equal, as rounding does not change them"
TWINS = (
    f"{TWIN_FACTOR:.0f} times the measured rounding of float32, as a model may compute parts in it: the float64 copies "
    "of both are compared, which differ already"
)
STEP = "a whole step of Adam, by which an element may move where its second moment underflows"
MASKS = f"standard deviations of how many units dropout keeps: right masks exceed {SCORES:.0f} once in 10,000 runs"


def amplified(dtype: str) -> str:
    """Return the reason of a limit that is measured with moved weights."""
    return f"{SPREAD_FACTOR[dtype]:.0f} times what the array moves by when all weights move by eight roundoffs"


def typical(noises: list[float], dtype: str, check: str) -> float:
    """Return the least noise that an array is granted: the median over all arrays of a check.

    In training in half precision the largest: gradients that are zero in exact arithmetic, and second moments that
    underflow, turn into whole steps of Adam, and which array draws them differs from framework to framework.
    """
    return max(noises) if _lottery(dtype, check) else sorted(noises)[len(noises) // 2]


def _lottery(dtype: str, check: str) -> bool:
    return check == "train" and dtype in ("float16", "bfloat16")


def below_of_integers(noise: float, dtype: str) -> Limit:
    """Return the tolerance of integers in a dtype below float64: that of their noise, as where values are rounded."""
    factor = NOISE_FACTOR[dtype]
    most = Limit(factor * noise, f"{factor:.0f} times this array's rounding in the most exact framework")
    return most if noise else Limit(INTEGERS, WHOLE)


def below(noise: float, typical: float, dtype: str, check: str, step: float = 0.0) -> Limit:
    """Return the tolerance in a dtype below float64, with its reason.

    Args:
      noise: the least that any framework's array differs from its float64 truth.
      typical: what it counts for at least.
      step: a whole step of Adam, relative to the array's largest value; 0 of what takes none.
    """
    units = TRAINING_FLOOR[dtype] if check == "train" else NOISE_FLOOR[dtype]
    factor = LOTTERY_FACTOR if _lottery(dtype, check) else NOISE_FACTOR[dtype]
    roundoffs = f"{units:.0f} {dtype} roundoff{'s' * (units > 1)} of {measured(ROUNDOFF[dtype])}"
    fed_back = " in training, which feeds it back" if check == "train" else ""
    most = "the largest" if _lottery(dtype, check) else "the median"
    measure, reason = max(
        (units * ROUNDOFF[dtype], f"{roundoffs}, the least that is granted as rounding{fed_back}"),
        (typical, f"{most} array's rounding in the most exact framework"),
        (noise, "this array's rounding in the most exact framework"),
        (step if _lottery(dtype, check) else 0.0, STEP),
        key=lambda pair: pair[0],
    )
    return Limit(factor * measure, f"{factor:.0f} times {reason}")
