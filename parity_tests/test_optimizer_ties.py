"""One parameter under two names, as a tied head: optimizers train it once, averages store it once or twice."""

import numpy as np
import pytest

from convert.files import open_checkpoint

from .conftest import needs

TABLE = """table 1: torch <-> torch
emb.weight: v d = head.weight: v d <-> tokens: v d
head.bias: v <-> bias: v
norm.weight: d <-> scale: d
"""


@pytest.fixture
def trained(tmp_path):
    """Return a model with a tied head after a step, and its optimizer, whose two groups differ by numbers of axes."""
    needs("torch")
    import torch

    model = torch.nn.ModuleDict(
        {"emb": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5), "norm": torch.nn.RMSNorm(3)}
    )
    model["head"].weight = model["emb"].weight
    groups = [[p for p in model.parameters() if (p.ndim > 1) is many] for many in (True, False)]
    optimizer = torch.optim.AdamW([{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}], lr=0.01)
    model["head"](model["norm"](model["emb"].weight[:2])).square().sum().backward()
    optimizer.step()
    (tmp_path / "net.table").write_text(TABLE)
    new = {"tokens": torch.zeros(5, 3), "bias": torch.zeros(5), "scale": torch.zeros(3)}
    torch.save(new, tmp_path / "new.pt")
    return model, optimizer


@pytest.fixture
def convert(run, tmp_path):
    def convert(source, *words):
        base = ["--table", tmp_path / "net.table", tmp_path / source, "--with-optimizer", "--like", tmp_path / "new.pt"]
        code, _, err = run(*base, "-o", tmp_path / f"out_{source}", *words)
        return code, err

    return convert


def arrays(path):
    with open_checkpoint(str(path)) as reader:
        return {name: bytes(reader.read(name)) for name in reader.tensors}


@pytest.mark.parametrize("stored", ["emb.weight", "head.weight"])
@pytest.mark.parametrize("clone", [False, True], ids=["one storage", "two storages"])
def test_an_average_may_store_a_tied_parameter_once(stored, clone, trained, convert, tmp_path):
    """As one over named_parameters() does. The average of both names is the one that it has."""
    import torch

    model, optimizer = trained
    weights = {name: tensor.clone() if clone else tensor for name, tensor in model.state_dict().items()}
    average = {name: tensor * 2 for name, tensor in weights.items() if name == stored or "weight" not in name}
    average["norm.weight"] = weights["norm.weight"] * 2
    torch.save({"model": weights, "optimizer": optimizer.state_dict(), "ema": average}, tmp_path / "m.pt")
    code, err = convert("m.pt")
    assert code == 0 and "the average of the weights goes along: ema -> model_ema" in err, err
    tie = "emb.weight = head.weight" if stored == "emb.weight" else "head.weight = emb.weight"
    assert f"note: tied, and once in the average under ema: {tie}\n" in err
    assert "cast to" not in err
    saved = torch.load(tmp_path / "out_m.pt")
    assert torch.equal(saved["model_ema"]["tokens"], model["emb"].weight * 2)
    del average["norm.weight"]
    torch.save({"model": weights, "optimizer": optimizer.state_dict(), "ema": average}, tmp_path / "less.pt")
    code, err = convert("less.pt")
    assert code == 0 and "the average of the weights under ema stays behind: it lacks norm.weight" in err, err


def test_a_cast_of_moments_and_averages_is_noted(trained, convert, tmp_path):
    """--dtype is asked for the weights: it casts what --with-optimizer and an average add to them too."""
    import torch

    model, optimizer = trained
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**saved, "ema": model.state_dict()}, tmp_path / "m.pt")
    torch.save(saved, tmp_path / "without.pt")
    what = "note: cast to bfloat16 like the weights, by --dtype bfloat16: "
    for source, names in (
        ("m.pt", "exp_avg, exp_avg_sq and the average of the weights"),
        ("without.pt", "exp_avg and"),
    ):
        code, err = convert(source, "--dtype", "bfloat16")
        assert code == 0 and f"{what}{names}" in err, err
    assert torch.load(tmp_path / "out_m.pt")["optimizer"]["state"][0]["exp_avg"].dtype is torch.bfloat16
    code, err = convert("m.pt", "--dtype", "float32", "--force")
    assert code == 0 and "cast to" not in err, err


