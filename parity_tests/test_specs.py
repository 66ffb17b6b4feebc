"""The record that a page ends with: checked as a whole, and the pages here keep its rules."""

import dataclasses
import re
from pathlib import Path
from typing import Literal, Optional

import numpy as np
import pytest

import specs
from convert.config.conventions import computing, required
from convert.files.modules import AT_OUTPUTS
from specs.checking.checks import faults
from specs.checking.unseen import options, written
from specs.config import check_numbers
from specs.init import draw
from specs.layer import Layer, Sizes, array, batch_norm, conv, dense, norm, parameters
from specs.spec import ACTIVATIONS, FITS, Dialect, Refusal, Spec, SpecError

from .conftest import needs

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 3
    channels: int = 3
    classes: int = 2


GOOD = {
    "config": Config, "layers": lambda c: [Layer("head", "dense", {"i": c.width, "o": c.classes})],
    "infer": lambda sizes: {}, "variants": {"A": Config()}, "tiny": {"A": Config()},
    "input_shape": lambda c: (c.channels, 4, 4), "network": "Network",
}  # fmt: skip


def told(**changes):
    """Return the problems of a Spec with other fields; None removes one."""
    given = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        Spec(**given)
    return caught.value.problems


def test_a_spec_needs_no_more_than_its_required_fields():
    spec = Spec(**GOOD)
    spec.check_images(Config(), 1, 1)
    assert (spec.immaterial(Config()), spec.dialects, spec.unshown) == (set(), {}, frozenset())
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.network = "Other"


def test_everything_wrong_is_reported_at_once():
    problems = told(
        infer=None, network=None, variant={}, layers=3, tiny={}, sign="(", ports={"jax": "x.py"}, published={"B": 1},
        unshown={"widht"}, readers={"orginal": dict}, variants={"A": 7},
        dialects={"original": Dialect("pytorch", "", {"clases": 1}, {"x": 1}), "flax": Dialect("flax")},
    )  # fmt: skip
    wanted = [
        "unknown name 'variant', did you mean 'variants'?",
        "infer is missing: sizes of a checkpoint's arrays",
        "network is missing: name of its class",
        "layers is 3, not a function",
        "tiny is {}, not a mapping of names to Configs, at least one",
        "sign is '(', not a regular expression",
        "variants: 'A' is no Config",
        "ports: unknown name 'jax'",
        "published: unknown name 'B'",
        "unshown: unknown name 'widht', did you mean 'width'?",
        "readers: unknown name 'orginal', did you mean 'original'?",
        "dialect 'original', framework: unknown name 'pytorch', did you mean 'torch'?",
        "dialect 'original', conventions: unknown name 'clases', did you mean 'classes'?",
        "dialect 'original', requires: unknown name 'x'",
        "dialects: 'flax' is a framework",
    ]
    assert [any(line.startswith(want) for line in problems) for want in wanted] == [True] * len(wanted)
    assert len(problems) == len(wanted)


@pytest.mark.parametrize("name", FITS)
def test_every_field_is_checked(name):
    assert told(**{name: 1.5})[0].startswith(f"{name} is 1.5, not ")


def test_fields_that_are_collections_are_checked_inside():
    assert told(refused=("x",)) == ["refused is ('x',), not a tuple of Refusals"]
    assert told(norms={"epsilon": "width"})[0].startswith("norms is {'epsilon': 'width'}, not a mapping of eps")
    assert told(norms={"eps": "widht", "momentum": 0.5}) == ["norms: unknown name 'widht', did you mean 'width'?"]
    assert told(activations={"ReLU": {"act": "relu"}})[0].startswith("activations: unknown name 'act'")
    assert told(dialects={"a": "flax"})[0].startswith("dialects is {'a': 'flax'}, not a mapping")
    assert told(dialects={"a": Dialect("torch", 3, ["width"], ("width",), ("lm_head",), None, 1, {"A": ()}, {})}) == [
        "dialect 'a': table is 3, not a text",
        "dialect 'a': conventions is ['width'], not a mapping, {Config field: value}",
        "dialect 'a': requires is ('width',), not a mapping, {Config field: value}",
        "dialect 'a': extras is ('lm_head',), not a tuple of Layers, nor a function of the Config that yields them",
        "dialect 'a': suffix is None, not a text",
        "dialect 'a': about is 1, not a text",
        "dialect 'a': preprocessing is {'A': ()}, not a mapping of variants to tuples of Preprocessing",
        "dialect 'a': computed is {}, not a function of the Config",
    ]
    assert told(config=dict)[0].startswith("config is <class 'dict'>, not a frozen dataclass with fields")
    Spec(**GOOD, refused=(Refusal(frozenset({"x"}), "is another"),))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Typed(Config):
    act: Literal["gelu", "relu"] = "gelu"
    norm_eps: float = 1e-6
    sizes: Optional[tuple[int, ...]] = None  # noqa: UP045


