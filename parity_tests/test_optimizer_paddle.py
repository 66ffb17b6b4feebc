"""paddle's own names of parameters, by which its optimizer's moments are found: in two files, and on the way back."""

import pickle

import numpy as np
import pytest

from convert.files import open_checkpoint

from .conftest import needs
from .optimizing import trained_mixer

OPTIMIZER = "--with-optimizer"
TABLE = "StructuredToParameterName@@"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny Mixer after 3 steps of torch's AdamW, and its configuration."""
    needs("torch")
    return trained_mixer(tmp_path_factory.mktemp("mixer"))


@pytest.fixture
def new(trained, run, tmp_path):
    """A new model as paddle saves it: paddle calls the parameters of `names` by their numbers."""
    file, config = trained
    assert run("torch2paddle", file, "--config", config, "-o", tmp_path / "arrays.pdparams")[0] == 0

    def save(name, first=0, names=True):
        with open_checkpoint(tmp_path / "arrays.pdparams") as reader:
            weights = {t.name: np.zeros(t.shape, t.dtype) for t in reader.tensors.values()}
        own = {TABLE: {weight: f"layer_{first + k}.w_0" for k, weight in enumerate(weights)}} if names else {}
        (tmp_path / name).write_bytes(pickle.dumps({**weights, **own}))
        return tmp_path / name

    return save


def test_weights_and_optimizer_in_two_files_come_back(trained, new, run, tmp_path):
    """No paddle process writes either; the record of the .pdopt says what paddle's files do not."""
    file, config = trained
    like = ["--like", new("new.pdparams")]
    assert run("torch2paddle", file, "--config", config, *like, "-o", tmp_path / "x.pdparams")[0] == 0
    code, printed, _ = run("torch2paddle", file, "--config", config, *like, OPTIMIZER, "-o", tmp_path / "x.pdopt")
    assert code == 0 and "x.pdopt (format pdopt, " in printed
    assert run("inspect", tmp_path / "x.pdopt")[1].startswith("format:       pdopt\n")
    with open_checkpoint(tmp_path / "x.pdparams") as reader:
        assert set(reader.parameter_names.values()) == {f"layer_{k}.w_0" for k in range(len(reader.tensors))}
    code, _, err = run("paddle2torch", tmp_path / "x.pdparams", OPTIMIZER, "-o", tmp_path / "x.pt")
    assert code == 0 and "from the record: lr=0.0009765625, eps=0.001953125, weight_decay=0.125, kind=adamw" in err, err
    for part in ("model", "optimizer"):
        code, printed, _ = run(
            "diff", file, tmp_path / "x.pt", "--weights", part, "--weights", part, "--config", config
        )
        assert (code, "every element equal" in printed) == (0, True), printed


def test_names_for_weights_alone_are_paddles(trained, new, run, tmp_path):
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    code, _, err = run("torch2flax", file, *words, "-o", tmp_path / "x.msgpack")
    assert code == 2 and "or is of the state of an optimizer: add --with-optimizer" in err, err
    code, _, err = run("torch2paddle", file, *words, "-o", tmp_path / "x.safetensors")
    assert code == 2 and "nor paddle's own names of them" in err, err
    words = ["--config", config, "--like", new("numpy.pdparams", names=False)]
    for more in ([], [OPTIMIZER]):
        code, _, err = run("torch2paddle", file, *words, *more, "-o", tmp_path / "x.pdparams")
        assert code == 2 and "numpy.pdparams: --like: has no names of paddle's own (linear_0.w_0)" in err, err


def test_moments_of_other_names_are_another_models(trained, new, run, tmp_path):
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    assert run("torch2paddle", file, *words, OPTIMIZER, "-o", tmp_path / "x.pdopt")[0] == 0
    words = [OPTIMIZER, "--optimizer", tmp_path / "x.pdopt", "--config", config, "-o", tmp_path / "x.pt"]
    code, _, err = run("paddle2torch", new("later.pdparams", first=1), *words)
    assert code == 1, err
    assert "which parameters are layer_0.w_0? the weights without moments are layer_" in err, err
    assert "the optimizer is another model's, or of another process: convert the .pdparams that paddle.save(" in err
    code, _, err = run("paddle2torch", new("nameless.pdparams", names=False), *words)
    assert code == 1 and "the weights have no names of paddle's: " in err and "--like new.pdparams" in err, err


def test_from_paddle_to_paddle_names_stay(trained, new, run, tmp_path):
    """As where only the dtype changes: no new model is asked for, as the source has the names."""
    file, config = trained
    words = ["--config", config, "--like", new("new.pdparams")]
    assert run("torch2paddle", file, *words, OPTIMIZER, "-o", tmp_path / "x.pdparams")[0] == 0
    words = [OPTIMIZER, "--dtype", "float32", "-o", tmp_path / "y.pdparams"]
    code, _, err = run("paddle2paddle", tmp_path / "x.pdparams", *words)
    assert code == 0, err
    with open_checkpoint(tmp_path / "x.pdparams") as one, open_checkpoint(tmp_path / "y.pdparams") as other:
        assert one.parameter_names == other.parameter_names != {}
        assert one.tensors.keys() == other.tensors.keys()
