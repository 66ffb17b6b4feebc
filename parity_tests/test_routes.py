"""Every route there and back is bit-exact, and every way round a triangle gives the same file."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import convert
import specs
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.reading.recognise import dialects
from ports.port import pattern
from specs.dialects import PORTS, extras, place, shapes
from specs.kinds import FRAMEWORKS
from specs.layer import parameters

ROUTES = [
    (architecture, src, dst)
    for architecture in specs.names()
    for src, dst in itertools.permutations(dialects(architecture), 2)
]
SQUARE = {
    "mlp_mixer": dict(patch=2, depth=2, width=4, token_hidden=4, channel_hidden=4, image=4, channels=4, classes=4),
    "convmixer": dict(patch=4, kernel=4, depth=2, width=4, act="gelu", channels=4, classes=4),
    "dynamixer": dict(depths=(2,), widths=(4,), hidden=(4,), segments=(2,), reduced=(2,), transitions=(), grid=2,
                      patch=2, channels=4, classes=4),
}  # fmt: skip


def write_numbers(path, architecture, config, dialect):
    """A checkpoint in which every element of every tensor is another integer: nothing can be confused unseen.

    Tied arrays are equal, so that those of a dialect with ties come from another one.
    """
    table, layers = dialects(architecture)[dialect], list(specs.get(architecture).layers(config))
    if any(stored.ties for p in parameters(layers) if (stored := place(p, table, config))):
        write_numbers(path.with_suffix(".untied.npz"), architecture, config, "torch")
        translate(path.with_suffix(".untied.npz"), path, "torch", dialect, config)
        return
    arrays = shapes(layers, table, config)
    integers = {name for name in arrays if name.endswith("num_batches_tracked")}
    tensors = [Tensor(name, shape, "int64" if name in integers else "float32") for name, shape in arrays.items()]
    start = 0
    with open(path, "w+b", buffering=0) as file:
        writer = writer_for(path)(file, tensors, {})
        for tensor in tensors:
            values = np.arange(start, start + tensor.size).astype(tensor.dtype)
            start += tensor.size
            writer.write(tensor, [values.tobytes()])
        writer.finish()
    assert start < 2**24, "float32 holds integers exactly up to here"


def contents(path):
    with open_checkpoint(path) as reader:
        return {t.name: (t.shape, t.dtype, bytes(reader.read(t.name))) for t in reader.tensors.values()}


def translate(source, target, src, dst, config):
    from specs.config import as_dict

    settings = {k: v for k, v in as_dict(config).items() if v is not None}
    with convert.plan(source, src, dst, settings=settings) as plan:
        plan.write(target)
    return target


@pytest.mark.parametrize("route", ROUTES, ids="-".join)
def test_there_and_back(route, tmp_path):
    architecture, src, dst = route
    spec = specs.get(architecture)
    for k, config in enumerate(admissible(spec, twins(spec, architecture), src, dst)):
        start = tmp_path / f"{k}.safetensors"
        write_numbers(start, architecture, config, src)
        there = translate(start, tmp_path / f"{k}.there.safetensors", src, dst, config)
        back = translate(there, tmp_path / f"{k}.back.safetensors", dst, src, config)
        held, returned = contents(start), contents(back)
        lost = {one.name for one in extras(dialects(architecture)[src], config)}
        assert {n: v for n, v in returned.items() if n not in lost} == held


def admissible(spec, configs, *names):
    """The twins with the sizes that the code of these dialects hard-codes, those aside that cannot have them."""
    required = {k: v for name in names if name in spec.dialects for k, v in spec.dialects[name].requires.items()}
    by_tokens = {"image": None} if "tokens" in required else {}  # an image would state tokens of its own
    able, problems = [], []
    for config in configs:
        try:
            able.append(replace(config, **required, **by_tokens))
        except ValueError as error:
            problems.append(str(error))
    assert able, f"no small Config can have what {' and '.join(names)} require, {required}: {problems}"
    return able


def twins(spec, architecture):
    """Two tiny networks of unlike options, and where there is one, a network all of whose matrices are square."""
    tiny = list(spec.tiny.values())
    yield tiny[0]
    yield tiny[-1]
    if architecture in SQUARE:
        yield spec.config(**SQUARE[architecture])


@pytest.mark.parametrize("architecture", specs.names())
@pytest.mark.parametrize("way", [FRAMEWORKS[k:] + FRAMEWORKS[:k] for k in range(3)], ids="-".join)
def test_triangles_commute(architecture, way, tmp_path):
    """Each framework starts, passes on and ends a way; the other three ways are these, run from their ends."""
    spec = specs.get(architecture)
    for k, config in enumerate(twins(spec, architecture)):
        a, b, c = way
        start = tmp_path / f"{k}.safetensors"
        write_numbers(start, architecture, config, a)
        middle = translate(start, tmp_path / f"{k}.b.safetensors", a, b, config)
        around = translate(middle, tmp_path / f"{k}.c.safetensors", b, c, config)
        direct = translate(start, tmp_path / f"{k}.d.safetensors", a, c, config)
        assert contents(around) == contents(direct)


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack", ".npz", ".pt", ".pdparams"])
def test_every_format_both_ways_and_the_same_bytes_twice(suffix, tmp_path):
    config = specs.get("mlp_mixer").tiny["B/16"]
    start = tmp_path / "start.safetensors"
    write_numbers(start, "mlp_mixer", config, "google")
    paths = []
    for run in "ab":
        (tmp_path / run).mkdir()
        paths.append(translate(start, tmp_path / run / f"x{suffix}", "google", "flax", config))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    back = translate(paths[0], tmp_path / "back.safetensors", "flax", "google", config)
    assert contents(back) == contents(start)


def test_layout_follows_from_the_kind_never_from_the_shape(tmp_path):
    """Square matrices: every dense kernel is transposed between flax and torch, every norm is not."""
    config = specs.get("mlp_mixer").config(**SQUARE["mlp_mixer"])
    start = tmp_path / "start.safetensors"
    write_numbers(start, "mlp_mixer", config, "flax")
    out = contents(translate(start, tmp_path / "out.safetensors", "flax", "torch", config))
    held = contents(start)
    before = np.frombuffer(held["params/blocks_1/token_mix/fc1/kernel"][2], np.float32).reshape(4, 4)
    after = np.frombuffer(out["blocks.1.token_mix.fc1.weight"][2], np.float32).reshape(4, 4)
    assert np.array_equal(after, before.T)
    stem = np.frombuffer(held["params/stem/kernel"][2], np.float32).reshape(2, 2, 4, 4)
    assert np.array_equal(
        np.frombuffer(out["stem.weight"][2], np.float32).reshape(4, 4, 2, 2), stem.transpose(3, 2, 0, 1)
    )


def test_ports_dialects_have_no_tables():
    assert all(not dialect.table and not dialect.conventions for dialect in PORTS.values())


@pytest.mark.parametrize("architecture", specs.names())
def test_tiny_twins_use_every_name_that_a_variant_has(architecture):
    """Names are recognised from the tiny twins alone: an option that none of them uses would not be read."""
    spec = specs.get(architecture)

    def patterns(configs):
        return {(pattern(p.name), p.layer.kind) for config in configs for p in parameters(list(spec.layers(config)))}

    assert patterns(spec.variants.values()) <= patterns(spec.tiny.values())
