"""Float32 masters of half-precision weights: noted with the weights, and never left out of a training."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from .conftest import needs
from .test_optimizer_docs import BLOCKS
from .test_optimizer_hyper import OWN, SHAPES, TABLE
from .test_parts import arrays


@pytest.mark.parametrize("beside", [True, False])
def test_half_precision_weights_whose_masters_are_at_hand_are_noted(beside, run, tmp_path):
    """The weights alone, without --with-optimizer, which refuses such a state."""
    weights = {name: np.ones(shape, "float16") for name, shape in SHAPES.items()}
    state = {"master_weights": {own: np.ones(SHAPES[name], "float32") for name, own in OWN.items()}}
    if beside:
        (tmp_path / "net.pdopt").write_bytes(pickle.dumps(state))
    saved = weights if beside else {"model": weights, "optimizer": state}
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps(saved))
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pdparams", "-o", tmp_path / "out.safetensors"]
    code, _, err = run(*words, *([] if beside else ["--weights", "model"]))
    place = f"master_weights/ in {tmp_path / 'net.pdopt'}" if beside else "optimizer/master_weights/"
    assert (
        code == 0
        and f"float16 weights are by their names rounded copies of the float32 master weights under {place}" in err
    ), err
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({n: w.astype("float32") for n, w in weights.items()}))
    assert "rounded copies" not in run(*words, "--force")[2]


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
@pytest.mark.parametrize("others", [{}, {"last.bias": 1.5}, {"last.bias": 1.5, "last.weight": 1.001}])
def test_weights_that_are_no_rounded_copies_of_the_masters_beside_them_are_named(dtype, others, run, tmp_path):
    """As of another step or an average; paddle stores bfloat16 as uint16, in which 1.001 is 1."""
    one = np.float16(1) if dtype == "float16" else np.uint16(0x3F80)
    weights = {name: np.full(shape, one) for name, shape in SHAPES.items()}
    masters = {own: np.full(SHAPES[name], others.get(name, 1.0001), "float32") for name, own in OWN.items()}
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": OWN}))
    (tmp_path / "net.pdopt").write_bytes(pickle.dumps({"master_weights": masters}))
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pdparams", "-o", tmp_path / "out.safetensors"]
    code, _, err = run(*words)
    odd = [name for name in weights if name in others and (name == "last.bias" or dtype == "float16")]
    which = f"{len(odd)} of 2 half-precision weights differ from their float32 masters of {tmp_path / 'net.pdopt'}, as"
    assert code == 0 and "weights are by their names rounded copies of the float32 master" in err, err
    assert (f"warning: {which} {odd[0] if odd else ''}" in err) == ("differ from their" in err) == bool(odd), err


@pytest.mark.parametrize("trained", [True, False])
def test_weights_without_a_master_among_others_that_have_one_are_named(trained, run, tmp_path):
    weights = {name: np.ones(shape, "float16") for name, shape in SHAPES.items()}
    state = {"master_weights": {OWN["last.weight"]: np.ones(SHAPES["last.weight"], "float32")}}
    if trained:
        state[f"{OWN['last.bias']}_fp32_master_0_velocity_0"] = np.ones(SHAPES["last.bias"], "float32")
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": OWN}))
    (tmp_path / "net.pdopt").write_bytes(pickle.dumps(state))
    (tmp_path / "net.table").write_text(TABLE)
    code, _, err = run("--table", tmp_path / "net.table", tmp_path / "net.pdparams", "-o", tmp_path / "out.npz")
    which = f"1 of 2 half-precision weights without a float32 master in {tmp_path / 'net.pdopt'}, as last.bias"
    said = "warning: {}: it has moments of masters, so the" if trained else "note: {}: frozen weights"
    assert code == 0 and said.format(which) in err, err


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("fp32_master_0", "it was trained in mixed precision, and these are moments of float32 master_weights, which"),
        ("mine", "weights of these names without _mine are in the file, and an optimizer with name='mine' adds that:"),
    ],
)
def test_moments_whose_names_add_to_those_of_the_weights_are_explained(added, said, run, tmp_path):
    weights = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()}
    state = {f"{own}_{added}_velocity_0": np.ones(SHAPES[name], "float32") for name, own in OWN.items()}
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": OWN}))
    (tmp_path / "net.pdopt").write_bytes(pickle.dumps(state))
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pdparams", "-o", tmp_path / "out.pt"]
    code, _, err = run(*words, "--with-optimizer")
    assert code == 1 and f"has moments of linear_0.w_0_{added}, linear_0.b_0_{added}: {said} " in err, err


@pytest.mark.parametrize("odd", [(), ("last.bias",)])
def test_weights_and_masters_of_a_unified_checkpoint_are_compared_whichever_is_converted(odd, run, tmp_path):
    """Which PaddleNLP saves in two files with the same names."""
    masters = {name: np.full(shape, 1.5 if name in odd else 1.0001, "float32") for name, shape in SHAPES.items()}
    files = tmp_path / "model.safetensors", tmp_path / "master_weights.safetensors"
    save_file({name: np.ones(shape, "float16") for name, shape in SHAPES.items()}, files[0])
    save_file(masters, files[1])
    (tmp_path / "net.table").write_text(TABLE)
    said = (
        f"1 of 2 half-precision weights differ from their float32 masters of {files[1]}, as last.bias: ",
        f"1 of 2 half-precision weights of {files[0]} differ from their float32 masters, which are converted, as last",
    )
    for file, text in zip(files, said, strict=True):
        code, _, err = run("--table", tmp_path / "net.table", file, "-o", tmp_path / "out.npz", "--force")
        assert code == 0 and (f"warning: {text}" in err) == ("differ from" in err) == bool(odd), err
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-1])  # damaged masters are named all the same
    code, _, err = run("--table", tmp_path / "net.table", files[0], "-o", tmp_path / "out.npz", "--force")
    assert code == 0 and f"master weights in {files[1]}: to save those as the weights, convert that file\n" in err, err
    files[1].write_bytes(whole)
    files[0].write_bytes(files[0].read_bytes()[:-1])  # a damaged file beside is no fault of the masters
    assert run("--table", tmp_path / "net.table", files[1], "-o", tmp_path / "out.npz", "--force")[0] == 0


def test_weights_without_masters_are_converted_with_the_others_in_one_file(run, tmp_path, monkeypatch):
    """As norms in float32, of which O2 makes no masters; the guide joins the files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint-3").mkdir()
    bias = np.full(SHAPES["last.bias"], 2, "float32")
    masters = {"last.weight": np.full(SHAPES["last.weight"], 1.0001, "float32")}
    weights = {"last.bias": bias, "last.weight": np.ones(SHAPES["last.weight"], "float16")}
    save_file(weights, "checkpoint-3/model.safetensors")
    save_file(masters, "checkpoint-3/master_weights.safetensors")
    Path("net.table").write_text(TABLE)
    code, _, err = run("--table", "net.table", "checkpoint-3/model.safetensors", "-o", "half.npz")
    assert code == 0 and "1 weight has none there, so convert both in one file, see" in err, err
    (block,) = (block for block in BLOCKS if "masters.safetensors" in block)
    exec(block, {})
    code, _, err = run("--table", "net.table", "masters.safetensors", "-o", "out.npz")
    assert code == 0 and "masters" not in err.replace("masters.safetensors", ""), err
    found = arrays(tmp_path / "out.npz")
    assert {float(np.ravel(array)[0]) for array in found.values()} == {2.0, float(np.float32(1.0001))}


