"""Arrays whose shapes say nothing of their layout, as all are square: what else shows it, and what is asked for."""

import json
import pickle

import pytest

import specs

from .test_routes import SQUARE, write_numbers


def test_timm_names_in_paddles_layout(run, tmp_path):
    """PASSL's backbone saved alone: its format tells, and where none does, its shapes; a wrong source is told."""
    spec = specs.get("mlp_mixer")
    for suffix in ("pdparams", "safetensors"):
        path = tmp_path / f"a.{suffix}"
        write_numbers(path, "mlp_mixer", next(iter(spec.tiny.values())), "passl_backbone")
        assert json.loads(run("inspect", path, "--json")[1])["dialect"] == "passl_backbone"
        code, _, err = run("timm2torch", path, "-o", tmp_path / "x.safetensors")
        assert code == 1
        assert "every array fits as passl_backbone: use passl_backbone2torch" in err
    write_numbers(tmp_path / "square.pdparams", "mlp_mixer", spec.config(**SQUARE["mlp_mixer"]), "passl_backbone")
    assert "reads alike as passl_backbone, timm: say which" in run("inspect", tmp_path / "square.pdparams")[1]


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt", "pdparams"])
def test_what_reads_alike_is_asked_for(suffix, run, tmp_path):
    """Square arrays without a record fit torch and paddle alike, and no format is a framework's own for certain."""
    square = tmp_path / f"square.{suffix}"
    write_numbers(square, "mlp_mixer", specs.get("mlp_mixer").config(**SQUARE["mlp_mixer"]), "torch")
    _, printed, _ = run("inspect", square)
    assert (
        "reads alike as paddle, torch: say which it is, as in torch2torch; inspect and diff read what that" in printed
    )
    assert run("paddle2torch", square, "-o", tmp_path / "x.safetensors", "--assume")[0] == 0
    code, _, err = run("diff", tmp_path / "x.safetensors", square, "--assume")
    assert code == 2 and "reads alike as paddle, torch: say which it is, as in " in err
    same = tmp_path / f"same.{suffix}"
    assert run("paddle2paddle", square, "-o", same, "--assume")[0] == 0
    assert "dialect:      paddle\n" in run("inspect", same)[1]
    assert run("diff", tmp_path / "x.safetensors", same, "--assume")[0] == 0


def test_paddles_own_names_of_square_arrays_say_whose_they_are(run, tmp_path):
    square = tmp_path / "square.pdparams"
    write_numbers(square, "mlp_mixer", specs.get("mlp_mixer").config(**SQUARE["mlp_mixer"]), "torch")
    arrays = pickle.loads(square.read_bytes())
    own = {name: f"linear_{k}.w_0" for k, name in enumerate(arrays)}
    square.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": own}))
    printed = run("inspect", square)[1]
    assert "dialect:      paddle\n" in printed and "fit torch" not in printed, printed
    assert run("paddle2torch", square, "-o", tmp_path / "x.pt", "--assume")[0] == 0
    assert run("diff", tmp_path / "x.pt", square, "--assume")[0] == 0
    code, _, err = run("torch2paddle", square, "-o", tmp_path / "y.pdparams", "--assume")
    assert code == 0 and "warning: the arrays of this pdparams file fit torch, a dialect of torch, but they have" in err
