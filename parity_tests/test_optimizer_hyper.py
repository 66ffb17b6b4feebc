"""What --hyper may state of an optimizer beside its file: states of one layer, written by hand."""

import json
import pickle

import numpy as np
import pytest

import ports
from convert.errors import UsageError
from convert.optimizer.settling import settled
from convert.optimizer.state import State, given
from convert.reading.families import call

from .conftest import needs
from .optimizing import loading, save_one_step
from .test_optimizer_docs import BLOCKS

TABLE = """table 1: paddle <-> torch
last.weight: i o  <->  last.weight: o i
last.bias: o      <->  last.bias: o
"""
SHAPES = {"last.weight": (3, 2), "last.bias": (2,)}
POWERS = {"beta1": 0.9**5, "beta2": 0.999**5}  # after 4 steps
OWN = {"last.weight": "linear_0.w_0", "last.bias": "linear_0.b_0"}


@pytest.fixture
def paddle(tmp_path, run):
    """Write a layer and its optimizer as paddle does, and convert them; returns a function that does that."""
    (tmp_path / "net.table").write_text(TABLE)
    weights = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()}
    (tmp_path / "net.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": OWN}))

    def convert(*words, slots=("moment1", "moment2"), out="out.msgpack", powers=POWERS, **entries):
        state = {
            f"{own}_{slot}_0": np.full(SHAPES[name], 0.5, "float32") for name, own in OWN.items() for slot in slots
        }
        if len(slots) == 2:
            state |= {
                f"{own}_{b}_pow_acc_0": np.array([p], "float32") for own in OWN.values() for b, p in powers.items()
            }
        (tmp_path / "net.pdopt").write_bytes(pickle.dumps({**state, **entries}))
        like = ["--like", tmp_path / "net.pdparams"] if out.endswith(("pdparams", "pdopt")) else []
        words = ["-o", tmp_path / out, *like, *words]
        return run("--table", tmp_path / "net.table", tmp_path / "net.pdparams", "--with-optimizer", *words)

    return convert


def hyper(*texts):
    return [word for text in texts for word in ("--hyper", text)]


LIKE = ("lr=0.5", "eps=1e-8", "weight_decay=0.1")


def test_another_optimizer_is_no_hyperparameter(paddle):
    code, _, err = paddle(*hyper("kind=sgd", "momentum=0.9"))
    assert code == 2 and "holds Adam's two moments (moment1, moment2): kind=sgd contradicts it" in err
    code, _, err = paddle(*hyper("kind=adam"), slots=("velocity",))
    assert code == 2 and "holds Momentum's arrays (velocity): kind=adam contradicts it" in err
    code, _, err = paddle(*hyper("kind=adamw", "momentum=0.9"))
    assert code == 2 and "momentum is no hyperparameter of adam or adamw" in err


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("b1=0.9", "'b1', did you mean 'beta1'?"),
        ("betas=0.9", "'betas', did you mean 'beta1' and 'beta2'?"),
        ("epsilon=1e-8", "'epsilon', did you mean 'eps'?"),
        ("learning_rate=1", "'learning_rate', did you mean 'lr'?"),
        ("epsilon=1", "'epsilon', did you mean 'eps'?"),
        ("b2=1", "'b2', did you mean 'beta2'?"),
        ("stp=1", "'stp', did you mean 'step'?"),
        ("momentun=0.9", "'momentun', did you mean 'momentum'?"),
    ],
)
def test_a_library_s_own_name_of_a_hyperparameter_leads_to_ours(stated, meant, paddle):
    code, _, err = paddle(*hyper("kind=adamw", stated))
    assert code == 2 and f"no hyperparameter {meant} (one of lr, " in err


def test_steps_are_not_stated_otherwise(paddle):
    code, _, err = paddle(*hyper("kind=adamw", "step=77"))
    assert (
        code == 2 and "step=77 contradicts beta1_pow_acc" in err and ": 4 steps with beta1 0.9 and beta2 0.999\n" in err
    )
    assert paddle(*hyper("kind=adamw", "step=4"))[0] == 0


