"""What `inspect` calls parameters of a model of no known architecture, and in which order it lists arrays."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file


def test_statistics_and_counters_are_no_parameters(run, tmp_path):
    arrays = {
        "conv.weight": np.zeros((4, 3, 3, 3), "f4"),
        "bn.weight": np.ones(4, "f4"),
        "bn.running_mean": np.zeros(4, "f4"),
        "bn.running_var": np.ones(4, "f4"),
        "bn.num_batches_tracked": np.array(3),
        "attention.mask": np.ones((2, 3), bool),
        "pool.mean": np.zeros(5, "f4"),  # no variance stands beside it, so that this may be a parameter
    }
    save_file(arrays, tmp_path / "x.safetensors")
    about = json.loads(run("inspect", tmp_path / "x.safetensors", "--json")[1])
    assert (about["parameters"], about["statistics"], about["masks"], about["named"]) == (108 + 4 + 5, 9, 6, True)
    printed = run("inspect", tmp_path / "x.safetensors")[1]
    others = ["and 9 elements of running statistics and counters", "and 6 elements of masks, of bool"]
    assert "\n              ".join(["parameters:   117", *others]) + "\n" in printed


def test_whole_numbers_that_count_nothing_are_integer_buffers(run, tmp_path):
    positions = {
        "emb.weight": np.zeros((7, 2), "f4"),
        "position_ids": np.arange(20),
        "num_batches_tracked": np.array(3),
    }
    save_file(positions, tmp_path / "x.safetensors")
    printed = run("inspect", tmp_path / "x.safetensors")[1]
    others = ["and 1 element of running statistics and counters", "and 20 elements of integer buffers"]
    assert "\n              ".join(["parameters:   14", *others]) + "\n" in printed, printed


def test_arrays_of_other_names_are_called_elements(run, tmp_path):
    save_file({"a": np.zeros((3, 4), "f4"), "b": np.zeros(3, "f4")}, tmp_path / "x.safetensors")
    assert "elements:     15\n" in run("inspect", tmp_path / "x.safetensors")[1]


def test_tied_arrays_are_counted_once(run, tmp_path):
    """The head of a language model is its embedding: torch stores the elements once, under two names."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    table = torch.zeros(7, 2)
    state = {"wte.weight": table, "ln.bias": torch.zeros(2), "head.weight": table}
    torch.save({"model": state, "best": torch.tensor(1.5)}, tmp_path / "x.pt")
    about = json.loads(run("inspect", tmp_path / "x.pt", "--json")[1])
    assert len(about["tensors"]) == 4 and about["parameters"] == 17


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["a.1.w", "a.10.w", "a.2.w"], ["a.1.w", "a.2.w", "a.10.w"]),
        (["stem", "a.2.w", "a.10.w"], ["stem", "a.2.w", "a.10.w"]),
        (["a.10.w", "a.2.w", "a.1.w", "stem"], ["a.10.w", "a.2.w", "a.1.w", "stem"]),  # of the model, not alphabetical
    ],
)
def test_inspect_lists_numbers_as_numbers_where_a_file_sorts_names(names, listed, run, tmp_path):
    np.savez(tmp_path / "x.npz", **{name: np.ones(n + 1, "f4") for n, name in enumerate(names)})
    out = run("inspect", tmp_path / "x.npz")[1]
    assert [line.split()[-1] for line in out.splitlines() if line.split()[-1] in names] == listed, out