def typed(**changes):
    return told(config=Typed, variants={}, tiny={"A": Typed()}, **changes)


def test_values_that_a_page_states_have_the_types_of_their_fields():
    dialect = Dialect("torch", conventions={"act": "silu"}, requires={"norm_eps": "1e-6", "sizes": (2.5,)})
    assert typed(dialects={"a": dialect}, activations={"GELU": {"act": "tanh"}, "Gelu": {}}) == [
        "activations: unknown name 'Gelu', did you mean 'GELU'?",
        "activations: 'GELU': act='tanh' does not fit: act is gelu or relu",
        "dialect 'a', conventions: act='silu' does not fit: act is gelu or relu",
        "dialect 'a', requires: norm_eps='1e-6' does not fit: norm_eps is float",
        "dialect 'a', requires: sizes=(2.5,) does not fit: sizes is int,... (of one: 4,) or none",
    ]


def test_a_config_is_frozen_and_of_types_that_are_checked():
    @dataclasses.dataclass
    class Loose:
        channels: int = 3
        classes: int = 2

    @dataclasses.dataclass(frozen=True)
    class Strange(Config):
        act: str = "gelu"
        patch: list[int] | None = None

    @dataclasses.dataclass(frozen=True)
    class Nameless(Config):
        late: "Nowhere" = 3  # noqa: F821

    assert told(config=Loose)[0].endswith(", not a frozen dataclass with fields channels and classes")
    assert told(config=Nameless)[0] == "config: its types cannot be read: NameError: name 'Nowhere' is not defined"
    may_be = "which no Config field has: int, float, bool, Literal[...], a tuple of these, as in tuple[int, ...], or a"
    assert [problem.partition(" union")[0] for problem in told(config=Strange) if problem.startswith("config")] == [
        f"config: act is of type str, {may_be}", f"config: patch is of type list[int] | None, {may_be}",
    ]  # fmt: skip


def test_feature_maps_lie_in_the_network():
    found = faults(Spec(**SOUND, feature_maps=("head", "act", "head.act", "haed.act", "head.#.act")))
    assert found == [
        "feature_maps: 'haed.act': no layer lies there: unknown name 'haed', did you mean 'head'?",
        "feature_maps: 'head.#.act': no layer lies there: unknown name 'head.#', did you mean 'head'?",
    ]


def test_the_activations_of_a_page_are_those_of_torch():
    needs("torch")
    import torch

    inside = set(torch.nn.modules.activation.__all__) - AT_OUTPUTS
    assert inside == ACTIVATIONS - {"GELU tanh"}


@pytest.mark.parametrize("words", [("width",), ((2, 2), "width"), (True,)])
def test_numbers_are_checked_with_the_number_of_blocks(words):
    with pytest.raises(
        TypeError, match=r"the number of all blocks comes after self, as in check_numbers\(self, self.de"
    ):
        check_numbers(Config(), *words)


def test_what_immaterial_returns_is_a_set():
    assert faults(Spec(**{**SOUND, "immaterial": lambda c: "width"})) == [
        "tiny 'A' (and 1 more Config): immaterial: returned 'width', not a set of Config fields"
    ]


def test_extras_are_checked_as_layers_are():
    for extras, problem in (
        (lambda c: [Layer("lm_head", "linear", {})], "extras 'lm_head': kind: unknown name 'linear'"),
        (lambda c: ["lm_head"], "extras: layers: yields 'lm_head', not a Layer"),
        (lambda c: c.depth, "extras: line "),
        ((norm("spare", 0),), "extras 'spare': size of c is 0"),
    ):
        infer = {**GOOD, "infer": lambda sizes: {"width": 3, "channels": 3, "classes": 2}}
        spec = Spec(**infer, dialects={"mine": Dialect("torch", extras=extras)})
        (fault,) = [fault for fault in faults(spec) if "extras" in fault]
        assert f"dialect 'mine', {problem}" in fault