@pytest.mark.parametrize(("stated", "usual"), [
    (("beta1=0.8",), "beta1=0.9"), (("beta2=0.99",), "beta2=0.999"),
    (("beta1=0.8", "beta2=0.99"), "beta1=0.9 and beta2=0.999"),
])  # fmt: skip
def test_betas_that_contradict_the_powers_are_named_with_those_that_do_not(stated, usual, paddle):
    code, _, err = paddle(*hyper("kind=adamw", *stated))
    assert code == 2 and f"; with {usual} it is 4 steps\n" in err, err


def test_other_betas_than_stated_are_asked_for(paddle):
    code, _, err = paddle(*hyper("kind=adamw", "beta1=0.8"), powers={"beta1": 0.123, "beta2": 0.999**5})
    assert code == 2 and "beta2 0.999: state --hyper beta2=..., or --hyper step=...\n" in err, err
    both = hyper("kind=adamw", "beta1=0.8", "beta2=0.7")
    code, _, err = paddle(*both, powers={"beta1": 0.123, "beta2": 0.234})
    assert code == 2 and "with beta1 0.8 and beta2 0.7: state other betas\n" in err, err


@pytest.mark.parametrize("unknown", ["lr", "momentum", "nesterov", "weight_decay"])
def test_a_torch_file_has_what_is_known_and_no_step_works_without_the_rest(unknown, paddle, tmp_path):
    """The rate of paddle's scheduler stays, so that a scheduler of torch's can be compared with it."""
    needs("torch")
    import torch

    model = torch.nn.ModuleDict({"last": torch.nn.Linear(3, 2)})
    torch.save(model.state_dict(), tmp_path / "new.pt")
    known = {"lr": "0.5", "momentum": "0.75", "nesterov": "true", "weight_decay": "0.25"}
    words = hyper(*(f"{name}={value}" for name, value in known.items() if name != unknown))
    code, _, err = paddle(*words, "--like", tmp_path / "new.pt", slots=("velocity",), out="out.pt")
    assert code == 0 and f"paddle's state does not say {unknown}: --hyper {unknown}=..." in err, err
    (note,) = (line for line in err.splitlines() if "does not say" in line)
    assert len(note.split()) <= 40 and "training.md shows, Hyperparameters that a file lacks: " in note
    saved = torch.load(tmp_path / "out.pt")
    assert saved["optimizer"]["param_groups"][0].get("lr") == (None if unknown == "lr" else 0.5)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    sgd.load_state_dict(saved["optimizer"])
    sum(parameter.sum() for parameter in model.parameters()).backward()
    with pytest.raises(KeyError):
        sgd.step()
    load = loading()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.75, nesterov=True)
    exec(load, {"optimizer": sgd, "saved": saved})
    assert sgd.param_groups[0]["lr"] == (0.1 if unknown == "lr" else 0.5)
    sgd.step()


def test_the_scheduler_suggests_the_steps_of_sgd(paddle):
    """optax counts steps in the TrainState, and paddle's momentum does not."""
    for last, suggested in ((4, "step=4, if its scheduler counted steps"), (0, "step=...")):
        scheduler = {"last_epoch": last, "last_lr": 0.5}
        code, _, err = paddle(slots=("velocity",), LR_Scheduler=scheduler, out=f"{last}.msgpack")
        assert code == 0 and f"the TrainState's step is 0 (--hyper {suggested})\n" in err, err
        assert err.count("momentum, nesterov and weight_decay: ") == 1 == err.count("?, nesterov=?); paddle's"), err


def test_a_rate_that_is_stated_otherwise_is_reported_and_recorded(paddle, tmp_path):
    scheduler = {"last_epoch": 4, "last_lr": 0.000996}
    code, printed, err = paddle(*hyper("kind=adamw", *LIKE), "--json", LR_Scheduler=scheduler)
    assert code == 0 and "lr=0.5 as you state; the file has 9.96e-4" in err
    about = json.loads(printed)["optimizer"]
    assert about["changed"] == {"lr": 0.000996} and about["hyperparameters"]["lr"] == 0.5
    code, printed, err = paddle(*hyper("kind=adamw"), "--json", "--force", LR_Scheduler=scheduler)
    assert code == 0 and "as you state; the file has" not in err and "changed" not in json.loads(printed)["optimizer"]


