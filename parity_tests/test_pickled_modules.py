"""What the modules of a model that was pickled whole state is used, and never contradicted."""

import json

import pytest

import convert
import ports
import specs
from convert.errors import ConvertError, UsageError
from convert.files import open_checkpoint

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

SAID = "note: as the modules of the pickled model state: "


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def convmixer(act=nn.GELU, eps=1e-5, momentum=0.1, depth=1, width=4):
    """The official ConvMixer, tiny."""

    def after(conv):
        return conv, act(), nn.BatchNorm2d(width, eps, momentum)

    def block():
        depthwise = nn.Conv2d(width, width, 3, groups=width, padding="same")
        return nn.Sequential(Residual(nn.Sequential(*after(depthwise))), *after(nn.Conv2d(width, width, 1)))

    end = nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(width, 3)
    return nn.Sequential(*after(nn.Conv2d(3, width, 2, 2)), *(block() for _ in range(depth)), *end)


class Mlp(nn.Module):
    def __init__(self, width, hidden, approximate):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(approximate), nn.Linear(hidden, width)


class Block(nn.Module):
    def __init__(self, eps, approximate):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6, eps), nn.LayerNorm(6, eps)
        self.mlp_tokens, self.mlp_channels = Mlp(4, 5, approximate), Mlp(6, 7, approximate)


class Mixer(nn.Module):
    """timm's MLP-Mixer, tiny."""

    def __init__(self, eps=1e-6, approximate="none"):
        super().__init__()
        self.stem = nn.Module()
        self.stem.proj = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.Sequential(Block(eps, approximate), Block(eps, approximate))
        self.norm, self.head = nn.LayerNorm(6, eps), nn.Linear(6, 3)


@pytest.fixture
def saved(tmp_path):
    """Save a value by torch; its path."""

    def save(value):
        torch.save(value, tmp_path / "whole.pt")
        return tmp_path / "whole.pt"

    return save


def config_of(path, src, **options):
    with convert.plan(path, src, **options) as plan:
        return plan.config, plan


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_an_activation_is_read_off_the_modules(act, saved, run, tmp_path):
    """A bare state_dict of ConvMixer states none, and is refused."""
    model = convmixer({"gelu": nn.GELU, "relu": nn.ReLU}[act])
    code, _, err = run("official2torch", saved(model), "-o", tmp_path / "out.safetensors")
    assert code == 0
    assert f"{SAID}act={act}, norm_eps=1e-5, norm_momentum=0.9\n" in err
    with open_checkpoint(tmp_path / "out.safetensors") as reader:
        record = json.loads(reader.metadata["triptych"])
    assert record["config"]["act"] == act
    assert record["assumed"] == []
    assert {"act", "norm_eps"}.isdisjoint(record["origins"])
    assert run("official2torch", saved(model.state_dict()), "-o", tmp_path / "bare.safetensors")[0] == 2


@pytest.mark.parametrize("place", ["", "model", "module"])
def test_modules_are_those_of_the_part_that_is_converted(place, saved):
    """Another model beside it says nothing of this one."""
    model = convmixer(nn.ReLU)
    value = {"": model, "model": {"model": model, "critic": nn.Sequential(nn.SiLU(), nn.LayerNorm(3, 0.5))},
             "module": nn.DataParallel(model)}[place]  # fmt: skip
    config, plan = config_of(saved(value), "official")
    assert (config.act, plan.origins["act"]) == ("relu", "modules")
    assert plan.reading.prefix.rstrip(".") == place


def test_a_port_that_was_pickled_whole_leaves_nothing_open(saved):
    config = specs.get("convmixer").tiny["headless"]
    model = ports.build("convmixer", config, "torch").model
    found, plan = config_of(saved(model), "torch")
    assert (found.act, found.norm_eps, round(found.norm_momentum, 12)) == ("gelu", 1e-3, 0.7)
    assert not plan.assumed