def test_what_code_computes_is_checked():
    for computed, problem in (
        (lambda c: [("index", np.arange(3))], "computed: returned a list, not a mapping of paths to numpy arrays"),
        (lambda c: {"index": [1, 2]}, "computed 'index': is no numpy array of numbers"),
        (lambda c: {"index": np.array("x")}, "computed 'index': is no numpy array of numbers"),
        (lambda c: {"a index": np.arange(3)}, "computed: 'a index': a path is names and numbers joined by dots"),
        (lambda c: c.depth, "computed: line "),
    ):
        infer = {**GOOD, "infer": lambda sizes: {"width": 3, "channels": 3, "classes": 2}}
        spec = Spec(**infer, dialects={"mine": Dialect("torch", computed=computed)})
        (fault,) = [fault for fault in faults(spec) if "computed" in fault]
        assert "dialect 'mine'" in fault and problem in fault


@pytest.mark.parametrize("architecture", specs.names())
def test_a_pages_functions_fit_its_twins(architecture):
    assert faults(specs.get(architecture)) == []


def test_options_that_a_variant_alone_has_together_are_a_fault_of_the_page():
    """A port may be wrong for them, while it agrees for each value beside others."""
    mixer = specs.get("mlp_mixer")
    variants = {name: dataclasses.replace(mixer.variants["H/14"], gelu="tanh", image=225) for name in ("A", "B")}
    spec = dataclasses.replace(mixer, variants=variants, published={})
    assert faults(spec) == ["tiny: no Config has gelu=tanh and padding=VALID, as variant 'A' and 'B': add one"]
    twin = dataclasses.replace(mixer.tiny["tanh, ragged"], padding="VALID")
    assert faults(dataclasses.replace(spec, tiny={**mixer.tiny, "tanh": twin})) == []


def test_an_optional_number_is_an_option_by_whether_it_is_stated():
    mixer = specs.get("mlp_mixer")
    headless = options(mixer, mixer.tiny["headless"])
    assert headless == {"tokens": "not None", "gelu": "erf"}  # padding and image change nothing beside tokens
    assert [written(option) for option in headless.items()] == ["tokens not None", "gelu=erf"]


def test_a_sign_is_sought_in_the_names_that_nnx_has_without_collections():
    """A name of linen loses its first level if that is a collection, as `params`: Google's files have none."""
    mixer = specs.get("mlp_mixer")
    names = r"^MixerBlock_\d+/|[Bb]locks?[_./]\d|mlp_tokens|^mixer_layers|^\d+\."
    assert faults(dataclasses.replace(mixer, sign=names)) == []
    missed = faults(dataclasses.replace(mixer, sign="params/|MixerBlock|[.]"))
    assert any("dialect 'flax', in nnx as 'stem/kernel'" in fault for fault in missed), missed


@pytest.mark.parametrize("architecture", specs._pages())
def test_the_sign_of_a_page_is_read_without_importing_it(architecture):
    where = f'specs/{architecture}.py: write SIGN = r"..." on a line of its own, and pass sign=SIGN to Spec'
    assert specs._pages()[architecture] == specs.get(architecture).sign != "", where


@pytest.mark.parametrize("architecture", specs._pages())
def test_every_variant_here_has_a_published_count(architecture):
    spec = specs.get(architecture)
    assert spec.published.keys() == spec.variants.keys()


def test_helpers_are_no_architectures():
    assert not {"layer", "spec", "kinds", "config", "paddlevit", "table"} & set(specs.names())
    assert len(specs.names()) >= 5


