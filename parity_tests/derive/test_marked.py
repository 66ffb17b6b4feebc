"""Uses at which models part differ, also where they were compared with what differs removed."""

from __future__ import annotations

import math
from typing import Any

import pytest

import parity
from parity.derive.conclude.marked import marked
from parity.derive.explain.divergence import Divergence
from parity.derive.match.choices import Step

from .pairs import images
from .test_kinds_matching import Net, linear

torch = pytest.importorskip("torch")

STEPS = [
    Step(kind, (f"{left}.{leaf}",), (f"{right}.{leaf}",), left, right, 0.0, 0, 1)
    for left, right in (("b.0.q", "b.0.q"), ("b.0.o", "b.0.o"), ("b.1.q", "extra"), ("b.1.o", "b.1.o"))
    for kind, leaf in (("product", "weight"), ("add", "bias"))
]


def gaps(*places: Divergence, steps: list[Step] = STEPS) -> dict[str, float]:
    return {step.right[0]: step.gap for step in marked(steps, places) if step.gap}


def test_without_a_cause_a_use_and_those_behind_it_in_its_module_differ():
    product, term = ("product", ("extra.weight",)), ("add", ("extra.bias",))
    assert gaps(Divergence("b.1.q", "extra", 0.5, use=product)) == {"extra.weight": 0.5, "extra.bias": 0.5}
    assert gaps(Divergence("b.1.q", "extra", 0.5, use=term, behind=True)) == {"extra.bias": 0.5}
    assert gaps(Divergence("b.1.q", "extra", math.inf, use=product)) == {} == gaps(Divergence("b.1.q", "extra", 0.5))


def test_a_cause_marks_one_use_at_each_of_its_places():
    cause = Divergence("b.0.o", "b.0.o", 0.4, "scale", kind="factor", use=("product", ("b.0.o.weight",)))
    assert gaps(cause) == {"b.0.o.weight": 0.4}
    more = cause._replace(changed="right", more=1, places=("b.0", "b.1"))
    assert gaps(more) == {"b.0.o.weight": 0.4, "b.1.o.weight": 0.4}


def test_a_use_with_a_difference_of_its_own_keeps_it():
    steps = [step._replace(gap=0.1) if step.right == ("extra.weight",) else step for step in STEPS]
    place = Divergence("b.1.q", "extra", 0.5, use=("product", ("extra.weight",)))
    assert gaps(place, steps=steps) == {"extra.weight": 0.1} and not any(
        step.by_place for step in marked(steps, [place])
    )


def test_a_use_does_not_hide_a_larger_cause_behind_a_small_one():
    """An epsilon and the groups of one norm: the use shows the first, and was compared without the second."""
    steps = [step._replace(gap=1e-5) if step.right == ("b.0.o.weight",) else step for step in STEPS]
    small = Divergence("b.0.o", "b.0.o", 2e-5, "epsilon", kind="epsilon", use=("product", ("b.0.o.weight",)))
    large = small._replace(size=0.9, what="groups", kind="norm")
    assert gaps(small, large, steps=steps) == {"b.0.o.weight": 0.9}
    assert not any(step.by_place for step in marked(steps, [small, large]))


def test_both_lines_of_a_layer_that_only_one_model_has_are_doubtful():
    """The right `extra` is taken for the layer that reads what the left alone computes, which no cause explains."""
    own, more = {"a": linear(4, 4), "head": linear(4, 3)}, {"extra": linear(4, 4), "mix": linear(4, 4)}

    def mixed(h: Any) -> Any:
        return (h.cumsum(1) * h.flip(2)).sin() + h

    left = Net(lambda m, x: m.head(m.b(mixed(m.a(x).tanh())).tanh()), b=linear(4, 4), **own)
    right = Net(lambda m, x: m.head(m.mix(m.extra(m.a(x).tanh()).cumsum(1).sin())), **more, **own)
    found = parity.derive(left, right, (images(2, 5, 4),))
    assert found.doubtful == ["extra.weight", "extra.bias"] and found.agreeing < len(found.compared), found
