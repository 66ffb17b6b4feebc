"""Every pair of ports, every tiny twin of every variant and option: the same numbers, tap by tap."""

import contextlib
import dataclasses
import functools
import itertools
import json
import typing

import numpy as np
import pytest

import ports
import specs
from convert.config.conventions import computing
from convert.errors import UsageError
from parity.__main__ import main
from parity.results.elements import relative_error
from ports.frameworks import quick_xla_flags
from ports.port import pattern
from ports.runners.inputs import OUTPUT
from ports.runners.records import Optimizer, outputs
from ports.saving import READ_MODULES
from specs.checking.asked import arrays_of
from specs.layer import count, parameters
from specs.words import in_a_row

from .conftest import needs, needs_port, tiny

FRAMEWORKS = ("flax", "torch", "paddle")
TWINS = [(arch, name) for arch in specs.names() for name in specs.get(arch).tiny]
# The last small Config of each architecture, which has the most options: the first has the usual momentum of norms,
# which no port may assume. XLA takes seconds to compile the gradients and the steps of one.
TRAINED = [(arch, [*specs.get(arch).tiny][-1]) for arch in specs.names()]
VARIANTS = [(arch, name) for arch in specs.names() for name in specs.get(arch).variants]
PUBLISHED = [(arch, name) for arch in specs.names() for name in specs.get(arch).published]
IDS = "{0[0]}-{0[1]}".format


def images(spec, config, n=2):
    return np.random.default_rng(5).standard_normal((n, *spec.input_shape(config)))


@functools.lru_cache(maxsize=3)
def traced(twin, framework):
    """A twin's taps and logits of one run, which two of the pairs below compare."""
    port = tiny(*twin, framework)
    return recorded(port, images(port.spec, port.config))


def recorded(port, x):
    """The outputs of every layer and block of a port, and of the network itself."""
    *taps, whole = port.trace(x)
    assert whole.name == OUTPUT
    return dict(outputs(taps)), whole.outputs[0]


@pytest.mark.parametrize("pair", list(itertools.combinations(FRAMEWORKS, 2)), ids="-".join)
@pytest.mark.parametrize("twin", TWINS, ids=IDS)
def test_taps_agree(twin, pair):
    (ours, left), (theirs, right) = (traced(twin, framework) for framework in pair)
    assert list(ours) == list(theirs)  # the same layers in the same order
    assert len(ours) > 3
    for tap in ours:  # execution order: the first failure is the cause
        # float64 rounding through some ten layers is below 1e-13; paddle's float32 epsilons add up to 1e-12
        assert relative_error(ours[tap], theirs[tap]) <= 1e-10, tap
    assert relative_error(left, right) <= 1e-10