def test_the_optimizer_of_the_older_layout_of_paddlenlp_is_found(run, tmp_path):
    weights = {name: np.ones(shape, "float16") for name, shape in SHAPES.items()}
    state = {"master_weights": {own: np.ones(SHAPES[name], "float32") for name, own in OWN.items()}}
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(weights))
    (tmp_path / "optimizer.pdopt").write_bytes(pickle.dumps(state))
    (tmp_path / "net.table").write_text(TABLE)
    words = ["--table", tmp_path / "net.table", tmp_path / "model_state.pdparams", "-o", tmp_path / "out.safetensors"]
    assert f"float32 master weights under master_weights/ in {tmp_path / 'optimizer.pdopt'}" in run(*words)[2]


def test_a_state_with_masters_is_compared_with_one_without(run, tmp_path):
    """Their moments; of another model's state the message says so."""
    slots = [f"{slot}_0" for slot in ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")]

    def save(name, places, value=1.5):
        state = {f"{place}_{slot}": np.full(2, value, "f4") for place in places for slot in slots}
        masters = {place.partition("_fp32")[0]: np.ones(2, "f4") for place in places if "_fp32" in place}
        (tmp_path / name).write_bytes(pickle.dumps({**state, **({"master_weights": masters} if masters else {})}))
        return tmp_path / name

    full = save("full.pdopt", ["linear_0.b_0", "norm_0.b_0"])
    mixed = save("o2.pdopt", ["linear_0.b_0_fp32_master_0", "norm_0.b_0"])
    for files in ((full, mixed), (mixed, full)):
        code, out, err = run("diff", *files)
        assert code == 0 and "8 arrays compared, every element equal" in out, err
        assert f"{mixed}: compared 4 arrays of float32 masters with those of weights: linear_0.b_0_fp32_" in err
        assert f"{mixed}: set aside master_weights/ (1 array), training state" in err, err
        assert "only in" in run("diff", *files, "--weights", "/", "--weights", "/")[1]
    code, out, _ = run("diff", full, save("o2.pdopt", ["linear_0.b_0_fp32_master_0", "norm_0.b_0"], 2))
    assert code == 1 and "8 arrays compared, all 8 differ" in out
    code, _, err = run("diff", full, save("other.pdopt", ["conv_0.b_0_fp32_master_0"]))
    assert code == 1 and "other.pdopt has the same of other parameters, as of another model or process" in err, err


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_training_goes_back_into_mixed_precision(dtype, tmp_path, monkeypatch):
    """The snippets of the guide, there and back: on a CPU paddle has no kernels for a step, so none is taken."""
    needs("paddle")
    import paddle
    from paddle.amp.auto_cast import amp_initialize

    def decorate(model, optimizer, **_):  # what paddle.amp.decorate does on other devices
        amp_initialize([model], dtype, None)
        optimizer._multi_precision = True
        return model, optimizer

    def build():
        model = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.LayerNorm(2), paddle.nn.Linear(2, 2))
        model[2].bias.stop_gradient = True
        return model, paddle.optimizer.AdamW(parameters=model.parameters())

    def start(model, optimizer):  # as the first step does
        trained = [weight for weight in model.parameters() if not weight.stop_gradient]
        optimizer._create_accumulators(paddle.base.framework.default_main_program().global_block(), trained)

    def values(model, optimizer):
        state = optimizer.state_dict()
        every = {**model.state_dict(), **state.pop("master_weights"), **state}
        return {name: (value.name, value.dtype, value.astype("float32").numpy()) for name, value in every.items()}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paddle.amp, "decorate", decorate)
    with paddle.utils.unique_name.guard():
        model, optimizer = decorate(*build())
        start(model, optimizer)
    for number, value in enumerate((*optimizer._master_weights.values(), *optimizer.state_dict().values())):
        if not isinstance(value, dict):
            value.set_value(paddle.full_like(value, 1.0001 + number))
    for weight in model.parameters():
        if weight.name in optimizer._master_weights:
            weight.set_value(optimizer._master_weights[weight.name].astype(weight.dtype))
    paddle.save(model.state_dict(), "o2.pdparams"), paddle.save(optimizer.state_dict(), "o2.pdopt")
    there, back = (next(block for block in BLOCKS if text in block) for text in ("o2.pdopt", "amp.decorate"))
    exec(there, {"paddle": paddle})
    weights = paddle.load("float32.pdparams")
    weights["2.bias"] = weights["2.bias"].astype("float32")  # frozen: it has no master
    paddle.save({"model": weights, "optimizer": paddle.load("float32.pdopt")}, "back.pdparams")
    with paddle.utils.unique_name.guard():
        scope = dict(zip(("model", "optimizer"), build(), strict=True), paddle=paddle)
        exec(back, scope)
        start(scope["model"], scope["optimizer"])
    expected, got = values(model, optimizer), values(scope["model"], scope["optimizer"])
    assert got.keys() == expected.keys()
    for name, (own, kind, value) in expected.items():
        assert got[name][:2] == (own, kind) and (got[name][2] == value).all(), name


