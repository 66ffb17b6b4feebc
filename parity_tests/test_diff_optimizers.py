"""States of optimizers and other training state in a comparison of two files."""

import json
import pickle

import numpy as np
import pytest

from convert.diff.array_differences import EXACT
from convert.diff.arrays import by_names

from .conftest import needs
from .optimizing import apart, trained_mixer

# Whether --weights names the optimizer: exit status and verdict where one of its hyperparameters differs.
ONE_APART = {False: (0, "the same arrays, except 1 plain value that differs"), True: (1, "different: 1 plain value")}


def test_training_state_is_compared_only_where_both_name_it_alike(tmp_path):
    """As of two TrainStates whose optimizers are chained otherwise."""
    weights, state = {"params/a": np.ones(3), "params/b": np.ones(2)}, np.ones(3)
    one, same, other = (str(tmp_path / f"{name}.npz") for name in ("one", "same", "other"))
    np.savez(one, **weights, **{"opt_state/1/0/mu/a": state, "step": np.array(4)})
    np.savez(same, **weights, **{"opt_state/1/0/mu/a": state + 1, "step": np.array(4)})
    np.savez(other, **weights, **{f"opt_state/0/mu/{number}": state + 1 for number in range(9)})
    found, notes = by_names(one, same, EXACT)
    assert [entry["tensor"] for entry in found.entries] == ["opt_state/1/0/mu/a"] and not notes
    found, notes = by_names(one, other, EXACT)
    assert not found.entries and found.compared == 2
    assert found.but == ("training state, which is not compared",)
    what = "training state of which not all names are in both files"
    ours, theirs = "opt_state/ (1 array), step", "opt_state/ (9 arrays)"
    assert notes == [f"{one}: set aside {ours}, {what}", f"{other}: set aside {theirs}, {what}"]