@pytest.mark.usefixtures("quick_gradients")
@pytest.mark.parametrize("twin", TRAINED, ids=IDS)
def test_gradients_and_training_agree(twin, capsys):
    """Outputs of an evaluation show no detached tensor, and nothing of dropout; see tolerance for the limits."""
    architecture, name = twin
    main([f"{architecture}:tiny {name}", "--check", "gradients", "train", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row for row in rows if row["passed"] is False] == []
    if not any(row["passed"] for row in rows):
        pytest.skip("; ".join(sorted({row["reason"] for row in rows})))


@functools.lru_cache(maxsize=3)
def full_size(framework):
    needs(framework)
    port = ports.build("mlp_mixer", "S/16", framework, init="random", dtype="float64")
    return recorded(port, images(port.spec, port.config, n=1))


@pytest.mark.parametrize("pair", list(itertools.combinations(FRAMEWORKS, 2)), ids="-".join)
def test_full_size(pair):
    """One network at its real size, with real depths and widths."""
    (ours, left), (theirs, right) = map(full_size, pair)
    assert list(ours) == list(theirs)
    assert relative_error(left, right) <= 1e-10
    # as above; 8 blocks of width 512 sum more terms, and measure 1e-13, 3e-12 with paddle's epsilons
    assert {tap: e for tap in ours if not (e := relative_error(ours[tap], theirs[tap])) <= 1e-10} == {}


@pytest.mark.parametrize(("architecture", "variant"), PUBLISHED, ids="{}".format)
def test_parameter_counts_as_published(architecture, variant):
    """With 1000 classes, 10 of those trained on CIFAR-10, as the original implementations count them."""
    spec = specs.get(architecture)
    assert count(list(spec.layers(spec.variants[variant]))) == spec.published[variant]


@pytest.mark.parametrize("twin", VARIANTS, ids=IDS)
def test_torch_counts_the_same(twin):
    needs_port(twin[0], "torch")
    import torch

    spec = specs.get(twin[0])
    with torch.device("meta"):
        model = ports.network(twin[0], "torch")(spec.variants[twin[1]])
    assert sum(p.numel() for p in model.parameters()) == counted(spec, twin[1])
    held = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert held == expected(twin, "torch")
    counted_so = [name for name, _ in model.named_parameters()]  # a module's own parameters before its children's
    in_order = [name for name in expected(twin, "torch") if name in counted_so]
    why = "states of torch's optimizers are written in the order in which `layers` of the page yields arrays"
    assert specs.folder(twin[0]) or counted_so == in_order, why


def extremes():
    """The smallest and the largest variant of each set of names."""
    kinds = {}
    for architecture, name in VARIANTS:
        layers = list(specs.get(architecture).layers(specs.get(architecture).variants[name]))
        names = frozenset((pattern(p.name), p.layer.kind) for p in parameters(layers))
        kinds.setdefault((architecture, names), []).append((count(layers), name))
    return [(architecture, name) for (architecture, _), sizes in kinds.items() for _, name in {min(sizes), max(sizes)}]


@pytest.mark.parametrize("twin", sorted(extremes()), ids=IDS)
def test_flax_counts_the_same(twin):
    """Tracing a deep network takes seconds, and the variants between two extremes have the same layers."""
    needs_port(twin[0], "flax")
    import jax
    from flax.traverse_util import flatten_dict

    spec = specs.get(twin[0])
    config = spec.variants[twin[1]]
    c, h, w = spec.input_shape(config)
    module = ports.network(twin[0], "flax")(config)
    tree = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, h, w, c), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(tree["params"])) == counted(spec, twin[1])
    held = {name: leaf.shape for name, leaf in flatten_dict(tree, sep="/").items()}
    assert held == expected(twin, "flax")


@pytest.mark.parametrize("twin", VARIANTS, ids=IDS)
def test_paddle_counts_the_same(twin):
    needs_port(twin[0], "paddle")
    import paddle

    spec = specs.get(twin[0])
    with paddle.LazyGuard():  # shapes without memory
        model = ports.network(twin[0], "paddle")(spec.variants[twin[1]])
    trained = [p for p in model.parameters() if not p.stop_gradient]
    assert sum(int(np.prod(p.shape)) for p in trained) == counted(spec, twin[1])
    held = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert held == expected(twin, "paddle")


@pytest.mark.parametrize("twin", TRAINED, ids=IDS)
def test_paddle_exports_a_port_for_inference(twin, tmp_path):
    """As paddle.jit.save does it, which reads the code of each forward and takes no zip(..., strict=True)."""
    needs_port(twin[0], "paddle")
    import paddle

    port = ports.build(twin[0], specs.get(twin[0]).tiny[twin[1]], "paddle", seed=1, init="random", dtype="float64")
    x = paddle.to_tensor(images(port.spec, port.config))
    port.model.eval()
    paddle.jit.save(port.model, str(tmp_path / "port"), input_spec=[paddle.static.InputSpec(x.shape, "float64")])
    exported = paddle.jit.load(str(tmp_path / "port"))(x)
    assert relative_error(exported.numpy(), port.model(x).numpy()) < 1e-6  # an exported program has float32 constants


def counted(spec, variant):
    """Trained parameters of a variant, as the original counts them if that is known."""
    return spec.published.get(variant) or count(list(spec.layers(spec.variants[variant])))


def expected(twin, framework):
    """Names and shapes that the converter would write for a variant."""
    from specs.dialects import PORTS, shapes

    spec = specs.get(twin[0])
    config = spec.variants[twin[1]]
    return shapes(spec.layers(config), PORTS[framework])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("architecture", specs.names())