def test_adam_or_adamw_is_asked_for_with_all_else_that_is_missing(paddle):
    code, _, err = paddle(*hyper(*LIKE))
    assert (
        code == 2
        and "does not say whether it is Adam's or AdamW's: --hyper kind=adam or kind=adamw (that of Lamb, whose arrays"
        in err
    )
    code, _, err = paddle()
    assert code == 2 and "; lr, eps and weight_decay may stay open (" in err  # not betas


def test_a_rate_without_a_value_is_answered_with_an_example():
    with pytest.raises(UsageError, match=r" as in weight_decay=0\.01$"):
        given(["weight_decay"])
    with pytest.raises(UsageError, match=r"--hyper lr: lr is a number from 0 on, as in lr=0\.001$"):
        given(["lr"])
    with pytest.raises(UsageError, match=r"--hyper beta1=1.5: beta1 is a number from 0 to below 1, as in beta1=0\.9$"):
        given(["beta1=1.5"])


def test_nesterov_is_spelt_as_the_printed_constructors_spell_it():
    assert given(["nesterov=True"]) == given(["nesterov=true"]) == {"nesterov": True}
    assert given(["nesterov=False"]) == {"nesterov": False}


def test_kinds_that_a_file_states():
    state = State("torch", "adam", 4, {"kind": "adamw", "lr": 0.1}, {}, frozenset())
    with pytest.raises(UsageError, match="says that its optimizer is adamw: kind=adam contradicts it"):
        settled("x.pt", state, {"kind": "adam"}, ".pt")
    assert settled("x.pt", state, {"kind": "adamw", "lr": 0.1}, ".pt").notes == ()


def test_float32_is_no_change():
    """As optax stores what inject_hyperparams injects."""
    state = State("optax", "sgd", None, {"kind": "sgd", "lr": float(np.float32(0.1))}, {}, frozenset())
    assert settled("x.msgpack", state, {"lr": 0.1}, ".pt").changed == {}
    assert settled("x.msgpack", state, {"lr": 0.100001}, ".pt").changed == {"lr": float(np.float32(0.1))}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("library", ["optax", "torch", "paddle"])
def test_unknown_hyperparameters_are_no_defaults(kind, library):
    text = call(kind, library, {"lr": 0.001, "beta1": 0.9})
    assert text.count("?") >= 2 and "1e-3" in text
    with pytest.raises(SyntaxError):
        compile(text, "pasted", "eval")


def test_an_average_in_a_file_beside_is_named(paddle, tmp_path):
    for name in ("net.ema.pdparams", "other.pdema"):
        (tmp_path / name).write_bytes((tmp_path / "net.pdparams").read_bytes())
    code, _, err = paddle(*hyper("kind=adamw"))
    assert code == 0 and f"note: {tmp_path / 'net.ema.pdparams'} lies beside it" in err
    assert "other.pdema" not in err


def test_the_weights_that_paddledetection_trains_are_those_of_pdema(paddle, run, tmp_path):
    """Its save_model exchanges them with their average, which is the .pdparams beside it."""
    trained, average = tmp_path / "net.pdema", tmp_path / "net.pdparams"
    trained.write_bytes(average.read_bytes())
    code, _, err = paddle(*hyper("kind=adamw"))
    assert code == 2 and f"{average}: as {trained} lies beside it" in err and f"give {trained} (" in err
    words = ["--table", tmp_path / "net.table", trained, "--with-optimizer", *hyper("kind=adamw")]
    code, _, err = run(*words, "-o", tmp_path / "trained.msgpack")
    assert code == 0 and f"{average} lies beside it: as PaddleDetection saves it, it has the average of" in err, err


@pytest.mark.parametrize("words", [("inspect",), ("inspect", "--table"), ("--table",)])
def test_an_optimizer_and_an_average_beside_are_named_without_with_optimizer(words, paddle, run, tmp_path):
    assert paddle(*hyper("kind=adamw"))[0] == 0
    (tmp_path / "net.pdema").write_bytes((tmp_path / "net.pdparams").read_bytes())
    words = [*words, tmp_path / "net.table"] if "--table" in words else words
    out = ["-o", tmp_path / "alone.safetensors"] if "inspect" not in words else []
    code, printed, err = run(*words, tmp_path / "net.pdparams", *out)
    assert code == 0 and f"{tmp_path / 'net.pdopt'} lies beside it, by its name the state of" in printed + err, err
    others = f"the trained weights, and {tmp_path / 'net.pdparams'} has their average"
    assert f"{tmp_path / 'net.pdema'} lies beside it: as PaddleDetection saves it, it has {others}" in printed + err


