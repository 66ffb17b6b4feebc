"""Which arrays are parameters of an optimizer, which have a state, and how many steps each: files written by hand."""

import pickle

import numpy as np
import pytest

from convert.files import open_checkpoint
from convert.optimizer.to_torch import _about_groups

from .conftest import needs
from .optimizing import Paddle, Torch, batches, save_config

ADAMW = ("kind=adamw", "lr=0.5", "eps=1e-8", "weight_decay=0.1")
HYPER = [word for text in ADAMW for word in ("--hyper", text)]


@pytest.fixture
def write(tmp_path):
    """Write the table and a training of paddle; returns the function that does that."""

    def files(lines, weights, own, moments, steps=4, **entries):
        """Write weights by name and shape, paddle's names of them, and a value of all moments of each parameter."""
        (tmp_path / "net.table").write_text(f"table 1: paddle <-> torch\n{lines}\n")
        arrays = {name: np.full(shape, number, "float32") for number, (name, shape) in enumerate(weights.items())}
        arrays |= {name: arrays[first] for name in own for first in own if own[first] == own[name] and first < name}
        (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": own}))
        shapes = {own[name]: shape for name, shape in weights.items()}
        state = {}
        for name, value in moments.items():
            count = steps[name] if isinstance(steps, dict) else steps
            state |= {f"{name}_{slot}_0": np.full(shapes[name], value, "float32") for slot in ("moment1", "moment2")}
            powers = {"beta1": 0.9 ** (count + 1), "beta2": 0.999 ** (count + 1)}
            state |= {f"{name}_{beta}_pow_acc_0": np.array([power], "float32") for beta, power in powers.items()}
        (tmp_path / "net.pdopt").write_bytes(pickle.dumps({**state, **entries}))

    return files


@pytest.fixture
def convert(run, tmp_path):
    """Convert a file and its optimizer by the table; `like` is a conversion of the weights alone."""

    def convert(source, out, *words, like=None):
        base = ["--table", tmp_path / "net.table", tmp_path / source, "--force"]
        if out.endswith(".pt"):
            like = "new.pt"
            code, _, err = run(*base, "-o", tmp_path / like, *[w for w in words if w in ("--reverse", "--weights")])
            assert code == 0, err
            needs("torch")
            import torch

            new = {name: weight.clone() for name, weight in torch.load(tmp_path / like).items()}
            torch.save(new, tmp_path / like)  # of a model that ties nothing, in the order of the lines
            (tmp_path / f"{like}.json").unlink()
        more = ["--like", tmp_path / like] if like else []
        code, _, err = run(*base, "-o", tmp_path / out, "--with-optimizer", *HYPER, *more, *words)
        return code, err

    return convert


def arrays(path):
    with open_checkpoint(str(path)) as reader:
        return {
            name: np.frombuffer(bytes(reader.read(name)), tensor.dtype)[0] for name, tensor in reader.tensors.items()
        }


TIED = {"one.weight": (2, 2), "two.weight": (2, 2), "last.weight": (2, 3)}
OWN = {"one.weight": "linear_0.w_0", "two.weight": "linear_0.w_0", "last.weight": "linear_1.w_0"}


@pytest.mark.parametrize(
    "line", ["one.weight: i o = two.weight: i o <-> w: o i", "two.weight: i o = one.weight: i o <-> w: o i"]
)
def test_the_state_of_a_parameter_belongs_to_all_names_of_it(line, write, convert, tmp_path):
    """As of every GRU and LSTM of paddle, whose state_dict names each parameter twice."""
    write(f"{line}\nlast.weight: i o <-> last: o i", TIED, OWN, {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "without a state" not in err, err
    found = arrays(tmp_path / "net.pt")
    assert found["optimizer/state/0/exp_avg"] == found["optimizer/state/0/exp_avg_sq"] == 0.5
    assert found["optimizer/state/1/exp_avg"] == 0.25
    untied = "one.weight: i o <-> v: o i\ntwo.weight: i o <-> w: o i"
    write(f"{untied}\nlast.weight: i o <-> last: o i", TIED, OWN, {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "v, w get the same moments, as they are one parameter of the source: training parts" in err, (
        err
    )
    assert arrays(tmp_path / "net.pt")["optimizer/state/1/exp_avg"] == 0.5


@pytest.mark.parametrize(
    ("lines", "same"),
    [
        ("one.weight: i o <-> v: o i\ntwo.weight: i o <-> w: i o", "v, w"),  # one of them transposed
        ("one.weight: i[:1] o <-> a: i o\none.weight: i[1:] o <-> b: i o\ntwo.weight: i o <-> w: i o", "a, b, w"),
        ("one.weight: i o = two.weight: i o <-> v: o i = w: i -o", "v, w"),
        (
            "one.weight: i[:1] o = two.weight: i[:1] o <-> a: i o\n"
            "one.weight: i[1:] o = two.weight: i[1:] o <-> b: o i",
            "",
        ),
    ],
    ids=["transposed", "windows and a whole", "reversed", "two windows"],
)
def test_parameters_of_one_are_noted_in_any_layout(lines, same, write, convert):
    """Not those that share out the elements of one, as the parts of a fused projection do."""
    write(f"{lines}\nlast.weight: i o <-> last: o i", TIED, OWN, {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0, err
    assert [line.partition(" get the same moments")[0] for line in err.splitlines() if "same moments" in line] == (
        [f"note: {same}"] if same else []
    )


def test_no_moment_is_lost_in_silence(write, convert, tmp_path):
    """Of two parameters that a Table ties, each with moments, which have to be equal; and of one that it drops."""
    own = {**OWN, "two.weight": "linear_2.w_0"}
    tied = "one.weight: i o = two.weight: i o <-> w: o i\nlast.weight: i o <-> last: o i"
    for second in (0.125, 0.5):
        moments = {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25, "linear_2.w_0": second}
        write(tied, TIED, own, moments)
        stored = pickle.loads((tmp_path / "net.pdparams").read_bytes())
        (tmp_path / "net.pdparams").write_bytes(pickle.dumps(stored | {"two.weight": stored["one.weight"]}))
        code, err = convert("net.pdparams", "net.msgpack")
        if second != 0.5:
            assert code == 1 and "first: one.weight and first: two.weight differ, and" in err, err
            assert "net.table:2 says that they are equal: leave --with-optimizer out" in err
    assert code == 0 and "their moments compared before anything is written: one.weight, two.weight" in err, err
    assert arrays(tmp_path / "net.msgpack")["opt_state/0/mu/w"] == 0.5
    moments["linear_2.w_0"] = 0.125
    write("one.weight: i o <-> w: o i\nlast.weight: i o <-> last: o i\ntwo.weight -> drop", TIED, own, moments)
    code, err = convert("net.pdparams", "net.msgpack")
    assert code == 0 and "moments stay behind, of parameters that the target has not: two.weight" in err, err


BUFFERED = {"table": (2, 2), "one.weight": (2, 2), "two.weight": (2, 2)}
NAMES = {"table": "generated_tensor_0", "one.weight": "linear_0.w_0", "two.weight": "linear_1.w_0"}
LINES = "table: i o <-> sines: i o\none.weight: i o <-> one: o i\ntwo.weight: i o <-> two: o i"


def test_a_buffer_of_floats_is_no_parameter_of_torch(write, convert, tmp_path):
    """By paddle's names of tensors there, and by torch's list of names on the way back and to another torch."""
    write(LINES, BUFFERED, NAMES, {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "eager_tmp_0): not in torch's optimizer either: table" in err, err
    found = arrays(tmp_path / "net.pt")
    assert [found[f"optimizer/state/{number}/exp_avg"] for number in (0, 1)] == [0.5, 0.25]
    assert "optimizer/state/2/exp_avg" not in found
    code, err = convert("net.pt", "back.pdparams", "--reverse", "--weights", "model", like="net.pdparams")
    assert code == 0 and "does not train): not in paddle's optimizer either: sines" in err, err
    moments = {name: value for name, value in arrays(tmp_path / "back.pdparams").items() if "moment1" in name}
    assert moments == {"optimizer/linear_0.w_0_moment1_0": 0.5, "optimizer/linear_1.w_0_moment1_0": 0.25}


def test_all_of_a_collection_of_parameters_is_trained_in_flax(write, convert, tmp_path):
    """optax refuses a TrainState whose moments lack one of them, and has none of other collections."""
    lines = LINES.replace("<-> ", "<-> params/").replace("params/sines", "constants/sines")
    moments = {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25}
    for path in ("constants/sines", "params/sines"):
        write(lines.replace("constants/sines", path), BUFFERED, NAMES, moments)
        code, err = convert("net.pdparams", "net.msgpack")
        assert code == 0, err
        found = arrays(tmp_path / "net.msgpack")
        assert path in found and ("opt_state/0/mu/sines" in found) is path.startswith("params/")
        assert "opt_state/0/mu/constants/sines" not in found
        assert ("not in optax's optimizer either: table" in err) is path.startswith("constants/")
    code, err = convert("net.msgpack", "net.pt", "--reverse")  # all have moments: all are parameters
    assert code == 0 and "no parameters" not in err, err
    write(lines, BUFFERED, NAMES, moments)
    assert convert("net.pdparams", "net.msgpack")[0] == 0
    code, err = convert("net.msgpack", "net.pt", "--reverse")
    assert code == 0 and "optax keeps no moments of them: not in torch's optimizer either: constants/sines" in err, err


def test_what_does_not_show_whether_it_is_a_parameter_is_named(write, convert, tmp_path):
    write(LINES, BUFFERED, {**NAMES, "table": "table"}, {"linear_0.w_0": 0.5, "linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "does not show that they are no buffers: table" in err, err


TWO = {"one.weight": (2, 2), "two.weight": (2, 2)}
TWO_NAMES = {name: NAMES[name] for name in TWO}
TWO_LINES = LINES.partition("\n")[2]


def test_a_frozen_parameter_stays_without_a_state(write, convert, tmp_path):
    """As a training begins with it in torch and paddle; optax has moments of all parameters, and one count."""
    write(TWO_LINES, TWO, TWO_NAMES, {"linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "without a state in the source, and none here, as before their first step: one" in err, err
    assert "the target's group lists these, too" in err, err
    found = arrays(tmp_path / "net.pt")
    states = {name: value for name, value in found.items() if name.startswith("optimizer/state/")}
    assert states == {
        "optimizer/state/1/step": 4,
        **{f"optimizer/state/1/{n}": 0.25 for n in ("exp_avg", "exp_avg_sq")},
    }
    with open_checkpoint(str(tmp_path / "net.pt")) as reader:
        assert reader.skipped.load()["optimizer/param_groups/0/params"] == [0, 1]
    code, err = convert("net.pt", "back.pdparams", "--reverse", "--weights", "model", like="net.pdparams")
    assert code == 0 and "so zeros at step 0, as of a new optimizer: one.weight" in err, err
    assert "they have no state: to keep them so, set their stop_gradient=True, or leave them out" in err, err
    back = {name: value for name, value in arrays(tmp_path / "back.pdparams").items() if "linear_0.w_0_" in name}
    assert back == pytest.approx({
        "optimizer/linear_0.w_0_moment1_0": 0, "optimizer/linear_0.w_0_moment2_0": 0,
        "optimizer/linear_0.w_0_beta1_pow_acc_0": 0.9, "optimizer/linear_0.w_0_beta2_pow_acc_0": 0.999,
    })  # fmt: skip
    code, err = convert("net.pdparams", "net.msgpack")
    assert code == 0 and "so zeros, counted as after 4 steps like all others: their first updates are not" in err, err
    frozen = "if they are frozen in the source, where they have no state: to keep them so, chain optax.masked("
    assert f"{frozen}optax.set_to_zero(), ...) behind the optimizer: one" in err, err
    assert arrays(tmp_path / "net.msgpack")["opt_state/0/mu/one"] == 0


def over_the_others(model, groups):
    """Freeze a Mixer's stem, and build an optimizer over the other parameters, in one group or two."""
    import torch

    model.stem.requires_grad_(False)
    others = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed, rest = ([pair for pair in others if (pair[1].ndim > 1) is wide] for wide in (True, False))
    two = [{"params": decayed, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(others if groups == 1 else two, lr=0.125)


@pytest.mark.parametrize("groups", [1, 2])
def test_parameters_that_are_in_no_group_stay_out_of_the_target_s(groups, run, tmp_path):
    """As of an optimizer over those that require a gradient: the same one loads the target and goes on alike."""
    needs("torch")
    import torch

    config = save_config("mlp_mixer", tmp_path / "config.json")
    trainers = [Torch("mlp_mixer", "adamw") for _ in range(2)]
    for trainer in trainers:
        trainer.optimizer = over_the_others(trainer.model, groups)
    trainers[0].train(batches("mlp_mixer")[:3])
    trainers[0].save(tmp_path / "ours.pt")
    words = ["ours.pt", "-o", "there.pt", "--with-optimizer", "--config", config]
    code, _, err = run("torch2torch", *(tmp_path / word if ".pt" in str(word) else word for word in words))
    left = "in no group of the source's optimizer, as frozen parameters, and in none of the target's"
    assert code == 0 and f"{left}: build it over the others alone: stem.weight, stem.bias\n" in err, err
    saved = torch.load(tmp_path / "there.pt")
    trainers[1].model.load_state_dict(saved["model"])
    trainers[1].optimizer.load_state_dict(saved["optimizer"])
    for trainer in trainers:
        trainer.train(batches("mlp_mixer")[3:5])
    pairs = zip(*(trainer.model.parameters() for trainer in trainers), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    hyper = ["--hyper", "weight_decay=0.5"] if groups > 1 else []  # optax has one group
    code, _, err = run("torch2flax", tmp_path / "ours.pt", "--with-optimizer", "--config", config, *hyper)
    frozen = "to keep them so, chain optax.masked(optax.set_to_zero(), ...) behind the optimizer"
    names = "params/stem/kernel, params/stem/bias"
    what = "in no group of the source's optimizer, as frozen parameters"
    assert code == 0 and f"{what}: {frozen}: {names}\n" in err, err
    assert run("flax2flax", tmp_path / "ours.msgpack", "-o", tmp_path / "x.msgpack", "--with-optimizer", *hyper)[0] == 0
    back = [tmp_path / "x.msgpack", "-o", tmp_path / "back.pt", "--with-optimizer", "--hyper", "lr=0.125"]
    code, _, err = run("flax2torch", *back)
    left = (
        "in no group of torch's optimizer before, as the record says, as frozen parameters, and in none of the target's"
    )
    assert code == 0 and f"{left}: build it over the others alone: stem.weight, stem.bias\n" in err, err
    pair = (tmp_path / "ours.pt", tmp_path / "back.pt")
    if groups == 1:
        code, printed, err = run("diff", *pair, "--weights", "/", "--config", config)
        assert code == 0 and printed.startswith("the same in all parts\n"), err


def test_parameters_that_are_in_no_group_stay_out_of_it_by_way_of_paddle_too(run, tmp_path):
    """Weights and state are parts of one file there, and paddle has zeros of the frozen ones."""
    for framework in ("torch", "paddle"):
        needs(framework)
    config, trainer = save_config("mlp_mixer", tmp_path / "config.json"), Torch("mlp_mixer", "adamw")
    trainer.optimizer = over_the_others(trainer.model, 1)
    trainer.train(batches("mlp_mixer")[:1])
    trainer.save(tmp_path / "ours.pt")
    Paddle("mlp_mixer", "adamw").save(tmp_path / "new.pdparams")
    words = ["-o", tmp_path / "x.pdparams", "--with-optimizer", "--like", tmp_path / "new.pdparams", "--config", config]
    assert run("torch2paddle", tmp_path / "ours.pt", *words)[0] == 0
    code, _, err = run("paddle2torch", tmp_path / "x.pdparams", "-o", tmp_path / "back.pt", "--with-optimizer")
    assert code == 0 and "in no group of torch's optimizer before, as the record says" in err, err
    code, printed, err = run("diff", tmp_path / "ours.pt", tmp_path / "back.pt", "--weights", "/", "--config", config)
    assert code == 0 and printed.startswith("the same in all parts\n"), err


@pytest.mark.parametrize("how", ["betas", "names", "an empty group"])
def test_groups_that_compute_alike_go_along_to_one(how, run, tmp_path):
    """Betas may be tensors, groups may have names, and one may be empty."""
    needs("torch")
    import torch

    config, trainer = save_config("mlp_mixer", tmp_path / "config.json"), Torch("mlp_mixer", "adamw")
    named = list(trainer.model.named_parameters())
    groups = {
        "betas": [{"params": named, "betas": (torch.tensor(0.75), torch.tensor(0.5)), "lr": torch.tensor(1e-3)}],
        "names": [{"params": named[:4], "name": "first"}, {"params": named[4:], "name": "others"}],
        "an empty group": [{"params": [], "lr": 1.0}, {"params": [parameter for _, parameter in named]}],
    }
    options = {"foreach": False, "capturable": False} if how == "betas" else {}
    trainer.optimizer = torch.optim.AdamW(groups[how], lr=0.125, betas=(0.75, 0.5), **options)
    trainer.train(batches("mlp_mixer")[:2])
    trainer.save(tmp_path / "ours.pt")
    words = [tmp_path / "ours.pt", "--with-optimizer", "--config", config]
    code, _, err = run("torch2flax", *words)
    rate = "1e-3" if how == "betas" else "0.125"
    assert code == 0 and f"optax.adamw(learning_rate={rate}, b1=0.75, b2=0.5, eps=1e-8" in err, err
    assert ("which are alike but for these: name\n" in err) == (how == "names"), err
    code, _, err = run("torch2torch", *words, "-o", tmp_path / "there.pt")
    own, saved = (torch.load(tmp_path / name)["optimizer"]["param_groups"] for name in ("ours.pt", "there.pt"))
    assert code == 0 and len(own) == len(saved), err
    assert [group["params"] for group in own] == [group["params"] for group in saved]


def test_each_parameter_keeps_its_count_of_steps(write, convert, tmp_path):
    """As of a linear probe before a fine-tuning: torch and paddle count the steps of each parameter, optax one."""
    steps = {"linear_0.w_0": 3, "linear_1.w_0": 7}
    write(TWO_LINES, TWO, TWO_NAMES, dict.fromkeys(steps, 0.5), steps)
    code, err = convert("net.pdparams", "net.pt")
    assert code == 0 and "state after 7 steps (fewer for 1 of 2 parameters, from 3) goes along: " in err, err
    found = arrays(tmp_path / "net.pt")
    assert [found[f"optimizer/state/{number}/step"] for number in (0, 1)] == [3, 7]
    code, err = convert("net.pt", "back.pdparams", "--reverse", "--weights", "model", like="net.pdparams")
    assert code == 0, err
    back = arrays(tmp_path / "back.pdparams")
    for name, count in steps.items():
        for beta, value in (("beta1", 0.9), ("beta2", 0.999)):
            assert back[f"optimizer/{name}_{beta}_pow_acc_0"] == pytest.approx(value ** (count + 1), rel=1e-6)
    for source, words in (("net.pdparams", ()), ("net.pt", ("--reverse", "--weights", "model"))):
        code, err = convert(source, "net.msgpack", *words)
        assert code == 1 and "updated differently often" in err and "- 3 times one" in err and "- 7 times two" in err, (
            err
        )
        assert "--hyper step=7 counts all alike" in err
        code, err = convert(source, "net.msgpack", *words, "--hyper", "step=7")
        assert code == 0 and arrays(tmp_path / "net.msgpack")["opt_state/0/count"] == 7, err
        code, err = convert(source, "net.msgpack", *words, "--hyper", "step=5")
        assert code == 2 and "step=5 contradicts " in err, err
    write("one.weight: i o, two.weight: i p <-> w: (o+p) i", TWO, TWO_NAMES, dict.fromkeys(steps, 0.5), steps)
    code, err = convert("net.pdparams", "net.pt")
    assert code == 1 and "w joins parameters that were updated 3 and 7 times" in err, err


SCHEDULER = {"LR_Scheduler": {"last_epoch": 5, "last_lr": 0.5}}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "'opt', of its optimizer, is empty: "),
        (SCHEDULER, "'opt', of its optimizer, has a learning-rate scheduler alone: "),
    ],
)
def test_plain_sgd_has_no_state_to_convert(entries, said, write, convert, tmp_path):
    """In a file of its own, and in one with the weights."""
    write(TWO_LINES, TWO, TWO_NAMES, {}, **entries)
    code, err = convert("net.pdparams", "net.msgpack")
    assert code == 1 and "net.pdopt: holds no tensors: plain SGD keeps no state" in err, err
    assert "convert without --with-optimizer" in err
    saved = {"model": pickle.loads((tmp_path / "net.pdparams").read_bytes()), "opt": entries, "scaler": {}}
    (tmp_path / "all.pdparams").write_bytes(pickle.dumps(saved))
    code, err = convert("all.pdparams", "net.msgpack", "--weights", "model")
    assert code == 1 and f"the entry {said}plain SGD keeps no state" in err, err


def test_a_distributed_checkpoint_has_the_state_of_every_parameter(write, convert, tmp_path):
    """dcp.load asks for all of them: zeros at step 0 are what a new optimizer begins with."""
    needs("torch")
    write(TWO_LINES, TWO, TWO_NAMES, {"linear_1.w_0": 0.25})
    code, err = convert("net.pdparams", "net.dcp")
    assert code == 0 and "so zeros at step 0, as of a new optimizer: one" in err, err
    found = arrays(tmp_path / "net.dcp")
    states = {name.removeprefix("optim/state/"): value for name, value in found.items() if "state/" in name}
    slots = ("exp_avg", "exp_avg_sq")
    expected = {"one/step": 0, "two/step": 4, **{f"one/{slot}": 0 for slot in slots}}
    assert states == expected | {f"two/{slot}": 0.25 for slot in slots}


def test_moments_of_rows_that_a_table_supplies_are_noted(write, convert):
    needs("torch")
    write("e: v c <-> p: v[2:] c\n<-> p: x[:2] c = 0", {"e": (3, 2)}, {"e": "linear_0.w_0"}, {"linear_0.w_0": 7})
    code, err = convert("net.pdparams", "out.pt")
    assert code == 0, err
    assert "moments of zeros, at the step of the others, where the table supplies a part: p" in err


def test_names_that_a_program_gives_to_a_later_model_are_noted(write, convert):
    names = {"one.weight": "linear_2.w_0", "two.weight": "linear_3.w_0"}
    for own, noted in ((names, True), (TWO_NAMES, False)):
        write(TWO_LINES, TWO, own, dict.fromkeys(own.values(), 0.5))
        assert convert("net.pdparams", "net.pt")[0] == 0
        code, err = convert("net.pt", "back.pdparams", "--reverse", "--weights", "model", like="net.pdparams")
        first = 2 if noted else 0
        assert code == 0 and (f"--like names layers from linear_{first} on, not from 0: paddle" in err) is noted, err


def test_a_model_within_the_state_of_its_optimizer_is_no_state_alone(run, tmp_path):
    """As of paddle.save({**model.state_dict(), **optimizer.state_dict()}, ...)."""
    state = {f"linear_{k}.w_0_{slot}_0": np.ones((2, 2), "f4") for k in range(3) for slot in ("moment1", "moment2")}
    for model, said in (
        ({"one.weight": np.ones((2, 2), "f4")}, "an optimizer of paddle; one.weight are the model's: save both apart"),
        ({}, "in another file, saved apart: give that file to convert, with --with-optimizer --optimizer {} for both"),
    ):
        (tmp_path / "flat.pdparams").write_bytes(pickle.dumps({**model, **state}))
        code, _, err = run("paddle2torch", tmp_path / "flat.pdparams")
        assert code == 1 and said.format(tmp_path / "flat.pdparams") in err, err
    for name in ("flat.pdopt", "flat.pdparams"):
        (tmp_path / name).write_bytes(pickle.dumps(state))
    code, _, err = run("paddle2torch", tmp_path / "flat.pdopt")
    beside = "flat.pdparams, beside it: give that file to convert, with --with-optimizer for both\n"
    assert code == 1 and beside in err, err


def test_paddle_trains_a_parameter_that_had_no_state(write, convert, tmp_path):
    """As where torch trained a head alone, and paddle then all."""
    needs("paddle")
    import paddle

    write(TWO_LINES, TWO, {"one.weight": "probe_0.w_0", "two.weight": "probe_1.w_0"}, {"probe_1.w_0": 0.25})
    assert convert("net.pdparams", "net.pt")[0] == 0
    code, err = convert("net.pt", "back.pdparams", "--reverse", "--weights", "model", like="net.pdparams")
    assert code == 0, err
    state = paddle.load(str(tmp_path / "back.pdparams"))["optimizer"]
    parameters = [paddle.create_parameter([2, 2], "float32", f"probe_{k}.w_0") for k in (0, 1)]
    optimizer = paddle.optimizer.AdamW(0.5, parameters=parameters)
    optimizer.set_state_dict(state)
    before = parameters[0].numpy()
    sum(parameter.square().sum() for parameter in parameters).backward()
    optimizer.step()
    assert np.abs(parameters[0].numpy() - before).max() > 0.1  # the first step of Adam: the rate


def test_names_of_a_group_that_are_not_listed_are_counted_one_by_one():
    names = ["pos_embed", "cls_token", *(f"blocks.{i}.norm{k}.bias" for i in range(5) for k in (1, 2)), "head.bias"]
    (note,) = _about_groups([(names, {"weight_decay": 0.05})])
    assert note.endswith(": 13 with weight_decay=0.05: pos_embed, cls_token and 11 more")


@pytest.mark.parametrize(
    ("widths", "normed", "code"),
    [((3, 3), ("0", "1"), 1), ((4, 3), ("0", "1"), 0), ((3, 3), (), 0)],
    ids=["one shape", "two shapes", "one kind"],
)
def test_groups_whose_shapes_fit_in_two_orders_are_refused(widths, normed, code, run, tmp_path):
    """Norms listed ahead of biases have the same shapes as both in the order of the model, where all have one shape."""
    needs("torch")
    import torch

    blocks, before = torch.nn.Sequential(), 3
    for width in widths:
        norm = [torch.nn.LayerNorm(width)] if normed else []
        blocks.append(torch.nn.Sequential(torch.nn.Linear(before, width), *norm))
        before = width
    parts = [[p for p in blocks.parameters() if (p.ndim > 1) is wide] for wide in (True, False)]
    optimizer = torch.optim.AdamW([{"params": parts[0]}, {"params": parts[1], "weight_decay": 0.0}])
    blocks(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    named = {p: name for name, p in blocks.named_parameters()}
    axes = {p: f"{name}: {'o i' if p.ndim > 1 else 'o'}" for p, name in named.items()}
    (tmp_path / "x.table").write_text("\n".join(["table 1", *(f"{line} <-> params/{line}" for line in axes.values())]))
    words = ["--table", tmp_path / "x.table", tmp_path / "x.pt", "--weights", "model", "--with-optimizer"]

    def converted(saved):
        torch.save({"model": blocks.state_dict(), "optimizer": saved}, tmp_path / "x.pt")
        return run(*words, "-o", tmp_path / "x.msgpack", "--force", "--hyper", "weight_decay=0.01")

    found, _, err = converted(saved := optimizer.state_dict())
    said = "shapes do not show in which order its groups list {0..1}.1.weight, "
    assert found == code and (said in err) == bool(code), err
    for group, some in zip(saved["param_groups"], parts, strict=True):
        group["param_names"] = [named[p] for p in some]
    assert converted(saved)[0] == 0