def test_a_seed_gives_the_same_weights_everywhere(architecture, framework):
    config = next(iter(specs.get(architecture).tiny.values()))
    made = ports.initial(architecture, config, framework, seed=7)
    again = ports.initial(architecture, config, framework, seed=7)
    other = ports.initial(architecture, config, framework, seed=8)
    for (name, values), (_, same), (_, different) in zip(made, again, other, strict=True):
        assert np.array_equal(values, same), name
        if np.ptp(values) > 0:  # no constant: its std is rounding, and not 0
            assert not np.array_equal(values, different), name


def test_the_seed_of_torch_has_no_effect_on_a_new_model():
    torch = pytest.importorskip("torch")
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(ports.build("mlp_mixer", "tiny S/32", "torch").model.state_dict())
    assert all(torch.equal(values, models[1][name]) for name, values in models[0].items())


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("architecture", specs.names())
def test_built_and_wrong_images(architecture, framework):
    needs_port(architecture, framework)
    spec = specs.get(architecture)
    config = min(spec.tiny.values(), key=lambda c: (not c.classes, len(list(spec.layers(c)))))
    port = ports.build(architecture, config, framework)
    x = images(spec, config)
    assert port(x).shape == (2, config.classes or port(x).shape[1])
    assert np.isfinite(port(x)).all()
    with pytest.raises(ValueError, match="images are"):
        port(x[:, :, 0])
    with pytest.raises(ValueError, match="images are"):
        port(np.concatenate([x, x], axis=1))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_other_dtypes(framework, dtype):
    """Lower precision computes the same network: within a few units of its own rounding, over a dozen layers."""
    exact = tiny("mlp_mixer", "tanh, ragged", framework)
    if framework == "paddle" and dtype != "float32":
        pytest.skip(f"paddle's CPU build has no {dtype} convolution")
    x = images(exact.spec, exact.config)
    low = tiny("mlp_mixer", "tanh, ragged", framework, dtype)(x)
    unit = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    assert low.dtype == (np.float32 if dtype == "bfloat16" else np.dtype(dtype))
    assert 0 < relative_error(exact(x), low.astype(np.float64)) <= 8 * unit


@pytest.mark.parametrize(("words", "settings", "message"), [
    (("mlp_mixr", "B/16", "torch"), {}, "did you mean 'mlp_mixer'"),
    (("mlp_mixer", "B/1", "torch"), {}, r"no variant 'B/1', did you mean 'B/16'\? \(give a variant \('S/32'"),
    (("mlp_mixer", "tiny T/1", "torch"), {}, "tiny S/32.*or the path of a configuration file"),
    (("mlp_mixer", {"patch": 2}, "torch"), {}, "fields go as keywords beside a variant"),
    (("mlp_mixer", specs.get("convmixer").variants["768/32"], "torch"), {}, "a Config of mlp_mixer, or the path"),
    (("mlp_mixer", "B/16", "torch"), {"clases": 3}, "did you mean 'classes'"),
    (("mlp_mixer", "B/16", "torch"), {"classes": "x"}, "classes='x' does not fit: classes is int"),
    (("mlp_mixer", "B/16", "torch"), {"init": "zeros"}, "init='zeros': one of upstream, random"),
])  # fmt: skip
def test_what_cannot_be_built_is_told(words, settings, message):
    with pytest.raises(UsageError, match=message):
        ports.build(*words, **settings)


def test_architectures_and_variants_are_listed():
    assert ports.names() == specs.names()
    assert {name: ports.variants(name) for name in ports.names()} == {
        n: list(specs.get(n).variants) for n in specs.names()
    }


def test_a_bare_torch_module_holds_numbers():
    """Made without `build`: nothing of what memory held before."""
    needs("torch")
    import torch

    config = next(iter(specs.get("mobile_former").tiny.values()))
    memory = [torch.full((size,), torch.nan) for size in range(1, 2000)]  # to be handed out again
    del memory
    model = ports.network("mobile_former", "torch")(config)
    assert all(bool(array.isfinite().all()) for array in model.state_dict().values())
    assert all(
        float(array.detach().std()) > 0 for name, array in model.named_parameters() if name.endswith("query.weight")
    )