@pytest.mark.parametrize(
    ("model", "setting", "contradiction"),
    [
        (convmixer(nn.ReLU), {"act": "gelu"}, "act=gelu was asked for; the modules state act=relu (1 and 2 more)"),
        (
            convmixer(eps=1e-3),
            {"act": "gelu"},
            "official's own code computes norm_eps=1e-5; the modules state norm_eps=1e-3",
        ),
        (
            convmixer(momentum=0.3),
            {"norm_eps": 1e-5},
            "computes norm_momentum=0.9; the modules state norm_momentum=0.7 (2 and 2",
        ),
    ],
)
def test_a_contradiction_is_refused(model, setting, contradiction, saved):
    with pytest.raises(UsageError, match="its modules state other settings") as caught:
        config_of(saved(model), "official", settings=setting)
    assert contradiction in str(caught.value)


def test_what_the_modules_state_can_be_confirmed_against_the_original_code(saved, run, tmp_path):
    """The setting that the error names leads on; `inspect` shows the same."""
    path = saved(Mixer(1e-3, "tanh"))
    code, _, err = run("timm2torch", path, "-o", tmp_path / "out.safetensors")
    assert code == 2
    stated = "the modules state gelu=tanh (blocks.{0..1}.mlp_tokens.act and 2 more)"
    assert f"timm's own code computes gelu=erf; {stated}" in err
    remedy = err.partition("to use what the modules state: ")[2].split()
    assert remedy == ["--set", "norm_eps=1e-3", "--set", "gelu=tanh"]
    code, out, _ = run("inspect", path)
    assert code == 0
    assert "architecture: mlp_mixer" in out
    assert "gelu=tanh norm_eps=1e-3" in out
    assert "open:         the model in it was pickled whole" in out
    code, _, err = run("timm2torch", path, "-o", tmp_path / "out.safetensors", *remedy)
    assert code == 0
    agreed = (
        "norm_eps=1e-3 was asked for, as the modules of the pickled model state too, though timm's own code computes"
    )
    assert f"{agreed} norm_eps=1e-6" in err


def test_no_file_that_says_is_said_not_to(saved, run, tmp_path):
    code, _, err = run("timm2torch", saved(Mixer()), "-o", tmp_path / "out.safetensors")
    assert code == 0
    assert f"{SAID}gelu=erf, norm_eps=1e-6\n" in err
    assert "the file does not say" not in err


def test_several_values_of_one_setting_are_refused(saved):
    model = Mixer()
    model.norm.eps = 1e-3
    model.blocks[1].mlp_tokens.act = nn.SiLU()
    with pytest.raises(ConvertError, match="are of another network than mlp_mixer") as caught:
        config_of(saved(model), "timm")
    several = "norm_eps=1e-6 (blocks.{0..1}.norm{1..2}) and norm_eps=1e-3 (norm), where mlp_mixer has one"
    assert several in str(caught.value)
    assert "SiLU where mlp_mixer has GELU or GELU tanh (blocks.1.mlp_tokens.act)" in str(caught.value)


class OwnNorm(nn.Module):
    """A LayerNorm of somebody's code, as ConvNeXt has one."""

    def __init__(self, width, **attributes):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.__dict__.update(attributes)


def test_the_epsilon_of_a_norm_of_anybodys_code_is_read(saved):
    """Of most norms 1e-3, while the one of torch's own has 1e-6."""
    model = Mixer()
    for block in model.blocks:
        block.norm1, block.norm2 = OwnNorm(6, eps=1e-3), OwnNorm(6, eps=1e-3)
    with pytest.raises(ConvertError, match="are of another network than mlp_mixer") as caught:
        config_of(saved(model), "timm")
    assert "norm_eps=1e-3 (blocks.{0..1}.norm{1..2}) and norm_eps=1e-6 (norm)" in str(caught.value)
    model.norm = OwnNorm(6, eps=1e-3)
    with pytest.raises(UsageError, match=r"timm's own code computes norm_eps=1e-6; the modules state norm_eps=1e-3"):
        config_of(saved(model), "timm")
    config, plan = config_of(saved(model), "timm", settings={"norm_eps": 1e-3})
    assert (config.norm_eps, plan.origins["norm_eps"]) == (1e-3, "user")


