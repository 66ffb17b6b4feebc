"""Plans: complete and immutable, or refused with every problem and with why each reading of the file does not fit."""

import os
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from safetensors.numpy import save_file

import convert
import specs
from convert.arrays import payload
from convert.config.settings import Settings
from convert.errors import ConvertError, PlanError, UsageError
from convert.files import open_checkpoint
from convert.inspection.describe import describe
from convert.plans.choosing import Request, choose
from convert.reading.recognise import candidates
from convert.records.record import Record
from convert.table import by_table
from specs.table import Table, TableError

from .commands import GOOGLE, spoiled
from .conftest import needs
from .test_routes import write_numbers


def test_a_plan_is_immutable():
    with convert.plan(GOOGLE, dst="torch") as plan:
        for name in ("steps", "dst", "translation", "accepted"):
            with pytest.raises(FrozenInstanceError):
                setattr(plan, name, ())
        assert isinstance(plan.steps, tuple)
        assert repr(plan) == f"Plan({str(GOOGLE)!r}: mlp_mixer, google to torch)"
        with pytest.raises(AttributeError):
            plan.translation.moved = ()


def test_a_plan_is_written_by_a_function(tmp_path):
    """`plan.write` is a short way to call it."""
    with convert.plan(GOOGLE, dst="torch") as plan:
        record = convert.write(plan, tmp_path / "a.safetensors")
        assert plan.write(tmp_path / "b.safetensors") == record
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert record["tensors"].keys() == {tensor.name for tensor, _ in plan.steps}


@pytest.mark.parametrize("replaced", [True, False], ids=["by rename", "in place"])
def test_a_file_that_changes_after_it_was_planned_is_refused(tmp_path, replaced):
    """Offsets and checks of a plan are those of the file that was opened; a Table's plan is written alike."""
    with convert.plan(GOOGLE, dst="torch") as plan:
        plan.write(tmp_path / "m.safetensors")
        plan.table.save(tmp_path / "x.table")
    new = (tmp_path / "m.safetensors").read_bytes() + bytes(8)
    with (
        convert.plan(tmp_path / "m.safetensors", dst="flax") as plan,
        by_table.plan(str(tmp_path / "m.safetensors"), str(tmp_path / "x.table"), backwards=True) as by_lines,
    ):
        file = tmp_path / ("other" if replaced else "m.safetensors")
        file.write_bytes(new)
        file.replace(tmp_path / "m.safetensors")
        for one in (plan, by_lines):
            with pytest.raises(ConvertError, match=r"m\.safetensors: changed while it was read"):
                convert.write(one, tmp_path / "out.msgpack")
        with pytest.raises(ConvertError, match=r"m\.safetensors: changed while it was read"):
            dict(plan.arrays())
    assert not list(tmp_path.glob("*out*"))


def test_arguments_of_another_type_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"dtype=<class 'numpy\.float16'>: give its name, one of float64"):
        convert.plan(GOOGLE, dtype=np.float16)
    with convert.plan(os.fsencode(GOOGLE), dst="torch") as plan:
        convert.write(plan, os.fsencode(tmp_path / "x.safetensors"))
        for size in (0, -5, "1KB"):
            with pytest.raises(UsageError, match=f"shard_size={size!r}: give a number of bytes from 1 on"):
                convert.write(plan, tmp_path / "y.npz", shard_size=size)
        for length in (True, "2", 2.0, 0):
            with pytest.raises(TableError, match=f"h={length!r}: a length is a whole number from 1 on"):
                Table.parse("table 1\nw: (h d) <-> k: h d").apply({"w": np.ones(4)}, h=length)
        assert Table.parse("table 1\nw: (h d) <-> k: h d").apply({"w": np.ones(4)}, h=np.int64(2))["k"].shape == (2, 2)


def change(arrays):
    del arrays["pre_head_layer_norm/scale"]
    arrays["pre_head_layer_norm/bias"] = arrays["pre_head_layer_norm/bias"][:2]
    arrays["stranger"] = arrays["stem/bias"]


def test_a_refusal_lists_every_problem(tmp_path):
    path = spoiled(tmp_path, change)
    with pytest.raises(PlanError) as caught:
        convert.plan(path, src="google", dst="torch")
    text = "\n".join(caught.value.problems)
    for part in ("missing pre_head_layer_norm/scale", "pre_head_layer_norm/bias has shape [2]", "unexpected stranger"):
        assert part in text