def test_a_port_takes_trained_variables_and_saves_them(tmp_path):
    """Linen's variables are values, not state: training makes new ones, which the port is given."""
    needs("flax")
    port = ports.build("mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), framework="flax", seed=0)
    module, variables = port.model
    head = variables["params"]["head"]
    port.model = module, {**variables, "params": {**variables["params"], "head": {**head, "bias": head["bias"] + 1}}}
    port.save(tmp_path / "trained.safetensors")
    loaded = ports.load(tmp_path / "trained.safetensors", framework="flax")
    assert np.array_equal(loaded.state()["params/head/bias"], port.state()["params/head/bias"])
    assert np.array_equal(loaded.state()["params/head/bias"], np.asarray(head["bias"]) + 1)


@pytest.mark.parametrize("flags", ["quick", "a user's own"])
def test_only_functions_without_gradients_are_compiled_at_the_lowest_level(flags, monkeypatch):
    """There XLA computes some gradients wrongly; with flags of the user's own, nothing changes."""
    needs("flax")
    import jax

    monkeypatch.setenv("XLA_FLAGS", quick_xla_flags() if flags == "quick" else "--xla_backend_optimization_level=3")
    levels, jit = [], jax.jit

    def noted(function, **options):
        if "compiler_options" in options:  # optax compiles functions too
            levels.append(options["compiler_options"].get("xla_backend_optimization_level"))
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", noted)
    port = ports.build("mlp_mixer", next(iter(specs.get("mlp_mixer").tiny.values())), "flax")
    x = images(port.spec, port.config)
    for compute in (port, port.trace, port.gradients):
        compute(x)
    for optimizer in ("sgd", "adam", "sgd"):
        port.train([x, x], Optimizer(name=optimizer))
    for seed in range(2):
        port.dropout_calls(x, seed)
    trained, dropped = [0, 0, 0, 0], [0]  # begin and step of each optimizer; all calls of dropout in one program
    assert levels == ([0, 0, None, *trained, *dropped] if flags == "quick" else [None] * 8)


@pytest.mark.parametrize("committed", [True, False])
def test_each_program_is_compiled_once(committed, caplog):
    """Nothing is for each parameter, nor again for other weights or after a step.

    Users' arrays are bound to no device as a rule, but to one after a step: this is compiled for both.
    """
    needs("flax")
    import jax

    small = next(iter(specs.get("mlp_mixer").tiny.values()))
    port = ports.build("mlp_mixer", dataclasses.replace(small, channel_hidden=23), "flax")  # in no other test
    module, variables = port.model
    if not committed:
        port.model = module, jax.tree.map(lambda array: jax.numpy.asarray(np.asarray(array)), variables)
    assert {array.committed for array in jax.tree.leaves(port.model.variables)} == {committed}
    x = images(port.spec, port.config)
    with jax.log_compiles():
        for model in (port, port.jittered(1e-3, seed=0)):
            model(x), model.gradients(x)
            if committed:
                model.train([x, x], Optimizer(name="adam"))
    programs = [line.split()[1] for line in caplog.messages if line.startswith("Compiling")]
    assert programs == ["jit(call)", "jit(loss)", *["jit(init_fn)", "jit(step)"] * committed]


def near(value):
    """Return numbers near an integer; of a tuple, tuples with each of its integers changed alike."""
    if isinstance(value, tuple):
        return list(zip(*map(near, value), strict=True)) if all(type(n) is int for n in value) else []
    return [value + 1, value + 2, value * 2, value // 2] if type(value) is int else []


def other_values(spec, config, field):
    """Values of a Config field beside its own: a truth turned, the other choices, another number.

    Of integers and tuples, those of the page's other Configs come first, as its network takes them.
    """
    value, hint = getattr(config, field), typing.get_type_hints(spec.config)[field]
    if isinstance(value, bool):
        return [not value]
    if typing.get_origin(hint) is typing.Literal:
        return [other for other in typing.get_args(hint) if other != value]
    if isinstance(value, float):
        return [value / 2 or 0.5]
    others = [getattr(other, field) for other in (*spec.tiny.values(), *spec.variants.values())]
    return [other for other in dict.fromkeys([*others, *near(value)]) if other != value]


def others(spec, config, field):
    """Yield Configs with another value of a field, those that the page accepts."""
    for value in other_values(spec, config, field):
        with contextlib.suppress(ValueError):
            yield dataclasses.replace(config, **{field: value})


def is_shown(spec, config, other):
    return arrays_of(spec, config) != arrays_of(spec, other)


def is_changed(own, config):
    """Tell whether a port of another Config does something else with the same arrays and images, as to refuse them."""
    x = images(own.spec, own.config)
    before = own(x)
    try:
        other = ports.build(own.architecture, config, own.framework, seed=1, init="random", dtype="float64")
        after = other(x)
    except Exception:  # a framework may raise anything
        return True
    assert all(np.array_equal(array, other.state()[name]) for name, array in own.state().items())
    return not np.array_equal(before, after)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("architecture", specs.names())
def test_a_setting_that_no_array_shows_changes_the_outputs(architecture, framework):
    """Else a port ignores it: three that do so agree. The momentum of norms counts in training alone."""
    needs_port(architecture, framework)
    spec, found = specs.get(architecture), {}  # field -> whether it changed the outputs, or arrays show it, so far
    for name, config in spec.tiny.items():
        for field in sorted(computing(spec) - spec.immaterial(config) - {spec.norms.get("momentum")}):
            found.setdefault(field, set())
            for other in others(spec, config, field) if "changed" not in found[field] else ():
                if is_shown(spec, config, other):
                    found[field].add("shown")
                    continue
                changed = is_changed(tiny(architecture, name, framework), other)
                found[field].add("changed" if changed else "unchanged")
                if changed:
                    break
    ignored = [field for field, results in found.items() if "unchanged" in results and "changed" not in results]
    assert not ignored, f"{ignored}: no output of the {framework} port depends on it"
    if untried := [field for field, results in found.items() if not results]:
        pytest.skip(f"{in_a_row(untried)} of {architecture}: the page accepts no other value that is tried, so that "
                    f"the {framework} port may ignore it")  # fmt: skip


@pytest.mark.parametrize("architecture", specs.names())
def test_an_immaterial_field_changes_no_output(architecture):
    """Else files that differ in it are converted to one network without a word. All ports agree: one shows it."""
    ported = [framework for framework in ("torch", "paddle", "flax") if framework in ports.ported(architecture)]
    if not ported:
        pytest.skip(f"{architecture} has no port in a framework that is installed")
    spec, wrong = specs.get(architecture), []
    for name, config in spec.tiny.items():
        for field in sorted(spec.immaterial(config)):
            unshown = (other for other in others(spec, config, field) if not is_shown(spec, config, other))
            for other in itertools.islice(unshown, 1):
                if is_changed(tiny(architecture, name, ported[0]), other):
                    wrong.append(
                        f"{field}={getattr(other, field)} for tiny {name!r}, which has {getattr(config, field)}"
                    )
    assert not wrong, f"`immaterial` names fields that change outputs of the {ported[0]} port: {'; '.join(wrong)}"


@pytest.mark.filterwarnings("ignore:.*the file has no head")
@pytest.mark.parametrize("framework", ["torch", "paddle"])
@pytest.mark.parametrize("architecture", specs.names())
def test_modules_state_the_settings_of_their_port(architecture, framework, tmp_path):
    """As `ports.save` reads them, and the pickle of a whole model is read: it refuses a Config that they contradict."""
    needs_port(architecture, framework)
    spec, stated = specs.get(architecture), set()
    for name, config in spec.tiny.items():
        model = tiny(architecture, name, framework).model
        ports.save(model, tmp_path / "x.safetensors", config=config, architecture=architecture, force=True)
        shown = (spec.activations.get(module.activation, {}) for module in READ_MODULES[framework](model))
        stated |= {field for fields in shown for field in fields}
    if lacking := sorted({field for shown in spec.activations.values() for field in shown} - stated):
        pytest.skip(f"no module of the {framework} port of {architecture} states {in_a_row(lacking)}, which ports.save "
                    "takes from its config alone: use modules, as nn.GELU()")  # fmt: skip