def test_what_no_file_of_paddle_shows_is_said(paddle, tmp_path):
    """The file is the same whether a training had them; from paddle to paddle nothing is lost."""
    for kind, beside in (("adamw", " nor apply_decay_param_fun"), ("adam", "")):
        err = paddle(*hyper(f"kind={kind}"), "--force")[2]
        assert f"shows no groups of parameters{beside}: if there were any, see " in err.partition("goes along")[0], err
    (tmp_path / "net.table").write_text(TABLE.replace("torch", "paddle").replace(": o i", ": i o"))
    code, _, err = paddle(*hyper("kind=adamw"), out="same.pdopt")
    assert code == 0 and "shows no" not in err


def test_the_scheduler_of_paddle(paddle, tmp_path):
    """Kept for paddle; another source's target says how a scheduler is loaded."""
    needs("paddle")
    import paddle as library

    scheduler = {"last_epoch": 4, "last_lr": 0.000996}
    code, _, err = paddle(*hyper("kind=adamw"), LR_Scheduler=scheduler)
    assert code == 0 and "set aside: paddle's learning-rate scheduler" in err
    assert "is the one that its schedule had reached, not the one that it began with" in err
    err = paddle(*hyper("kind=adamw", "lr=0.5"), "--force", LR_Scheduler=scheduler)[2]
    assert "learning rate is the one that you state, not the one that its schedule had reached\n" in err, err
    (tmp_path / "net.table").write_text(TABLE.replace("torch", "paddle").replace(": o i", ": i o"))
    code, _, err = paddle(*hyper("kind=adamw"), out="same.pdopt", LR_Scheduler=scheduler)
    assert code == 0 and "set aside" not in err
    saved = library.load(str(tmp_path / "same.pdopt"))
    assert saved["LR_Scheduler"] == scheduler
    code, printed, err = paddle(*hyper("kind=adamw"), out="without.pdopt")
    assert code == 0 and " of its optimizer alone, of 8 parameters" in printed
    assert "learning-rate scheduler" not in err  # the training had none


def test_a_scheduler_inside_another_comes_back_nested(paddle, tmp_path):
    """LinearWarmup keeps the state of the scheduler that it wraps as a dict of its own, and asks for it."""
    needs("paddle")
    import paddle as library

    def warmup():
        inner = library.optimizer.lr.CosineAnnealingDecay(0.002, T_max=20)
        return library.optimizer.lr.LinearWarmup(inner, warmup_steps=3, start_lr=0.0, end_lr=0.002)

    source = warmup()
    for _ in range(5):
        source.step()
    (tmp_path / "net.table").write_text(TABLE.replace("torch", "paddle").replace(": o i", ": i o"))
    code, _, err = paddle(*hyper("kind=adamw"), out="same.pdopt", LR_Scheduler=source.state_dict())
    assert code == 0, err
    target, saved = warmup(), library.load(str(tmp_path / "same.pdopt"))["LR_Scheduler"]
    assert saved == source.state_dict() and saved["LinearWarmup_LR"]["last_epoch"] == 2
    target.set_state_dict(saved)
    for _ in range(3):
        source.step(), target.step()
        assert target() == source()


def in_paddle(rate, **more):
    import paddle as library

    with library.utils.unique_name.guard():  # names as in a fresh process
        model = library.nn.Sequential(("last", library.nn.Linear(3, 2)))
        if more:
            model.to(dtype="bfloat16")
        return model, library.optimizer.AdamW(rate, parameters=model.parameters(), **more)


