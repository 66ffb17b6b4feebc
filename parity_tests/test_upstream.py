"""Every option of the original implementations, by their own code: see parity_tests/upstream.py for the cases."""

import numpy as np
import pytest

import ports
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.applied.arrays import apply
from specs.raft_mlp import VARIANTS

from . import upstream
from .conftest import needs
from .golden import CASES, Case, differentiated

COMPUTED = [case for case in map(Case, CASES) if "settings" in case.about and "train/loss.f64" in case.arrays]


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize(("case", "framework"), differentiated(COMPUTED))
def test_a_step_of_training(case, framework):
    """Compare loss, logits and every gradient with what upstream's code computes."""
    needs(framework)
    port = ports.load(str(case.files[0]), framework, dtype="float64", **case.settings)
    found = port.gradients(case.images)
    assert found.loss == pytest.approx(float(case.arrays["train/loss.f64"][0]), rel=1e-10)
    # rounding is 1e-14, 1e-12 with paddle's float32 epsilons
    assert relative_error(case.logits, found.logits) <= 1e-10
    assert relative_error(case.image_gradient, found.images) <= 1e-10
    largest = max(np.abs(gradient).max() for gradient in found.parameters.values())
    with plan(case.files[0], dst=framework, settings=case.settings) as made:
        assert {tensor.name for tensor, _ in made.steps} == found.parameters.keys()
        for tensor, moves in made.steps:
            gradient = found.parameters[tensor.name]
            if {move.source for move in moves} <= set(case.about["zero_grads"]):
                # what a norm subtracts again has no effect: rounding is 1e-15 of the largest gradient
                assert np.abs(gradient).max() <= 1e-10 * largest, tensor.name
                continue
            truth = apply(moves, tensor.shape, lambda name: case.arrays[f"train/grad/{name}.f64"])
            assert relative_error(truth, gradient) <= 1e-10, tensor.name


def test_every_network_of_the_script_is_a_case():
    made = {"big_vision_legacy", *(name for networks in upstream.NETWORKS.values() for name in networks)}
    untrained = {"timm_convmixer_relu"}  # it has running statistics: test_convmixer compares training
    assert {case.name for case in COMPUTED} == made - untrained and untrained <= {*CASES}


def test_a_legacy_file_may_lack_the_leading_axes(tmp_path):
    """big_vision squeezes the arrays of its legacy files, and so takes those without an axis of 1 too."""
    case = Case("big_vision_legacy")
    with np.load(case.files[0]) as held:
        squeezed = {name: array.reshape([n for n in array.shape if n > 1]) for name, array in held.items()}
    np.savez(tmp_path / "squeezed.npz", **squeezed)
    with plan(case.files[0]) as made, plan(tmp_path / "squeezed.npz") as other:
        assert (made.src, other.src) == ("big_vision", "big_vision_squeezed")
        ours, theirs = dict(made.arrays()), dict(other.arrays())
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_every_setting_has_a_tiny_twin_among_the_cases():
    """A twin has the same levels, rafts and kind of embedding as a setting; its widths and depths are smaller."""

    def kind(config):
        return tuple((level.raft, bool(level.kernels)) for level in config.levels)

    kinds = set()
    for case in COMPUTED:
        if case.architecture == "raft_mlp":
            with plan(case.files[0], settings=case.settings) as made:
                kinds.add(kind(made.config))
    assert {kind(config) for config in VARIANTS.values()} <= kinds