def test_numbers_beside_the_arrays_are_compared_where_both_files_name_them(run, tmp_path):
    """Two states of one training: its arrays are the same, its learning rate and its epoch are not."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    weight = torch.arange(4.0)
    for name, rate, epoch in (("a", 1e-3, 3), ("b", 1e-4, 4)):
        groups = [{"lr": rate, "betas": (0.9, 0.999), "params": [0]}]
        state = {"model": {"weight": weight}, "optimizer": {"state": {}, "param_groups": groups}, "epoch": epoch}
        torch.save({**state, "arch": "mine", "only_in": {name: 1}}, tmp_path / f"{name}.pt")
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "b.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 2 plain values that differ")
    rate = "optimizer/param_groups/0/lr is 1e-3 in A, 1e-4 in B"
    assert f"note: plain values that differ: epoch is 3 in A, 4 in B; {rate}\n" in err
    agree = "arch=mine; optimizer/param_groups/0/betas=[0.9, 0.999]; optimizer/param_groups/0/params=[0]"
    assert f"note: plain values that agree: {agree}\n" in err
    assert "a.pt: set aside only_in/a (plain numbers)\n" in err, err
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "b.pt", "--weights", "model")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except 2 plain values that differ"), err
    code, printed, err = run("diff", tmp_path / "a.pt", tmp_path / "a.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays") and "set aside" not in err


def test_hyperparameters_are_compared_also_where_the_files_nest_the_optimizer_otherwise(run, tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes the files")

    def state(rate):
        moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(4), "exp_avg_sq": torch.ones(4)}
        return {"state": {0: moments}, "param_groups": [{"lr": rate, "betas": (0.9, 0.999), "params": [0]}]}

    model = {"weight": torch.arange(4.0)}
    files = {
        "optim": {"model": model, "optim": state(2e-3), "epoch": 4},
        "run/optimizer": {"run": {"model": model, "optimizer": state(2e-3)}, "epoch": 4},
        "optimizer_states/0": {"state_dict": model, "optimizer_states": [state(2e-3)], "epoch": 4},
        "/": state(2e-3),
    }
    torch.save({"model": model, "optimizer": state(1e-3), "epoch": 3}, tmp_path / "a.pt")
    torch.save({"model": model, "optim": state(1e-3), "epoch": 3}, tmp_path / "same.pt")
    for part, content in files.items():
        torch.save(content, tmp_path / "b.pt")
        words = ["diff", tmp_path / "a.pt", tmp_path / "b.pt", "--weights", "optimizer", "--weights", part]
        code, printed, err = run(*words)
        assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
        assert "optimizer/param_groups/0/lr is 1e-3 in A, 2e-3 in B\n" in apart(printed, err)
        assert "param_groups/0/params, " not in err
        code, printed, err = run("diff", *words[2:0:-1], "--weights", part, "--weights", "optimizer")
        assert code == 1 and "param_groups/0/lr is 2e-3 in A, 1e-3 in B\n" in apart(printed, err)
    words = ["diff", tmp_path / "a.pt", tmp_path / "same.pt", "--weights", "optimizer", "--weights", "optim"]
    code, printed, err = run(*words)
    assert (code, printed.splitlines()[0]) == (0, "the same arrays") and "(plain numbers)" not in err


def test_states_that_are_chained_otherwise_are_compared(run, tmp_path):
    """optax.chain numbers its parts: a gradient clip ahead of Adam moves them. Under another wrapper that is said."""
    weights = {"params/a": np.ones(3), "params/b": np.ones(2), "step": np.array(4)}
    state = {"count": np.array(4), "mu/a": np.ones(3), "mu/b": np.ones(2), "nu/a": np.ones(3), "nu/b": np.ones(2)}

    def saved(name, place, **changed):
        path = str(tmp_path / f"{name}.npz")
        np.savez(path, **weights, **{place + slot: array for slot, array in {**state, **changed}.items()})
        return path

    one, other = saved("one", "opt_state/1/0/"), saved("other", "opt_state/0/")
    wrapped, trained = (
        saved("wrapped", "opt_state/inner_state/"),
        saved("trained", "opt_state/0/", **{"mu/a": -np.ones(3)}),
    )
    nested = "nest the optimizer's state otherwise"
    for words, arrays in (([], 8), (["--weights", "opt_state"], 5), (["--weights", "opt_state"] * 2, 5)):
        code, printed, err = run("diff", one, other, *words)
        assert (code, printed.splitlines()[0]) == (0, "the same arrays") and f"{arrays} arrays compared" in printed
        assert f"{nested}, and it is compared: opt_state/1/0/count in A is opt_state/0/count in B" in err
        code, printed, _ = run("diff", one, trained, *words)
        assert code == 1 and "opt_state/1/0/mu/a: A=1, B=-1" in printed
    code, _, err = run("diff", one, wrapped, "--weights", "opt_state")
    assert code == 1 and f"{nested}, or it is of other optimizers\n  - A: opt_state/1/0/count, opt_state" in err
    code, printed, err = run("diff", one, wrapped)
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except training state, which is not compared")
    assert run("diff", one, one, "--weights", "opt_state")[2].count("note: ") == 1  # what holds of both files, once


def test_states_of_other_optimizers_are_called_that(run, tmp_path):
    """No Table relates them: one is Adam's and the other SGD's, or they are of two models."""
    ones = np.ones(2, "f4")
    for name, keys in {
        "adam": [f"linear_0.w_0_{slot}_0" for slot in ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")],
        "sgd": ["linear_0.w_0_velocity_0"],
        "later": ["linear_1.w_0_velocity_0"],
    }.items():
        (tmp_path / f"{name}.pdopt").write_bytes(pickle.dumps(dict.fromkeys(keys, ones)))
    for one, other, said in (
        ("adam", "sgd", "adam.pdopt has Adam's two moments, {}/sgd.pdopt has Momentum's arrays\n"),
        (
            "sgd",
            "later",
            "sgd.pdopt has Momentum's arrays, {}/later.pdopt has the same of other parameters, as of",
        ),
    ):
        code, _, err = run("diff", tmp_path / f"{one}.pdopt", tmp_path / f"{other}.pdopt")
        assert code == 1 and said.format(tmp_path) in err, err


def test_moments_of_rounding_are_named_and_accepted_by_an_absolute_difference(run, tmp_path):
    """Moments of a bias without a gradient differ by their own size; second moments are measured by second moments."""
    first, second = np.linspace(-1e-2, 1e-2, 32), np.linspace(1e-9, 1e-7, 32)
    arrays = {"0/exp_avg": first, "0/exp_avg_sq": second, "1/exp_avg": first * 1e-17, "1/exp_avg_sq": second * 1e-30}
    other = {name: array * (1 + 1e-12) for name, array in arrays.items()} | {"1/exp_avg": -arrays["1/exp_avg"]}
    a, b = ({f"optimizer/state/{name}": array for name, array in of.items()} for of in (arrays, other))
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **b)
    pair = ["diff", tmp_path / "a.npz", tmp_path / "b.npz", "--rtol", "1e-9"]
    code, printed, _ = run(*pair)
    assert code == 1
    assert "\n1 array of tiny values, below 1e-8 of the largest in arrays of their kind that differ" in printed
    assert "--atol 3e-19 accepts it\n" in printed  # twice 1e-19, rounded up
    code, printed, _ = run(*pair, "--atol", "3e-19")
    assert code == 0, printed
    verdict, *_, last = printed.splitlines()
    assert verdict == "the same arrays, within a relative difference of 1e-9 or an absolute one of 3e-19"
    assert last.endswith(", 1 more differs by at most 2.0e-19, within --atol 3e-19 (optimizer/state/1/exp_avg)")
    assert run(*pair, "--atol", "1.9e-19")[0] == 1
    larger = {**b, "optimizer/state/0/exp_avg_sq": second * 2}  # small beside the first moments, and no rounding
    np.savez(tmp_path / "b.npz", **larger)
    assert "\n1 array of tiny values" in run(*pair)[1]
    assert run(*pair, "--atol", "3e-19")[0] == 1
    assert [run(*pair[:3], "--atol", atol)[0] for atol in ("-1", "nan", "inf")] == [2, 2, 2]


def grouped(names, groups, path, named=True, rate=1e-3):
    """Save a model of torch with an optimizer whose groups list its parameters in this order, as torch stores it."""
    import torch

    order, count = [name for group, _ in groups for name in group], iter(range(99))
    numbered = [{"params": [next(count) for _ in group], "lr": rate, "weight_decay": decay} for group, decay in groups]
    if named:
        numbered = [{**one, "param_names": list(group)} for one, (group, _) in zip(numbered, groups, strict=True)]
    state = {k: {"exp_avg": torch.full((names.index(n) + 1,), 0.5)} for k, n in enumerate(order)}
    model = {name: torch.ones(k + 1) for k, name in enumerate(names)}
    torch.save({"model": model, "optimizer": {"state": state, "param_groups": numbered}}, path)


@pytest.mark.parametrize("top", [None, "optimizer"])
def test_hyperparameters_count_where_files_are_an_optimizers_state_alone(top, run, tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes the files")
    for name, rate in (("a", 1e-3), ("b", 5e-4)):
        state = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0], "lr": rate}]}
        torch.save({top: state} if top else state, tmp_path / f"{name}.pt")
    code, printed, _ = run("diff", tmp_path / "a.pt", tmp_path / "b.pt")
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value") and "  1e-3  5e-4  " in printed
    code, printed, _ = run("diff", tmp_path / "a.pt", tmp_path / "a.pt")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays")


def test_optimizers_of_torch_are_matched_by_the_names_of_their_parameters(run, tmp_path):
    """A conversion there and back may leave one group where there were two, of weights with decay and of others."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two, other = (tmp_path / f"{name}.pt" for name in ("one", "two", "other"))
    grouped(names, [(names, 0.5)], one)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], two)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], other, named=False)
    for weights in ((), ("--weights", "optimizer")):
        code, printed, err = run("diff", one, two, *weights)
        assert (code, printed.splitlines()[0]) == ONE_APART[bool(weights)]
        what = "the two optimizers number their parameters differently, and are matched by param_names"
        assert f"note: {what}: 1 in A is 2 in B, a.bias\n" in err
        assert "weight_decay of a.bias, b.bias is 0.5 in A, 0.0 in B\n" in apart(printed, err)
        assert "param_groups" not in err, err
        _, _, err = run("diff", one, two, "--weights", "model")
        assert "the two optimizers" not in err  # of arrays that are not compared
        code, printed, err = run("diff", two, other, *weights)
        assert code == 0 and "/param_names (a list" in err and "matched" not in err, (
            err
        )  # set aside, and the order is the same
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], other, rate=9.0)
    code, printed, err = run("diff", two, other, "--weights", "optimizer")
    assert (code, printed.splitlines()[0]) == (1, "different: 2 plain values")
    assert "optimizer/param_groups/{0..1}/lr is 1e-3 in A, 9.0 in B\n" in apart(printed, err)