def test_the_guide_to_paddle(paddle, run, tmp_path, monkeypatch):
    """docs/training.md's snippets: one file with both, a scheduler, and mixed precision."""
    needs("paddle")
    import paddle as library

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.table").write_text(TABLE.replace("torch", "paddle").replace(": o i", ": i o"))
    assert paddle(*hyper("kind=adamw"), out="five.pdparams")[0] == 0
    scheduler = library.optimizer.lr.CosineAnnealingDecay(0.001, 10)
    for rate, snippets in ((0.001, BLOCKS[3:4]), (scheduler, [BLOCKS[3].rpartition("optimizer.set")[0], BLOCKS[4]])):
        model, optimizer = in_paddle(rate)
        exec("".join(snippets), {"model": model, "optimizer": optimizer, "scheduler": scheduler})
        assert (model.last.weight.numpy() == 1).all()
        model(library.zeros([1, 3])).sum().backward()
        with library.utils.unique_name.guard():
            optimizer.step()
        moments = {name: value.numpy() for name, value in optimizer.state_dict().items() if "moment1" in name}
        assert np.allclose(moments["linear_0.w_0_moment1_0"], 0.9 * 0.5)
    assert scheduler.last_epoch == 5
    model, optimizer = in_paddle(0.001, multi_precision=True)
    with library.utils.unique_name.guard():
        optimizer._create_accumulators(library.base.framework.default_main_program().global_block(), model.parameters())
    library.save(model.state_dict(), "o2.pdparams"), library.save(optimizer.state_dict(), "o2.pdopt")
    words = ["--table", "net.table", "--with-optimizer", *hyper("kind=adamw", "step=0"), "-o", "o2.msgpack"]
    assert "trained in mixed precision" in run(*words, "o2.pdparams")[2]
    exec(BLOCKS[5], {"paddle": library})
    code, _, err = run(*words, "float32.pdparams")
    assert code == 0, err


def test_a_forgotten_state(paddle, run, tmp_path):
    paddle(*hyper("kind=adamw"))
    (tmp_path / "net.pdopt").unlink()
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pdparams", "--with-optimizer", "-o", tmp_path / "x.pt"]
    code, _, err = run(*words)
    assert code == 1 and f"no net.pdopt beside {tmp_path / 'net.pdparams'}" in err and "by --optimizer FILE" in err


def test_master_weights_have_a_remedy(paddle):
    code, _, err = paddle(*hyper("kind=adamw"), master_weights={"linear_0.w_0": np.ones((3, 2), "float32")})
    assert code == 1 and "trained in mixed precision" in err and "docs/training.md, To paddle and from it\n" in err


def test_moments_that_are_not_finite_are_named_as_their_user_knows_them(paddle):
    bad = np.array([0.5, np.nan], "float32")
    code, _, err = paddle(*hyper("kind=adamw"), **{"linear_0.b_0_moment1_0": bad})
    assert code == 0 and "NaNs or infinities (1) in linear_0.b_0_moment1_0 (of last.bias)" in err
    assert "negative" not in paddle(*hyper("kind=adamw"), "--force", **{"linear_0.b_0_moment1_0": -bad})[2]
    code, _, err = paddle(*hyper("kind=adamw"), "--force", **{"linear_0.b_0_moment2_0": -bad})
    assert code == 0 and "warning: negative second moments (1) in linear_0.b_0_moment2_0 (of last.bias): no Adam" in err


def in_torch(path, groups):
    """Save a layer and an AdamW with groups of parameters after a step."""
    import torch

    layer = torch.nn.Sequential()
    layer.add_module("last", torch.nn.Linear(3, 2))
    own = {"weight": layer.last.weight, "bias": layer.last.bias}
    optimizer = torch.optim.AdamW([{**values, "params": [own[name]]} for name, values in groups], lr=0.01)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": layer.state_dict(), "optimizer": optimizer.state_dict()}, path)
    torch.save(layer.state_dict(), path.with_name("new.pt"))
    return optimizer