@pytest.mark.parametrize("floor", ["convert", "parity"])
def test_no_file_of_the_engine_names_an_architecture(floor):
    words = [word for name in specs._pages() for word in (name, specs.get(name).network)]
    named = re.compile(rf"\b({'|'.join(words)})\b")
    found = {str(path): named.findall(path.read_text()) for path in (ROOT / floor).rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
    assert len(found) > 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """Fields of every kind that `check_numbers` bounds, and some that it does not."""

    depth: int = 1
    classes: int = 0
    stages: tuple[tuple[int, ...], ...] = ((1, 2), (0,))
    side: int | None = None
    ln_eps: float = 1e-6
    eps: float = 0.0
    bn_momentum: float = 0.9
    drop_rate: float = 0.0
    shift: float = -1.0
    steps: float = -2.0  # no epsilon
    flag: bool = False

    def __post_init__(self):
        check_numbers(self, self.depth)


@pytest.mark.parametrize(("name", "value", "bounds"), [
    ("classes", -1, "at least 0"), ("stages", ((1, -2), (0,)), "at least 0"), ("side", -3, "at least 0"),
    ("ln_eps", -1e-6, "at least 0"), ("eps", -1.0, "at least 0"), ("bn_momentum", 1.5, "from 0 to 1"),
    ("drop_rate", 1, "from 0 to below 1"), ("drop_rate", -0.1, "from 0 to below 1"),
])  # fmt: skip
def test_every_number_of_a_config_is_bounded(name, value, bounds):
    Numbers(), Numbers(side=3, eps=1, shift=-5.0, drop_rate=0, flag=True)
    with pytest.raises(ValueError, match=f"{name}=.*: {bounds}"):
        Numbers(**{name: value})


def test_a_suffix_begins_with_a_dot():
    (problem,) = told(dialects={"a": Dialect("torch", suffix="pth")})
    assert problem == "dialect 'a': suffix is 'pth': it begins with a dot, as in '.pth'"


def test_a_fault_of_every_block_is_one_line():
    def layers(config):
        return [*(Layer(f"blocks.{b}.fc", "dense", {"i": 2, "o": 2}, init="xavier") for b in range(9)),
                Layer("head", "dense", {"i": 2, "o": 2}, init="zero")]  # fmt: skip

    found = faults(Spec(**{**GOOD, "layers": layers, "variants": {}}))
    assert len(found) == 2
    assert "'blocks.0.fc' (and 8 more): init: unknown name 'xavier', did you mean 'xavier_uniform'? (one" in found[0]
    assert found[1].endswith("(one of lecun_normal, kaiming_normal, xavier_uniform, torch, trunc_normal_02, normal, "
        "zeros, ones, a number, as in 0.1, or a pair, as in ('normal', 0.02) or ('uniform', 0.1))")  # fmt: skip


SOUND = {
    **GOOD, "infer": lambda sizes: {"width": sizes["head.kernel", "i"], "classes": sizes["head.kernel", "o"]},
    "immaterial": lambda c: {"channels"},
}  # fmt: skip


def test_the_scale_of_a_norm_is_filled_and_its_splits_are_factors():
    filled = [norm("n", 6, init=2), norm("n", 6, init="zeros"), norm("n", 6, init="ones"), norm("n", 6, h=3, d=2),
              batch_norm("n", 6, init=0.5)]  # fmt: skip
    assert [set(draw(next(layer.parameters()), 0).tolist()) for layer in filled] == [{2}, {0}, {1}, {1}, {0.5}]
    for build, problem in (
        (lambda: norm("n", 6, eps=3), "ValueError: norm('n', 6, eps=3): these are no factors of 6"),
        (lambda: norm("n", 6, init="normal"), "layers: 'n': init is 'normal': a scale is not drawn"),
        (lambda: batch_norm("n", 6, init="toch"), "layers: 'n': init: unknown name 'toch', did you mean 'torch'?"),
    ):
        (fault,) = faults(Spec(**{**SOUND, "layers": lambda c, build=build: [build(), *GOOD["layers"](c)]}))
        assert problem in fault


@pytest.mark.parametrize(("init", "message"), [
    ("tenth", "init: unknown name 'tenth' (one of lecun_normal, "), (None, "init is None, neither"),
    (True, "init is True, neither"), (float("nan"), "init is nan, neither"), (1e39, "init is 1e+39, neither"),
    ([0.1], "init is [0.1], neither"), (0.1, ""), (1e-5, ""), (-1, ""), (0, ""),
])  # fmt: skip
def test_an_init_is_a_name_or_a_number_and_what_is_neither_is_reported_once(init, message):
    """Though it is in two layers of every block of every Config."""

    def layers(config):
        scales = [array(f"blocks.{b}.{name}", c=config.width, init=init) for b in range(3) for name in ("s", "t")]
        return [*scales, *GOOD["layers"](config)]

    found = faults(Spec(**{**SOUND, "layers": layers}))
    assert len(found) == bool(message)
    for problem in found:
        assert problem.startswith(
            "tiny 'A' (and 1 more Config): layers: 'blocks.0.s' and 'blocks.0.t' (and 4 more): " + message
        )


def test_a_kernel_and_a_bias_begin_where_their_layer_states():
    """As in the spatial gating unit of gMLP: a kernel near 0, a bias of 1."""
    kernel, bias = (draw(p, 0) for p in dense("mix", 64, 64, init=("normal", 1e-6), bias_init=1).parameters())
    assert set(bias.tolist()) == {1} and 0.9e-6 < kernel.std() < 1.1e-6 and np.abs(kernel).max() > 2e-6
    kernel, bias = (draw(p, 0) for p in dense("mix", 64, 64, init=("uniform", 0.1)).parameters())
    assert set(bias.tolist()) == {0} and 0.099 < np.abs(kernel).max() <= 0.1
    assert set(draw([*dense("mix", 4, 4, init="torch", bias_init=-2).parameters()][1], 0).tolist()) == {-2}
    assert set(draw([*conv("mix", 4, 4, 1, 1, bias_init=0.5).parameters()][1], 0).tolist()) == {0.5}


@pytest.mark.parametrize(("layer", "message"), [
    (lambda: dense("n", 2, 2, bias=False, bias_init=1), "bias_init is 1, and the layer has no bias"),
    (lambda: array("n", c=2)._replace(bias_init=1), "bias_init is 1, and the layer has no bias"),
    (lambda: dense("n", 2, 2, bias_init="ones"), "bias_init is 'ones', no finite number"),
    (lambda: dense("n", 2, 2, init=("norml", 0.1)), "init is ('norml', 0.1), not a pair, as in ('normal', 0.02)"),
    (lambda: dense("n", 2, 2, init=("normal", 0)), "init is ('normal', 0), not a pair, as in"),
    (lambda: dense("n", 2, 2, init=("normal",)), "init is ('normal',), not a pair, as in"),
    (lambda: norm("n", 2, init=("normal", 0.1)), "init is ('normal', 0.1): a scale is not drawn"),
])  # fmt: skip
def test_a_wrong_beginning_is_a_fault(layer, message):
    (fault,) = faults(Spec(**{**SOUND, "layers": lambda c: [layer(), *GOOD["layers"](c)]}))
    assert f"layers: 'n': {message}" in fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged:
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int = 3
    classes: int = 2

    def __post_init__(self):
        if len(self.depths) != len(self.widths):
            raise ValueError("depths and widths are of other stages")


def test_a_required_tuple_that_infer_forgets_is_a_fault():
    """Once, though the tuples of the other Configs are of other lengths, which the other fields refuse."""

    def layers(config):
        for s, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            yield from (norm(f"stages.{s}.{b}", width) for b in range(depth))
        yield dense("head", config.widths[-1], config.classes)

    def infer(sizes):
        stages = range(sizes.count("stages"))
        widths = tuple(sizes[f"stages.{s}.0.scale", "c"] for s in stages)
        return {"widths": widths, "classes": sizes["head.kernel", "o"], "channels": 3}

    tiny = {"A": Staged(depths=(1, 2), widths=(5, 7)), "B": Staged(depths=(2, 1, 1), widths=(4, 6, 8), classes=3)}
    known = {**GOOD, "config": Staged, "layers": layers, "variants": {}, "tiny": tiny}
    (problem,) = faults(Spec(**{**known, "infer": infer}))
    assert problem == "infer returns no depths, which arrays show, as 'stages.0.2.scale'"

    def whole(sizes):
        stages = range(sizes.count("stages"))
        return {**infer(sizes), "depths": tuple(sizes.count(f"stages.{s}") for s in stages)}

    assert faults(Spec(**{**known, "infer": whole})) == []


def test_a_variant_with_arrays_that_no_twin_has_is_a_fault():
    """Names are learnt from the twins: those arrays would not be recognised."""

    def layers(config):
        return [*GOOD["layers"](config), *(norm(f"more.{b}", 2) for b in range(config.width - 3))]

    variants = {"A": Config(), "B": Config(width=5), "C": Config(width=6)}
    (problem,) = faults(Spec(**{**SOUND, "layers": layers, "variants": variants}))
    assert problem == "variants 'B' and 'C': no Config in tiny has a norm as 'more.0.scale' and 'more.0.bias'"
    assert faults(Spec(**{**SOUND, "layers": layers, "tiny": {"A": Config(width=4)}})) == []


@pytest.mark.parametrize("name", [name for name in specs.names() if specs.folder(name) is None])  # pages here
def test_each_field_that_a_file_may_leave_open_has_a_meaning(name):
    """`python -m ports NAME` lists it, to which the error leads that asks for the field."""
    spec = specs.get(name)
    examples = [*spec.tiny.values(), *spec.variants.values()]
    shown = [spec.infer(Sizes({p.name: dict(zip(p.axes, p.shape, strict=True)) for p in parameters([*spec.layers(c)])}))
             for c in examples]  # fmt: skip
    opened = set().union(*(required(spec) - one.keys() for one in shown)) | computing(spec)
    lacking, needless = sorted(opened - set(spec.meanings)), sorted(set(spec.meanings) - opened)
    remedy = f"specs/{name}.py, meanings: say what {lacking} are, and leave out {needless}, which no file leaves open"
    assert set(spec.meanings) == opened, remedy


def test_a_config_is_written_with_sizes_as_people_write_them():
    """The page of a comparison and its verdict show the sizes that inspect shows."""
    assert specs.config.written(specs.get("mlp_mixer").tiny["headless"])["patch"] == "patch=4x2"