def test_names_decide_where_one_optimizer_lists_more_parameters_than_the_other(run, tmp_path):
    """As of an optimizer over a filter of the parameters, and one over all of the same model."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    some, every, other, moved = (tmp_path / f"{name}.pt" for name in ("some", "every", "other", "moved"))
    grouped(names, [(names[2:], 0.5)], some)
    grouped(names, [(names, 0.5)], every)
    saved = torch.load(every)
    saved["optimizer"]["state"] = {number: saved["optimizer"]["state"][number] for number in (2, 3)}
    torch.save(saved, every)
    code, printed, err = run("diff", some, every, "--weights", "optimizer", "--weights", "optimizer")
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
    assert printed.endswith("2 arrays compared, every element equal\n"), printed
    assert "matched by param_names: 0 in A is 2 in B, b.weight\n" in err
    assert "parameters of one optimizer alone is none in A, a.bias, a.weight in B\n" in apart(printed, err)
    grouped(names, [(names[1:3], 0.5)], other)  # of as many parameters as `some`, one of which is another
    code, printed, err = run("diff", some, other, "--weights", "optimizer", "--weights", "optimizer")
    assert code == 1 and "most names of their optimizers' parameters are in one file alone: if both" in err, err
    grouped(names, [(["b.weight", "a.bias"], 0.5)], moved)  # at the same numbers
    code, printed, err = run("diff", some, moved, "--weights", "optimizer", "--weights", "optimizer")
    assert code == 1 and "most names of their optimizers' parameters are in one file alone: if both" in err, err


def test_optimizers_of_one_model_in_two_spellings_are_compared_by_number(run, tmp_path):
    pytest.importorskip("torch", reason="torch writes the files")
    one, two, both = tmp_path / "one.pt", tmp_path / "two.pt", ("--weights", "optimizer", "--weights", "optimizer")
    grouped(["a.weight", "norm"], [(["a.weight", "norm"], 0.5)], one)
    grouped(["a.proj.weight", "norm"], [(["a.proj.weight", "norm"], 0.5)], two)
    code, printed, err = run("diff", one, two, *both)
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
    how = "the two optimizers name their parameters differently (a.weight in A is a.proj.weight in B)"
    assert f"note: {how}, and are compared by number, as their param_names are not the same: one" in err, err


@pytest.mark.parametrize("moved", [False, True])
def test_a_hyperparameter_that_one_file_alone_stores_is_a_difference(moved, run, tmp_path):
    """As after a conversion from optax, which stores none. Flags that are off are no hyperparameters of older torch."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    grouped(names, [(names[::-1] if moved else names, 0.5)], one)
    grouped(names, [(names, 0.5)], two)
    saved = torch.load(two)
    (group,) = saved["optimizer"]["param_groups"]
    del group["lr"]
    torch.save({**saved, "optimizer": {**saved["optimizer"], "param_groups": [{**group, "maximize": False}]}}, two)
    code, printed, err = run("diff", one, two, "--weights", "optimizer", "--weights", "optimizer")
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
    name = "lr of b.bias, b.weight, a.bias, a.weight" if moved else "optimizer/param_groups/0/lr"
    assert f"{name} is 1e-3 in A, not stored in B\n" in apart(printed, err)
    code, printed, err = run("diff", two, one, "--weights", "optimizer", "--weights", "optimizer", "--json")
    (entry,) = json.loads(printed)["differences"]
    assert (entry["a"], entry["b"], entry["detail"]) == (None, 1e-3, "not stored and 1e-3")
    assert run("diff", one, two, "--weights", "model")[0] == 0


