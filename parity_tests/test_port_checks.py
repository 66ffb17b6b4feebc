"""What a port refuses: images that its network cannot take, and to be saved as another network than it is."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest

import ports
import specs
from convert.errors import UsageError

from .conftest import needs

FRAMEWORKS = ("flax", "torch", "paddle")
ARCHITECTURE = "mlp_mixer"
TWIN = next(iter(specs.get(ARCHITECTURE).tiny.values()))


@functools.cache
def port(framework):
    needs(framework)
    return ports.build(ARCHITECTURE, TWIN, framework)


def images(n=2):
    return np.random.default_rng(0).standard_normal((n, *specs.get(ARCHITECTURE).input_shape(TWIN)))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("change", "message"), [
    (lambda x: (x * 40).astype("uint8"), r"not uint8 of shape \[2, 3, .*images.astype\('float32'\) / 255"),
    (lambda x: x.transpose(0, 2, 3, 1), r"not float64 of shape .*, 3\]: use images.transpose\(0, 3, 1, 2\)"),
    (lambda x: (x * 40).astype("u1").transpose(0, 2, 3, 1).tolist(), r"not int64 of .*transpose\(0, 3, 1, 2\), and sc"),
    (lambda x: x[0], r"not float64 of shape .*: use images\[None\]"),
    (lambda x: x[0].transpose(1, 2, 0), r"use images.transpose\(2, 0, 1\)\[None\]"),
    (lambda x: x[:, 0], "stack them along a first axis"),
    (lambda x: x[:0], "pass at least one"),
    (lambda x: x[:, :2], "the network takes 3 channels"),
    (lambda x: "photo.png", "not <U9 of shape"),
    (lambda x: [x[0], x[0][:1]], r"images are \(n, 3, height, width\), not a list: inputs must be arrays of numbers"),
    (lambda x: x[..., :-1], "image|patch|divi|size"),
])  # fmt: skip
def test_images_that_do_not_fit_are_refused_alike_in_every_framework(framework, change, message):
    with pytest.raises(UsageError, match=message) as raised:
        port(framework)(change(images()))
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(("framework", "dtype"), [("torch", "float64"), ("torch", "float16"), ("paddle", "float64")])
def test_a_port_computes_in_the_dtype_to_which_its_user_cast_the_model(framework, dtype):
    needs(framework)
    own = ports.build(ARCHITECTURE, TWIN, framework)
    expected = own.with_dtype("float64")(images())
    own.model.to(dtype=getattr(importlib.import_module(framework), dtype))
    assert f"{framework}, {dtype}, cpu)" in repr(own)
    assert own(images()).dtype == own.taps(images())["head"].dtype == dtype
    tolerance = {"float64": 1e-12, "float16": 1e-2}[dtype]  # float16 has 11 bits, and the network is some layers deep
    assert np.abs(own(images()) - expected).max() <= tolerance * np.abs(expected).max()


def test_a_model_on_a_device_without_values_is_named():
    needs("torch")
    own = ports.build(ARCHITECTURE, TWIN, "torch")
    own.model.to("meta")
    assert "torch, float32, meta)" in repr(own)
    with pytest.raises(UsageError, match="the model is on device meta: move it to cpu or cuda, or call it yourself"):
        own(images())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_lists_and_tensors_are_images(framework):
    needs("torch")
    import torch

    expected = port(framework)(images(1))
    for same in (images(1).tolist(), list(images(1)), torch.from_numpy(images(1)).requires_grad_()):
        assert np.array_equal(port(framework)(same), expected)


def block(model):
    return model.blocks[0] if hasattr(model, "blocks") else model.layers[0]


def patched(module):
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)


def unsteady(module):
    setattr(module.norm1, "eps" if hasattr(module.norm1, "eps") else "_epsilon", 0.5)


def hooked(module):
    register = getattr(module, "register_forward_hook", None) or module.register_forward_post_hook
    register(lambda *arguments: arguments[-1] * 2)


@pytest.mark.parametrize("framework", ["torch", "paddle"])
@pytest.mark.parametrize(("change", "message"), [
    (patched, r"blocks\.0\.forward is new"),
    (hooked, r"blocks\.0\._forward_\w*hooks.* is new"),
    (lambda module: setattr(module, "scale", 2.0), r"blocks\.0\.scale is new"),
    (unsteady, r"norm1\.\w+ was .* and is 0\.5"),
])  # fmt: skip
def test_a_port_that_became_another_network_is_not_saved_as_what_it_was(framework, change, message, tmp_path):
    needs(framework)
    changed = ports.build(ARCHITECTURE, TWIN, framework)
    changed(images(1))  # a run changes nothing
    changed.save(tmp_path / "before.safetensors")
    change(block(changed.model))
    with pytest.raises(UsageError, match=f"no longer those of its configuration: .*{message}"):
        changed.save(tmp_path / "after.safetensors")
    assert not (tmp_path / "after.safetensors").exists()


def test_a_linen_module_that_replaced_a_ports_own_is_run_and_is_not_saved_as_it(tmp_path):
    needs("flax")
    changed = ports.build(ARCHITECTURE, TWIN, "flax")
    before = changed(images(1))
    module, variables = changed.model

    class Doubled(type(module)):
        def __call__(self, x, train=False):
            return 2 * super().__call__(x, train)

    changed.model = Doubled(module.config), variables
    assert np.allclose(changed(images(1)), 2 * before)  # not what was compiled before
    with pytest.raises(UsageError, match="no longer those of its configuration: the model: class was"):
        changed.save(tmp_path / "after.safetensors")


@pytest.mark.parametrize(("options", "message"), [
    ({"framework": "tourch"}, "unknown name 'tourch', did you mean 'torch'"),
    ({"dtype": "float46"}, "dtype: unknown name 'float46', did you mean 'float64'"),
    ({"dtype": "fp32"}, "dtype: unknown name 'fp32', did you mean 'float32'"),
    ({"device": "cuda:0"}, "device: unknown name 'cuda:0', did you mean 'gpu'"),
    ({"device": 0}, r"device must be a name \(cpu, gpu\), not 0"),
    ({"device": "gpus"}, "device: unknown name 'gpus', did you mean 'gpu'"),
])  # fmt: skip
def test_names_that_match_nothing_are_refused_with_the_nearest(options, message):
    needs("torch")
    with pytest.raises(UsageError, match=message):
        ports.build(ARCHITECTURE, TWIN, **{"framework": "torch", **options})