@pytest.fixture
def halves(tmp_path, monkeypatch):
    """Return a function that saves a layer in half precision with its masters and AdamW, in the place of a tool."""
    needs("torch")
    import torch

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.table").write_text(TABLE.replace("paddle", "torch").replace(": i o", ": o i"))
    layer = torch.nn.Sequential()
    layer.add_module("last", torch.nn.Linear(3, 2))
    adamw = torch.optim.AdamW(layer.parameters(), lr=0.5)
    layer(torch.ones(1, 3)).sum().backward()
    adamw.step()

    def save(place, inner="optimizer_state_dict"):
        weights = {name: weight.half() for name, weight in layer.state_dict().items()}
        state = {inner: adamw.state_dict(), place: [[master.detach() for master in layer.parameters()]]}
        torch.save({"model": weights, "optimizer": state}, "half.pt")
        torch.save(layer.state_dict(), "new.pt")
        return {name: weight.numpy() for name, weight in layer.state_dict().items()}

    return save


WORDS = ["--table", "net.table", "--weights", "model", "-o", "out.pt"]


@pytest.mark.parametrize(
    ("place", "inner"), [("fp32_from_fp16", "optimizer_state_dict"), ("fp32_from_fp16_params", "optimizer")]
)
def test_masters_of_torch_are_noted_and_no_training_goes_on_without_them(place, inner, halves, run):
    halves(place, inner)
    code, _, err = run(*WORDS, "half.pt")
    assert (
        code == 0
        and f"float16 weights are by their names rounded copies of the float32 master weights under optimizer/{place}/"
        in err
    )
    code, _, err = run(*WORDS, "half.pt", "--with-optimizer", "--force")
    assert code == 1 and f"half.pt: the float32 master weights under optimizer/{place}/ are the ones" in err
    assert "docs/training.md, Half-precision weights in torch" in err


def test_the_guide_saves_masters_as_weights(halves, run):
    import torch

    weights = halves("fp32_from_fp16")
    (block,) = (one for one in BLOCKS if "fp32_from_fp16" in one)
    exec(block, {"torch": torch})
    code, _, err = run(*WORDS, "float32.pt", "--with-optimizer", "--like", "new.pt")
    assert code == 0 and "master" not in err, err
    got = arrays("out.pt")
    assert all((got[f"model/{name}"] == weight).all() for name, weight in weights.items())


def test_masters_of_zero_beside_the_weights_are_noted(halves, run, tmp_path):
    halves("fp32_from_fp16")
    import torch

    torch.save({"module": torch.load("half.pt")["model"]}, "mp_rank_00_model_states.pt")
    (tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"")
    code, _, err = run(*WORDS[:2], "mp_rank_00_model_states.pt", "--weights", "module", *WORDS[4:])
    assert code == 0 and "master weights in zero_pp_rank_0_mp_rank_00_optim_states.pt: to save" in err, err
    assert "python zero_to_fp32.py . joined" in err