def test_the_first_rate_of_a_schedule_goes_from_torch_to_torch(run, tmp_path):
    """CosineAnnealingLR with last_epoch asks for it; no other library has such an entry."""
    needs("torch")
    import torch

    in_torch(tmp_path / "net.pt", [("bias", {"weight_decay": 0.0}), ("weight", {})])
    saved = torch.load(tmp_path / "net.pt")
    for rate, group in zip((0.5, 0.25), saved["optimizer"]["param_groups"], strict=True):
        group["initial_lr"] = rate
    torch.save(saved, tmp_path / "net.pt")
    (tmp_path / "net.table").write_text(TABLE.replace("paddle", "torch").replace(": i o", ": o i"))
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--weights", "model", "--with-optimizer", "-o"]
    assert run(*words, tmp_path / "out.pt", "--like", tmp_path / "new.pt")[0] == 0
    groups = torch.load(tmp_path / "out.pt")["optimizer"]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.5, 0.25]
    code, _, err = run(*words, tmp_path / "out.msgpack", *hyper("weight_decay=0.0"))
    assert code == 0 and "set aside, of torch's learning-rate scheduler: initial_lr" in err
    assert "parameters, 0.5 and 0.25; the learning rate of the source is the one that its schedule had reached" in err
    one = [*words, tmp_path / "one.pt", "--like", tmp_path / "new.pt", *hyper("weight_decay=0.0")]
    code, _, err = run(*one)  # one group of parameters has one first rate: those of two are reported
    assert code == 0 and "set aside, of torch's learning-rate scheduler: initial_lr" in err
    del saved["optimizer"]["param_groups"][1]["initial_lr"]  # as of a group that was added after the scheduler
    torch.save(saved, tmp_path / "net.pt")
    assert run(*words, tmp_path / "some.pt", "--like", tmp_path / "new.pt")[0] == 0
    groups = torch.load(tmp_path / "some.pt")["optimizer"]["param_groups"]
    assert [group.get("initial_lr") for group in groups] == [0.5, None]