def test_a_head_with_another_number_of_axes_is_not_called_beside_the_model(tmp_path):
    """The model without a head would fit, and the advice would be to drop the head."""

    def flatten(arrays):
        arrays["head/kernel"] = arrays["head/kernel"].reshape(-1)

    with pytest.raises(PlanError) as caught:
        convert.plan(spoiled(tmp_path, flatten), src="google", dst="torch")
    text = "\n".join(caught.value.problems)
    assert re.search(r"head/kernel has shape \[\d+\], expected 2 axes", text) and "save the weights without" not in text
    assert "head/bias" not in text  # it fits


def test_every_reading_that_was_tried_says_why_it_does_not_fit(tmp_path):
    with open_checkpoint(spoiled(tmp_path, change)) as reader:
        request = Request(reader, Record(), Settings(), "torch", None)
        groups = list(candidates(reader, None, {}))
        choice = choose(request, groups)
    tried = [reading.which for group in groups if isinstance(group, list) for reading in group]
    assert choice.plan is None
    assert ("mlp_mixer", "google") in tried
    assert [rejected.reading.which for rejected in choice.rejected] == tried
    assert all(isinstance(rejected.error, ConvertError) for rejected in choice.rejected)


@pytest.mark.parametrize("dialect", ["paddle", "torch", "passl_backbone", "timm", "big_vision_squeezed"])
def test_of_dialects_with_the_same_names_the_one_whose_shapes_fit_is_the_nearest(dialect, tmp_path):
    """Also where no configuration follows from the arrays as the other one lays them out; `inspect` names it too."""
    whole, path = tmp_path / "whole.npz", tmp_path / "x.safetensors"
    write_numbers(whole, "mlp_mixer", specs.get("mlp_mixer").tiny["S/16"], dialect)
    absent = "Mixer/encoder_norm/bias" if "big_vision" in dialect else "norm.bias"
    save_file({name: array for name, array in np.load(whole).items() if name != absent}, path)
    with pytest.raises(PlanError, match=f"does not hold the {dialect} arrays of this mlp_mixer") as caught:
        convert.plan(path, dst="torch", settings={"gelu": "erf", "norm_eps": 1e-6})
    assert caught.value.problems == [f"missing {absent}"]
    near = describe(str(path), None, Settings.of({"gelu": "erf", "norm_eps": 1e-6}))["nearest"]
    assert (near["dialect"], near["reasons"]) == (dialect, [f"missing {absent}"])


def test_what_fits_is_chosen_and_the_rest_of_its_group_rejected():
    with open_checkpoint(GOOGLE) as reader:
        request = Request(reader, Record(), Settings(), "torch", None)
        choice = choose(request, candidates(reader, None, {}))
    assert choice.plan is not None
    assert (choice.plan.src, choice.problem) == ("google", None)
    assert choice.plan.reading.which not in [rejected.reading.which for rejected in choice.rejected]


def test_the_table_of_a_plan_converts_alike(tmp_path):
    """Saved as text, it makes the same arrays without the architecture, and leads back."""
    saved = str(tmp_path / "mixer.table")
    with convert.plan(GOOGLE, dst="torch") as plan:
        plan.table.save(saved)
        expected = {name: array.tobytes() for name, array in plan.arrays()}
        plan.write(tmp_path / "out.safetensors")
    with by_table.plan(str(GOOGLE), saved) as plan:
        assert {name: array.tobytes() for name, array in payload.arrays(plan)} == expected
    with by_table.plan(str(tmp_path / "out.safetensors"), saved, backwards=True) as back:
        returned = {name: array.tobytes() for name, array in payload.arrays(back)}
    with open_checkpoint(GOOGLE) as own:
        assert returned == {name: bytes(own.read(name)) for name in own.tensors}


@pytest.mark.parametrize("part", ["params", "state/params"])
def test_what_a_file_has_in_the_place_of_an_array_is_named(tmp_path, part):
    needs("flax")
    from flax import serialization

    with convert.plan(GOOGLE, dst="flax") as plan:
        plan.write(tmp_path / "x.msgpack")
    tree = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    tree["params"]["head"]["bias"], tree["params"]["blocks_0"]["norm1"]["scale"] = None, 1.5
    for level in part.split("/")[-2::-1]:
        tree = {level: tree}
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(PlanError) as caught:
        convert.plan(tmp_path / "x.msgpack", src="flax", dst="torch")
    assert sorted(caught.value.problems) == [
        f"params/{name} in the file, no array: save it as an array"
        for name in ("blocks_0/norm1/scale is the number 1.5", "head/bias is None")
    ]