def test_long_lists_are_told_apart(run, tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes the files")
    numbers = list(range(40))
    for other, shown in (
        (numbers[:-1], ("a list of 40", "a list of 39")),
        ([*numbers[:-1], 9], ("39 at [39]", "9 at [39]")),
    ):
        for name, values in (("a", numbers), ("b", other)):
            torch.save({"model": {"weight": torch.ones(3), "order": values}}, tmp_path / f"{name}.pt")
        code, printed, _ = run("diff", tmp_path / "a.pt", tmp_path / "b.pt", "--weights", "model")
        assert code == 1 and all(text in printed for text in shown), printed


def by_name(path, named):
    """Number the parameters of a saved optimizer by their order in the model, as conversions do."""
    import torch

    saved = torch.load(path)
    groups, state = saved["optimizer"]["param_groups"], saved["optimizer"]["state"]
    order = {name: number for number, name in enumerate(saved["model"])}
    numbers = {number: order[n] for g in groups for number, n in zip(g["params"], g["param_names"], strict=True)}
    groups = [{**group, "params": [numbers[number] for number in group["params"]]} for group in groups]
    groups = groups if named else [{k: v for k, v in group.items() if k != "param_names"} for group in groups]
    state = {numbers[number]: entry for number, entry in state.items()}
    torch.save({**saved, "optimizer": {"state": state, "param_groups": groups}}, path)


@pytest.mark.parametrize("named", [True, False])
def test_optimizers_of_torch_without_names_are_matched_within_groups_of_the_same_sizes(named, run, tmp_path):
    """A conversion numbers parameters in the order of the model, and keeps the groups and the order in each."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], one, named=False)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.25)], two)
    by_name(two, named)
    for weights in ((), ("--weights", "optimizer")):
        code, printed, err = run("diff", one, two, *weights)
        assert (code, printed.splitlines()[0]) == ONE_APART[bool(weights)], err
        silent = "A stores" if named else "A and B store"
        how = "groups of 2 and 2 parameters are matched by the places within each, as a conversion orders them"
        assert f"and {silent} no param_names: {how}: assumed, not known\n" in err
        which = "a.bias, b.bias" if named else "{2..3}"
        assert f"weight_decay of {which} is 0.0 in A, 0.25 in B\n" in apart(printed, err)


@pytest.mark.parametrize("named", [True, False])
def test_groups_that_the_numbers_of_axes_divide_are_matched_with_one_group(named, run, tmp_path):
    """As of timm's two groups without names, and of the one that a conversion to flax and back leaves."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    grouped(names, [(names, 0.5)], one, named=named)
    grouped(names, [(names[1::2], 0.25), (names[::2], 0.5)], two, named=False)
    for path, order in ((one, names), (two, [*names[1::2], *names[::2]])):
        saved = torch.load(path)
        for number, name in enumerate(order):
            moment = torch.arange(3.0) + names.index(name)
            saved["optimizer"]["state"][number] = {"exp_avg": moment if "bias" in name else moment.repeat(2, 1)}
        torch.save(saved, path)
    silent = "B stores" if named else "A and B store"
    how = "groups are matched by the numbers of axes, and by the places within each, as a conversion orders them"
    both = ("--weights", "optimizer", "--weights", "optimizer")
    code, printed, err = run("diff", one, two, *both)
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
    assert f"differently (4 and 2+2), and {silent} no param_names: {how}: assumed, not known\n" in err
    which = "a.bias, b.bias" if named else "{1,3}"
    assert f"weight_decay of {which} is 0.5 in A, 0.25 in B\n" in apart(printed, err)
    code, printed, err = run("diff", two, one, *both)
    assert code == 1 and f"weight_decay of {which} is 0.25 in A, 0.5 in B\n" in apart(printed, err), err
    saved["optimizer"]["state"][0]["exp_avg"] = torch.ones(5)  # of no bias
    torch.save(saved, two)
    code, _, err = run("diff", one, two, *both)
    assert code == 1 and "which of their numbers are of one parameter is not known" in err, err


def test_groups_that_divide_the_order_of_all_parameters_are_matched_with_one_group(run, tmp_path):
    """As of a body and a head with another rate."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    grouped(names, [(names, 0.5)], one)
    grouped(names, [(names[:3], 0.5), (names[3:], 0.25)], two, named=False)
    code, printed, err = run("diff", one, two, "--weights", "optimizer", "--weights", "optimizer")
    assert (code, printed.splitlines()[0]) == (1, "different: 1 plain value"), err
    assert "(4 and 3+1), and B stores no param_names: groups are matched by the order of all parameters, which" in err
    assert "weight_decay of b.bias is 0.5 in A, 0.25 in B\n" in apart(printed, err)


def test_numbers_that_nothing_relates_are_not_compared(run, tmp_path):
    """All parameters have as many axes, and two groups: the order of the numbers is not known."""
    pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias", "b.weight", "b.bias"]
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    grouped(names, [(names, 0.5)], one)
    grouped(names, [(names[::2], 0.5), (names[1::2], 0.0)], other, named=False)
    why = (
        "group their parameters differently (4 and 2+2), and B stores no param_names: which of their numbers are of one"
    )
    code, printed, err = run("diff", one, other)
    assert (code, printed.splitlines()[0]) == (0, "the same arrays, except training state, which is not compared")
    assert f"note: the two optimizers {why} parameter is not known\n" in err, err
    code, printed, err = run("diff", one, other, "--weights", "optimizer")
    assert (
        code == 1 and not printed and f"the two optimizers {why} parameter is not known: docs/training.md, Names" in err
    )
    code, printed, err = run("diff", one, other, "--weights", "model")
    assert (code, printed.splitlines()[0]) == (0, "the same arrays") and "the two optimizers" not in err


def test_averages_of_other_names_are_no_hindrance(run, tmp_path):
    """As of a checkpoint and its way back, where an average lies in `model_ema`: a single one is compared."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    names = ["a.weight", "a.bias"]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    for path, place, wrapper in ((one, "ema", ""), (two, "model_ema", "module.")):
        grouped(names, [(names, 0.5)], path)
        saved = torch.load(path)
        average = {f"{wrapper}{name}": tensor + 1 for name, tensor in saved["model"].items()}
        torch.save({**saved, place: {"n_averaged": torch.tensor(3), **average}}, path)
    code, printed, err = run("diff", one, two)
    assert code == 0 and printed.startswith("the same arrays\n"), err
    assert printed.endswith("7 arrays compared, every element equal\n")
    otherwise = "the two files name the place of an average of the weights otherwise, and it is compared: "
    assert f"note: {otherwise}ema/n_averaged in A is model_ema/n_averaged in B\n" in err
    saved = torch.load(two)
    saved["model_ema"]["module.a.bias"] += 1
    torch.save(saved, two)
    code, printed, _ = run("diff", one, two)
    assert code == 1 and "ema/a.bias" in printed and printed.endswith("7 arrays compared, 1 differs\n"), printed
    torch.save({**saved, "ema": saved["model_ema"]}, two)  # two averages, of which none is known to be the one of A
    code, printed, err = run("diff", one, two)
    assert code == 0 and printed.startswith("the same arrays, except a copy of the weights, which is not compared\n")
    assert (
        f"{one}: set aside ema/n_averaged" in err
        and ", a copy of the weights of which not all names are in both" in err
    )
    del saved["model_ema"]["n_averaged"]
    torch.save(saved, two)
    code, printed, err = run("diff", one, two)
    assert code == 1 and "ema/a.bias" in printed and printed.endswith("6 arrays compared, 1 differs\n"), printed
    assert "note: set aside ema/n_averaged, as one file alone says how often it was averaged\n" in err
    saved["model_ema"]["module.a.bias"] -= 1
    torch.save(saved, two)
    averaged = "how often it was averaged, which one file does not store"
    assert run("diff", one, two)[1].startswith(f"the same arrays, except {averaged}\n")
    code, printed, err = run("diff", one, two, "--weights", "/")  # where a training does not go on alike from both
    assert code == 1 and "arrays only in A\n    ema/n_averaged\n" in printed, err
    grouped(names, [(names, 0.5)], two)
    saved = torch.load(two)
    saved["model"]["a.bias"] += 1
    torch.save({**saved, "model_ema": {f"module.{name}": tensor for name, tensor in saved["model"].items()}}, two)
    code, printed, _ = run("diff", one, two)
    assert code == 1 and "a.bias" in printed


def test_the_counts_of_two_averages_are_compared(run, tmp_path):
    """At a count of 0 the next average copies the weights: two averages of other counts do not go on alike."""
    torch = pytest.importorskip("torch", reason="torch writes the files")
    path, config = trained_mixer(tmp_path)
    saved = torch.load(path)
    average = {f"module.{name}": tensor + 1 for name, tensor in saved["model"].items()}
    for name, count in (
        ("five", {"n_averaged": torch.tensor(5)}),
        ("six", {"n_averaged": torch.tensor(6)}),
        ("none", {}),
    ):
        torch.save({**saved, "model_ema": {**count, **average}}, tmp_path / f"{name}.pt")

    def compared(a, b, *words):
        options = ("--weights", "model_ema", "--config", config, *words)
        return run("diff", tmp_path / f"{a}.pt", tmp_path / f"{b}.pt", *options)

    code, printed, err = compared("five", "five")
    assert code == 0 and printed.startswith("the same model\n") and "agree: model_ema/n_averaged=5\n" in err, err
    code, printed, err = compared("five", "six", "--json")
    (entry,) = json.loads(printed)["differences"]
    assert code == 1 and (entry["setting"], entry["a"], entry["b"]) == ("model_ema/n_averaged", 5, 6), err
    lacking = "the same model, except how often it was averaged, which one file does not store\n"
    for pair in (("five", "none"), ("none", "five")):
        code, printed, err = compared(*pair)
        assert code == 0 and printed.startswith(lacking), err
    assert compared("none", "none")[1].startswith("the same model\n")


def test_the_comparison_of_two_models_says_that_their_optimizers_are_not_compared(run, tmp_path):
    needs("torch")
    path, config = trained_mixer(tmp_path)
    code, _, err = run("diff", path, path, "--config", config)
    said = (
        "note: the states and hyperparameters of the optimizers are not compared: --weights optimizer compares them, "
    )
    said += "--weights / all parts of files that are laid out alike\n"
    assert code == 0 and said in err and "param_groups" not in err, err  # which "optimizer/ 54 arrays" stands for
    there = tmp_path / "there.msgpack"
    assert run("torch2flax", path, "-o", there, "--with-optimizer", "--config", config)[0] == 0
    code, _, err = run("diff", path, there, "--config", config)
    assert code == 0 and "of the optimizers" not in err, err  # of two libraries, which no --weights compares
    code, _, err = run("diff", path, there, "--weights", "optimizer", "--weights", "opt_state")
    what = "the optimizer's state is torch's in one file, optax's in the other: convert one with its weights by"
    assert code == 1 and f"{path} and {there}: {what} --with-optimizer to the other's framework" in err


def test_the_state_of_an_optimizer_is_not_compared_with_anything_else(run, tmp_path):
    """A Table would not help: the error says what each file is, also where only one is a state."""
    needs("torch")
    import torch

    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    ours, theirs, weights = (tmp_path / name for name in ("o.pt", "o.pdopt", "w.pt"))
    torch.save(optimizer.state_dict(), ours)
    torch.save(model.state_dict(), weights)
    arrays = {f"linear_0.w_0_moment{k}_0": np.ones((4, 3), "f4") for k in (1, 2)}
    theirs.write_bytes(pickle.dumps({**arrays, "LR_Scheduler": {"last_epoch": 1}}, protocol=4))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, both := tmp_path / "both.pt")
    for other, parts in ((ours, []), (both, ["--weights", "/", "--weights", "optimizer"])):
        code, _, err = run("diff", theirs, other, *parts)
        two = f"{theirs} and {other}: the optimizer's state is paddle's in one file, torch's in the other: convert one"
        assert code == 1 and two in err and "--table" not in err, err
    for pair in ((theirs, weights), (weights, ours)):
        code, _, err = run("diff", *pair)
        state = next(path for path in pair if path != weights)
        said = f"{state} is the state of an optimizer alone, and {weights} is not: give two files of weights"
        assert code == 1 and said in err and "--table" not in err, err