def test_a_tied_parameter_is_one_in_a_file_of_its_own_and_where_it_is_stored_twice(trained, convert, tmp_path):
    """The same optimizer is read alike in one file, beside the weights, and beside clones: the Table ties the names."""
    import torch

    model, optimizer = trained
    weights, state = model.state_dict(), optimizer.state_dict()
    torch.save({"model": weights, "optimizer": state}, tmp_path / "one.pt")
    torch.save({"model": {n: t.clone() for n, t in weights.items()}, "optimizer": state}, tmp_path / "clone.pt")
    torch.save(weights, tmp_path / "beside.pt")
    torch.save({"optimizer": state}, tmp_path / "state.pt")
    for source, words in (("one.pt", []), ("clone.pt", []), ("beside.pt", ["--optimizer", tmp_path / "state.pt"])):
        code, err = convert(source, *words)
        assert code == 0, err
    expected = arrays(tmp_path / "out_one.pt")
    assert expected["optimizer/state/0/exp_avg"] == state["state"][0]["exp_avg"].numpy().tobytes()
    assert arrays(tmp_path / "out_clone.pt") == arrays(tmp_path / "out_beside.pt") == expected
    plain = torch.optim.AdamW(model.parameters(), lr=0.01)  # one group
    plain.step()
    torch.save(weights, tmp_path / "beside.pt")
    torch.save({"model": weights, "optimizer": plain.state_dict()}, tmp_path / "plain.pt")
    torch.save({"optimizer": plain.state_dict()}, tmp_path / "state.pt")
    assert convert("plain.pt")[0] == 0
    code, err = convert("beside.pt", "--optimizer", tmp_path / "state.pt", "--force")
    assert code == 0 and arrays(tmp_path / "out_beside.pt") == arrays(tmp_path / "out_plain.pt"), err


def test_names_of_one_parameter_share_weights_and_no_moments(trained, run, tmp_path):
    """torch's load_state_dict copies weights, and takes a moment as it is: two parameters would update it in turn."""
    import torch

    model, optimizer = trained
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "m.pt")
    torch.save(
        {"t": torch.zeros(5, 3), "h": torch.ones(5, 3), "b": torch.zeros(5), "s": torch.zeros(3)}, tmp_path / "n.pt"
    )
    lines = [
        "emb.weight: v d <-> t: v d",
        "head.weight: v d <-> h: v d",
        "head.bias: v <-> b: v",
        "norm.weight: d <-> s: d",
    ]
    (tmp_path / "a.table").write_text("\n".join(["table 1: torch <-> torch", *lines, ""]))
    words = ["--table", tmp_path / "a.table", tmp_path / "m.pt", "--with-optimizer", "--like", tmp_path / "n.pt"]
    code, _, err = run(*words, "-o", tmp_path / "out.pt")
    assert code == 0, err
    found = torch.load(tmp_path / "out.pt")
    assert found["model"]["t"].data_ptr() == found["model"]["h"].data_ptr()
    first, second = (found["optimizer"]["state"][number]["exp_avg"] for number in (0, 1))
    assert first.equal(second) and first.data_ptr() != second.data_ptr()


def test_a_note_on_groups_names_two_kinds_of_parameters_each(trained, convert, tmp_path):
    """The file lists all names of a group, as param_names; a note of hundreds of characters nobody reads."""
    import torch

    names = ("a", "b", "c", "d")
    model = torch.nn.ParameterDict({name: torch.ones(2) for name in names})
    optimizer = torch.optim.AdamW([{"params": list(model.values())[:3]}, {"params": [model["d"]], "weight_decay": 0.0}])
    sum(parameter.sum() for parameter in model.values()).backward()
    optimizer.step()
    state = optimizer.state_dict()
    for group, own in zip(state["param_groups"], (names[:3], names[3:]), strict=True):
        group["param_names"] = list(own)
    torch.save({"model": model.state_dict(), "optimizer": state}, tmp_path / "m.pt")
    torch.save({f"{name}.x": torch.ones(2) for name in names}, tmp_path / "new.pt")
    lines = [f"{name}: c <-> {name}.x: c" for name in names]
    (tmp_path / "net.table").write_text("\n".join(["table 1: torch <-> torch", *lines, ""]))
    code, err = convert("m.pt")
    assert code == 0 and "3 with weight_decay=0.01: a.x, b.x and 1 more; then 1 with weight_decay=0.0: d.x\n" in err, (
        err
    )


@pytest.mark.parametrize("rest", ["w: x[:2] c = 0 <->", "w: x[:2] c -> drop"])
def test_moments_without_a_place_in_part_are_named(rest, run, tmp_path):
    """The rows of the weights are 0 or dropped as the table says; those of the moments are other numbers."""
    moments = {f"opt_state/0/{slot}/w": np.ones((5, 3), "f4") for slot in ("mu", "nu")}
    np.savez(tmp_path / "x.npz", **{"params/w": np.zeros((5, 3), "f4"), "opt_state/0/count": np.int32(3)}, **moments)
    lines = ["table 1: flax <-> flax", "params/w: p[2:] c <-> params/w: p c", f"params/{rest}", ""]
    (tmp_path / "x.table").write_text("\n".join(lines))
    words = ["--table", tmp_path / "x.table", tmp_path / "x.npz", "--with-optimizer", "--hyper", "kind=adam"]
    code, _, err = run(*words, "-o", tmp_path / "y.msgpack")
    named = "moments stay behind in part, of parameters that the target has in part: params/w\n"
    assert code == 0 and named in err, err