def test_a_tied_head_is_one_numbered_parameter(run, tmp_path):
    """Groups by the number of axes: torch's optimizer counts the embedding once, its state_dict names it twice."""
    needs("torch")
    import torch

    model = torch.nn.ModuleDict({"emb": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5)})
    model["head"].weight = model["emb"].weight
    groups = [{"params": [model["emb"].weight]}, {"params": [model["head"].bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    model["head"](model["emb"].weight[:1]).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    (tmp_path / "net.table").write_text(
        "table 1\nemb.weight: v d = head.weight: v d <-> e: v d\nhead.bias: v <-> b: v\n"
    )
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--weights", "model", "--with-optimizer"]
    code, _, err = run(*words, "-o", tmp_path / "out.msgpack", *hyper("weight_decay=0.01"))
    assert code == 0 and "assumed, not known: order of the parameters" in err, err
    record = json.loads((tmp_path / "out.msgpack.json").read_text())
    assert record["optimizer"]["moments"] == 4 and not record["optimizer"]["without"]


def test_groups_of_torch_stay_groups(run, tmp_path):
    """As timm divides them: without decay those of one axis, first."""
    needs("torch")
    import torch

    optimizer = in_torch(tmp_path / "net.pt", [("bias", {"weight_decay": 0.0}), ("weight", {"weight_decay": 0.05})])
    (tmp_path / "net.table").write_text(TABLE.replace("paddle", "torch").replace(": i o", ": o i"))
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--weights", "model", "--with-optimizer", "-o"]
    code, _, err = run(*words, tmp_path / "out.pt", "--like", tmp_path / "new.pt")
    order = "1 with weight_decay=0.0: last.bias; then 1 with weight_decay=0.05: last.weight"
    assert code == 0 and f"2 groups of parameters go along, to be built in this order: {order}" in err, err
    assert "the state is that of torch.optim.AdamW(lr=0.01, eps=1e-8, betas=(0.9, 0.999))" in err
    saved, original = torch.load(tmp_path / "out.pt")["optimizer"], optimizer.state_dict()
    optimizer.load_state_dict(saved)
    for left, right in zip(saved["param_groups"], original["param_groups"], strict=True):
        assert {key: left[key] for key in right if key != "params"} == {k: v for k, v in right.items() if k != "params"}
    for number, entry in original["state"].items():
        assert all(torch.equal(tensor, optimizer.state_dict()["state"][number][key]) for key, tensor in entry.items())
    code, _, err = run(*words, tmp_path / "out.msgpack")
    assert code == 2 and "differ in weight_decay: optax keeps one of each: --hyper weight_decay=... states one" in err
    code, _, err = run(*words, tmp_path / "out.msgpack", *hyper("weight_decay=0.05"))
    assert code == 0 and "weight_decay=0.05 as you state; the file has 0.0 and 0.05" in err
    back = ["--table", tmp_path / "net.table", "--reverse", tmp_path / "out.msgpack", "--weights", "params", *words[5:]]
    code, _, err = run(*back, tmp_path / "back.pt", "--like", tmp_path / "new.pt")
    assert code == 0 and "torch's groups of parameters had weight_decay=0.0 and 0.05; this file has one value" in err, (
        err
    )
    assert json.loads((tmp_path / "back.pt.json").read_text())["optimizer"]["changed"] == {"weight_decay": [0.0, 0.05]}


def test_a_distributed_checkpoint_asks_for_all_that_torch_stores(paddle):
    code, _, err = paddle(*hyper("eps=1e-8"), out="out.dcp")
    kind = "whether it is Adam's or AdamW's: --hyper kind=adam or kind=adamw (that of Lamb, whose arrays have the same"
    rest = "nor lr and weight_decay: --hyper lr=... --hyper weight_decay=..., as dcp.load asks a .dcp for all of them ("
    assert code == 2 and f"paddle's state does not say {kind}" in err and rest in err, err


def test_one_error_asks_for_fields_of_the_model_and_for_what_the_optimizer_needs(run, tmp_path):
    needs("torch")
    save_one_step(ports.build("mlp_mixer", "tiny S/32", "torch").model, tmp_path / "ckpt.pt")
    code, _, err = run("torch2paddle", tmp_path / "ckpt.pt", "--with-optimizer")
    assert code == 2 and "gelu is open: set it (erf or tanh)" in err
    assert "  - beside that, for the optimizer: " in err and "and give --like new.pdparams\n" in err, err
    assert "for the optimizer" not in run("torch2flax", tmp_path / "ckpt.pt", "--with-optimizer")[2]
    assert "for the optimizer" not in run("torch2paddle", tmp_path / "ckpt.pt")[2]


def torch_sgd(path, run, *words, dtype="float32", **options):
    """Write a layer and SGD's momentum as torch does, with more options in the group; convert both to optax."""
    needs("torch")
    import torch

    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.named_parameters(), 0.5, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = {"model": {f"last.{n}": p for n, p in layer.state_dict().items()}, "optimizer": optimizer.state_dict()}
    (group,) = saved["optimizer"]["param_groups"]
    group |= options | {"param_names": [f"last.{name}" for name in group["param_names"]]}
    for state in saved["optimizer"]["state"].values():
        state["momentum_buffer"] = state["momentum_buffer"].to(getattr(torch, dtype))
    torch.save(saved, path / "net.pt")
    (path / "net.table").write_text(TABLE.replace("paddle", "flax"))
    words = [*words, "--with-optimizer", "-o", path / "out.msgpack", "--force"]
    return run("--table", path / "net.table", "--reverse", path / "net.pt", "--weights", "model", *words)


def test_options_of_another_optimizer_are_asked_about(run, tmp_path):
    """The arrays of LARS are those of SGD: only the options of its groups tell them apart."""
    lars = {"trust_coefficient": 0.001, "name": "all"}
    code, _, err = torch_sgd(tmp_path, run, **lars)
    assert code == 2 and "its param_groups have trust_coefficient, which torch.optim.SGD does not have" in err
    assert "state --hyper kind=sgd" in err and not (tmp_path / "out.msgpack").exists()
    code, _, err = torch_sgd(tmp_path, run, *hyper("kind=sgd"), **lars)
    assert code == 0 and "set aside, of the optimizer's groups of parameters: trust_coefficient, name" in err
    code, _, err = torch_sgd(tmp_path, run, max_lr=1.0, name=None)  # as OneCycleLR leaves it
    assert code == 0 and "set aside, of the optimizer's groups of parameters: max_lr" in err
    code, _, err = torch_sgd(tmp_path, run)
    assert code == 0 and "groups of parameters" not in err


def test_quantized_moments_are_refused(run, tmp_path):
    code, _, err = torch_sgd(tmp_path, run, dtype="uint8")
    assert code == 1 and "momentum_buffer has dtype uint8, and moments are floating-point numbers" in err