def test_how_many_norms_state_an_epsilon_is_said(saved):
    """If some do not, they may compute another one."""
    model = Mixer()
    model.blocks[0].norm1 = OwnNorm(6, variance=1e-3)
    _, plan = config_of(saved(model), "timm")
    assert plan.of_modules() == [f"{SAID.removeprefix('note: ')}gelu=erf, norm_eps=1e-6 (4 of 5 norms)"]


def test_settings_of_other_modules_are_not_those_of_norms(saved):
    """The momentum of a norm of anybody's code may be the share that is kept, or the rest."""
    model = convmixer(nn.ReLU)
    nn.utils.spectral_norm(model[-1], eps=0.5)  # a hook with an epsilon
    model[2] = OwnNorm(4, eps=1e-5, momentum=0.5)
    modules = {(m.path, m.of_norm("eps"), m.of_norm("momentum")) for m in read_modules(saved(model))}
    assert ("_modules/2", 1e-5, None) in modules
    assert {eps for _, eps, _ in modules} == {1e-5, None}


def test_settings_of_modules_are_one_line_of_inspect(saved, run):
    """Also those of classes of the user's, whose attributes are those of torch's modules."""
    printed = run("inspect", saved(Mixer()))[1]
    (line,) = (line for line in printed.splitlines() if line.startswith("set aside:"))
    assert (
        line.startswith("set aside:    training, ")
        and line.endswith(" (settings of pickled modules)")
        and "/" not in line
    )


def read_modules(path):
    with open_checkpoint(path) as reader:
        return reader.modules


def test_what_a_network_always_computes_is_checked_too(saved):
    """No field of Mobile-Former's Config varies the epsilon of its norms."""
    config = specs.get("mobile_former").tiny["plain"]
    model = ports.build("mobile_former", config, "torch").model
    stated = {
        name: getattr(config, name)
        for name in ("lite_stride", "dyrelu_coefs", "dyrelu_consts", "stem_stride", "softmax")
    }
    config_of(saved(model), "torch", settings=stated)
    next(one for one in model.modules() if isinstance(one, nn.BatchNorm2d)).eps = 1e-3
    with pytest.raises(ConvertError, match="another network") as caught:
        config_of(saved(model), "torch", settings=stated)
    assert "eps=1e-3 where mobile_former has" in str(caught.value)


class Made:
    """An object that a call with an argument builds, as many libraries do."""

    def __reduce__(self):
        return made, (1,)


def made(number):
    return Made()


def test_an_object_that_code_of_the_user_s_builds_is_named_with_a_remedy(saved, run):
    model = Mixer()
    model.settings = Made()
    code, _, err = run("inspect", saved(model))
    name = f"{made.__module__}.made"
    assert (
        code == 1 and f"whole.pt: refers to {name}, code of the program that wrote it, which no weights need" in err
    ), err
    assert "load it with that program, and save model.state_dict() alone" in err and "not a checkpoint" not in err


@pytest.mark.parametrize("kind", ["Linear", "LSTM"])
def test_a_quantized_module_is_refused_by_its_class(kind, run, tmp_path):
    """No tensor of the pickle shows weights that torch has packed."""
    from torch.ao.quantization import quantize_dynamic

    module = getattr(nn, kind)
    torch.save(
        nn.ModuleList([nn.Conv1d(2, 3, 1), *quantize_dynamic(nn.Sequential(module(2, 3)), {module})]),
        tmp_path / "net.pt",
    )
    where = {"Linear": "1/_packed_params", "LSTM": "1/_all_weight_values/0"}[kind]
    code, _, err = run("inspect", tmp_path / "net.pt")
    assert code == 1 and f"net.pt: '{where}', of torch.ao.nn.quantized." in err and "is quantized (save plain" in err, (
        err
    )
