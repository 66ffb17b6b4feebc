"""Folders and paths as training programs leave them: one way of looking into them, for all commands."""

import json
import os
import shutil

import pytest

import convert
import ports
from convert.__main__ import main
from convert.config.settings import read_config
from convert.errors import ConvertError, FormatError, UsageError
from convert.files import inside, open_checkpoint
from convert.files.inside import look
from convert.records.verification import verify

from .commands import GOOGLE, TIMM
from .conftest import needs
from .files.harm import soon
from .test_parts import arrays, save, under


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Small files of one model, to copy."""
    folder = tmp_path_factory.mktemp("model")
    for suffix in ("safetensors", "bin", "pdparams", "msgpack"):
        assert main(["timm2timm", str(TIMM), "-o", str(folder / f"m.{suffix}")]) == 0
        (folder / f"m.{suffix}.json").unlink(missing_ok=True)
    return folder


def fill(root, model, paths):
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix in (".safetensors", ".bin", ".pdparams", ".msgpack"):
            shutil.copy(model / f"m{target.suffix}", target)
        elif target.suffix in (".ckpt", ".pt", ".pth", ".tar", ".distcp"):
            shutil.copy(model / "m.bin", target)
        elif target.suffix == ".index":
            target.mkdir()
        elif "checkpoint" in target.name or target.name.isdigit():
            shutil.copy(model / "m.msgpack", target)
        else:
            target.write_bytes(b"{}")


TAKEN = {  # entries of a folder, and the one that is meant
    "steps": (["1/state.pt", "2/state.pt", "10/state.pt"], "10/state.pt"),
    "flax": (["checkpoint_2", "checkpoint_12"], "checkpoint_12"),
    "trainer": (["checkpoint-500/model.safetensors", "checkpoint-500/optimizer.pt", "checkpoint-1000/model.safetensors",
                 "checkpoint-1000/scheduler.pt"], "checkpoint-1000/model.safetensors"),
    "hugging face": (["config.json", "model.safetensors", "pytorch_model.bin", "training_args.bin"],
                     "model.safetensors"),
    "hugging face, torch": (["config.json", "pytorch_model.bin", "flax_model.msgpack"], "pytorch_model.bin"),
    "lightning": (["epoch=0-step=5.ckpt", "epoch=1-step=10.ckpt", "last.ckpt"], "last.ckpt"),
    "lightning, no last": (["checkpoints/epoch=0-step=95.ckpt", "checkpoints/epoch=1-step=190.ckpt"],
                           "checkpoints/epoch=1-step=190.ckpt"),
    "paddle": (["best_model/model.pdparams", "best_model/model.pdopt", "epoch_1/model.pdparams"],
               "best_model/model.pdparams"),
    "orbax, step_prefix": ([f"ck_{step}/{file}" for step in ("000003", "000012")
                            for file in ("default/checkpoint", "_CHECKPOINT_METADATA")], "ck_000012"),
    "fairseq": (["checkpoint1.pt", "checkpoint_best.pt", "checkpoint_last.pt"], "checkpoint_last.pt"),
    "items": (["7/params.pt", "7/opt_state.pt", "7/commit_success.txt"], "7/params.pt"),
    "deepspeed": (["latest", "zero_to_fp32.py", "global_step9/mp_rank_00_model_states.pt",
                   "global_step10/mp_rank_00_model_states.pt",
                   "global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt",
                   "global_step10/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"],
                  "global_step10/mp_rank_00_model_states.pt"),
    "accelerate": (["checkpoint_0/model.safetensors", "checkpoint_1/model.safetensors", "checkpoint_1/optimizer.bin",
                    "checkpoint_1/sampler.bin", "checkpoint_1/custom_checkpoint_0.bin", "checkpoint_1/scaler.pt"],
                   "checkpoint_1/model.safetensors"),
    "accelerate, fsdp": (["pytorch_model_fsdp_0/a.pt", "optimizer_0/a.pt"], "pytorch_model_fsdp_0/a.pt"),
    "numbered otherwise": (["step_9/m.pt", "step_10/m.pt"], "step_10/m.pt"),
    "megatron": (["iter_0000100/mp_rank_00/model_optim_rng.pt", "iter_0000200/mp_rank_00/model_optim_rng.pt"],
                 "iter_0000200/mp_rank_00/model_optim_rng.pt"),
    "timm": (["last.pth.tar", "checkpoint-3.pth.tar", "model_best.pth.tar", "args.yaml"], "last.pth.tar"),
    "mmengine": (["epoch_9.pth", "epoch_10.pth", "best_acc_epoch_9.pth", "last_checkpoint"], "epoch_10.pth"),
    "paddleclas": (["best_model.pdparams", "epoch_1.pdparams", "latest.pdparams", "latest.pdopt"], "latest.pdparams"),
    "items and averages": (["3/net.pt", "3/net_ema.pt", "3/tx.pt", "3/train_iterator.pt"], "3/net.pt"),
    "hub": (["blobs/x", "refs/main", "snapshots/abc/model.safetensors"], "snapshots/abc/model.safetensors"),
    "items and a state": (["3/model.pt", "3/state.pt", "3/ema.pt"], "3/model.pt"),
    "unfinished": (["3/state.pt", "4.orbax-checkpoint-tmp-1/state.pt"], "3/state.pt"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_the_checkpoint_that_is_meant(case, model, tmp_path, run):
    """By every command, which say so and name what else is there."""
    entries, meant = TAKEN[case]
    root = tmp_path / "run"
    fill(root, model, entries)
    found = look(str(root))
    assert found.path == str(root / meant)
    top = meant.partition("/")[0]
    others = {entry.partition("/")[0] for entry in entries} - {top}
    assert all(name in found.notes[0] for name in others)
    assert "set aside" not in found.notes[0]  # an optimizer's file beside it may be read all the same
    with convert.plan(root, dst="timm") as plan:
        assert plan.reader.path == found.path and found.notes[0] in plan.notes()
    code, out, _ = run("inspect", root)
    assert code == 0 and f"took {top} of {root}" in out
    code, out, _ = run("timm2timm", root, "-o", tmp_path / "x.pt")
    assert code == 0 and meant in out
    assert run("diff", root, TIMM)[0] == 0


def test_a_step_is_chosen_by_its_number(model, tmp_path, run):
    fill(tmp_path, model, ["run/1/state.pt", "run/2/state.pt", "run/12/state.pt"])
    assert look(str(tmp_path / "run"), 2).path.endswith("run/2/state.pt")
    code, out, _ = run("timm2timm", tmp_path / "run", "-o", tmp_path / "x.pt", "--step", "1")
    assert code == 0 and "run/1/state.pt" in out
    code, _, err = run("inspect", tmp_path / "run", "--step", "3")
    assert code == 2 and "has the steps 1, 2, 12" in err
    with pytest.raises(UsageError, match="no numbered steps"):
        look(str(tmp_path / "run" / "1"), 5)
    with pytest.raises(UsageError, match="is one checkpoint"):
        look(str(tmp_path / "x.pt"), 5)


NEWEST = {  # names with several numbers, the newest last; None: their numbers may be read in two ways
    "epoch=9-val_loss=0.12.ckpt epoch=10-val_loss=0.09.ckpt": (9, 10),
    "epoch=9-step=1000-val_loss=0.25.ckpt epoch=10-step=1100-val_loss=0.1.ckpt": (1000, 1100),
    "mnist-epoch=01-val_loss=0.45.ckpt mnist-epoch=02-val_loss=1e-05.ckpt": (1, 2),
    "ckpt_epoch9_acc92.7.pth ckpt_epoch10_acc91.2.pth": (9, 10),
    "epoch=4-val_top1=50.ckpt epoch=5-val_top1=20.ckpt": (4, 5),
    "checkpoint_1_5000.pt checkpoint_2_10000.pt": (5000, 10000),
    "checkpoint-9.pth.tar checkpoint-10.pth.tar": (9, 10),
    "epoch_9_step_900.pt epoch_10_step_5.pt": None,
    "model-epoch9-fold2.pt model-epoch10-fold1.pt": None,
    "epoch=9-val_loss=0.12.ckpt epoch=9-val_loss=0.2.ckpt": None,
}


@pytest.mark.parametrize("names", NEWEST)
def test_numbers_of_a_metric_are_no_steps(names, model, tmp_path):
    entries = names.split()
    fill(tmp_path, model, entries)
    if NEWEST[names] is None:
        with pytest.raises(FormatError, match=f"several checkpoints: .*{entries[0]}"):
            look(str(tmp_path))
        return
    assert look(str(tmp_path)).path == str(tmp_path / entries[-1])
    for step, entry in zip(NEWEST[names], entries, strict=True):
        assert look(str(tmp_path), step).path == str(tmp_path / entry)


def test_a_step_of_several_checkpoints_is_asked_for_by_name(model, tmp_path):
    fill(tmp_path, model, ["epoch=9-val_loss=0.12.ckpt", "epoch=9-val_loss=0.2.ckpt"])
    with pytest.raises(FormatError, match=r"several checkpoints of step 9: epoch=9-val_loss=0\.12\.ckpt, "):
        look(str(tmp_path), 9)


POINTED = {  # a file that names a checkpoint, its text, the entries, and the one that it names
    "latest": ("global_step5", ["global_step5/m.pt", "global_step10/m.pt"], "global_step5/m.pt"),
    "latest ": ("5", ["5/m.pt", "10/m.pt"], "5/m.pt"),
    "last_checkpoint": ("/old/work/epoch_9.pth", ["epoch_9.pth", "epoch_10.pth"], "epoch_9.pth"),
    "latest_checkpointed_iteration.txt": ("5\n", ["iter_0000005/m.pt", "iter_0000010/m.pt"], "iter_0000005/m.pt"),
    "checkpoint": ('model_checkpoint_path: "checkpoint_5"\n', ["checkpoint_5", "checkpoint_10"], "checkpoint_5"),
}


@pytest.mark.parametrize("file", POINTED)
def test_the_checkpoint_that_a_folder_s_own_file_names_is_taken(file, model, tmp_path):
    """As its program would resume from it, after a return to an earlier step."""
    text, entries, meant = POINTED[file]
    fill(tmp_path, model, entries)
    file = file.strip()
    (tmp_path / file).write_text(text)
    found, top = look(str(tmp_path)), meant.partition("/")[0]
    assert found.path == str(tmp_path / meant)
    assert f"{tmp_path / file} names {top}, and not {entries[1].partition('/')[0]}" in found.notes
    assert look(str(tmp_path), 10).path == str(tmp_path / entries[1])
    (tmp_path / file).write_text(text.replace("5", "7").replace("9", "7"))
    found = look(str(tmp_path))
    assert found.path == str(tmp_path / entries[1])
    assert any("which is no checkpoint here" in note for note in found.notes)


def test_a_later_step_that_is_not_complete_is_named(model, tmp_path, run):
    """As where saving was interrupted: the step before it is taken."""
    fill(tmp_path, model, ["run/8/default/state.pt", "run/9/default/state.pt"])
    (tmp_path / "run" / "10" / "default.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "run" / "2").mkdir()
    _, out, _ = run("inspect", tmp_path / "run")
    assert "took 9 of " in out and "passed over 10: it holds no complete checkpoint" in out
    _, out, _ = run("inspect", tmp_path / "run", "--step", "8")
    assert "took 8 of " in out and "passed over" not in out


def test_several_models_inside_are_listed(model, tmp_path, run):
    """By the folder in which they lie; parts of one model are no models."""
    fill(tmp_path, model, ["run/3/generator.pt", "run/3/discriminator.pt"])
    for words in (["inspect"], ["timm2timm"], ["verify"], ["diff", TIMM]):
        code, _, err = run(*words, tmp_path / "run")
        assert code == 1 and f"{tmp_path}/run/3: is a folder of several checkpoints: discriminator.pt, generator" in err
    fill(tmp_path, model, ["zero/global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt"])
    code, _, err = run("timm2timm", tmp_path / "zero")
    assert code == 1 and "python zero_to_fp32.py . joined" in err


def test_shards_without_their_index_are_refused(model, tmp_path, run):
    fill(tmp_path, model, [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)])
    for words in (["inspect"], ["timm2timm"]):
        code, _, err = run(*words, tmp_path)
        assert code == 1 and "and lacks model.safetensors.index.json (download it too)" in err


PARTS = {  # files of one model that several processes divide
    "deepspeed": ("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"),
    "megatron": ("mp_rank_00/model_optim_rng.pt", "mp_rank_01/model_optim_rng.pt"),
    "pipeline": ("mp_rank_00_000/model_optim_rng.pt", "mp_rank_00_001/model_optim_rng.pt"),
    "llama": ("consolidated.00.pth", "consolidated.01.pth"),
    "torch": ("shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors"),
    "paddlenlp": ("model_state.tp00.pdparams", "model_state.tp01.pdparams"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_of_a_divided_model_is_refused(case, model, tmp_path, run):
    """Halves of layers are a smaller model, which fits: the names of the files alone tell. One part alone is read."""
    first, second = PARTS[case]
    fill(tmp_path, model, [f"run/{first}", f"run/{second}", f"alone/{first}"])
    for one, other in ((first, second), (second, first)):
        code, out, err = run("timm2timm", tmp_path / "run" / one, "-o", tmp_path / "x.pt")
        said = f"is named as a part of a model that several processes divide; other parts: {other}"
        assert (code, out) == (1, "") and said in err
    for words in (["inspect"], ["timm2timm"]):
        code, _, err = run(*words, tmp_path / "run")
        assert code == 1 and "holds parts of a model that several processes divide: " in err
    assert run("timm2timm", tmp_path / "alone" / first, "-o", tmp_path / "x.pt")[0] == 0


def test_a_distributed_checkpoint_of_paddle_is_refused(model, tmp_path, run):
    """Each process writes a file of its own, which is a pickle as any other."""
    fill(tmp_path, model, ["run/0_0.distcp", "run/1_0.distcp", "run/0.metadata", "alone/0_0.distcp"])
    for folder in ("run", "alone"):
        for words in (["inspect"], ["timm2timm"]):
            code, _, err = run(*words, tmp_path / folder)
            assert code == 1 and "holds a distributed checkpoint of paddle (in paddle fill state = " in err, err
    code, _, err = run("timm2timm", tmp_path / "run" / "1_0.distcp", "-o", tmp_path / "x.pt")
    assert code == 1 and "that several processes divide; other parts: 0_0.distcp" in err, err
    missing = tmp_path / "nowhere" / "0_0.distcp"
    assert run("inspect", missing)[::2] == (
        2,
        f"python -m convert: {missing}: there is no such file (check the path)\n",
    )
    code, _, err = run("timm2timm", tmp_path / "alone" / "0_0.distcp", "-o", tmp_path / "x.pt")
    assert code == 0, err


def test_a_file_of_one_of_several_processes_is_doubted(model, tmp_path, run):
    """It has a part of the model, or all; numbers that do not begin at 0 are others, as the rank of an adapter."""
    fill(tmp_path, model, ["m_rank0.pt", "m_rank1.pt", "lora_rank8.pt", "lora_rank16.pt"])
    code, _, err = run("timm2timm", tmp_path / "m_rank1.pt", "-o", tmp_path / "x.pt")
    assert code == 0 and "warning: " in err and "as is m_rank0.pt: if each has a part of the model, join them" in err
    code, _, err = run("timm2timm", tmp_path / "lora_rank8.pt", "-o", tmp_path / "y.pt")
    assert code == 0 and "process" not in err


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A run of two steps, each with its record and an optimizer's state, and a third one beside it."""
    root = tmp_path_factory.mktemp("steps")
    for folder in ("run/checkpoint-5", "run/checkpoint-10", "."):
        (root / folder).mkdir(parents=True, exist_ok=True)
        assert main(["timm2timm", str(TIMM), "-o", str(root / folder / "model.safetensors")]) == 0
    shutil.copy(TIMM, root / "run" / "checkpoint-5" / "optimizer.pt")
    return root


PATHS = {  # of a user, and an option -> what is meant
    "run": ("", "run/checkpoint-10/model.safetensors"), "run/": ("", "run/checkpoint-10/model.safetensors"),
    "run -": ("5", "run/checkpoint-5/model.safetensors"),
    "run/checkpoint-5": ("", "run/checkpoint-5/model.safetensors"),
    "model": ("", "model.safetensors"), "run/checkpoint-10/model": ("", "run/checkpoint-10/model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_all_commands_find_the_same_checkpoint(path, steps, tmp_path, run, capsys):
    from parity.given.targets import targets

    number, meant = PATHS[path]
    options = ["--step", number] if number else []
    step, given, meant = int(number) if number else None, steps / path.removesuffix(" -"), str(steps / meant)
    printed = {
        "inspect": run("inspect", given, *options),
        "verify": run("verify", given, *options),
        "diff": run("diff", given, TIMM, *options),
        "convert": run("timm2timm", given, "-o", tmp_path / "x.pt", *options),
    }
    for command, (code, out, err) in printed.items():
        note = f"took {meant.rpartition('/')[2]} of" if given.is_dir() else f"names {meant}"
        assert code == 0 and note in out + err, command
    with convert.plan(given, src="timm", dst="torch", step=step) as plan:
        assert plan.reader.path == meant
    assert [target.path for target in targets(str(given), src="timm", step=step)] == [meant]
    assert "took" in capsys.readouterr().err or not given.is_dir()
    assert verify(str(given)).problems == []
    assert read_config(str(given)).architecture == "mlp_mixer"


def test_a_step_is_loaded_and_a_wrong_one_refused(steps, run, capsys):
    needs("torch")
    from parity.given.targets import targets

    with pytest.warns(UserWarning, match="took checkpoint-5"):
        assert ports.load(str(steps / "run"), "torch", step=5).architecture == "mlp_mixer"
    with pytest.raises(UsageError, match=r"step=7: .*run has the steps 5, 10"):
        ports.load(str(steps / "run"), "torch", step=7)
    with pytest.raises(UsageError, match="mlp_mixer is an architecture"):
        list(targets("mlp_mixer", step=7))
    run_, file = str(steps / "run"), str(steps / "model.safetensors")
    for words, message in (
        (["diff", file, file, "--step", "5"], "are no folders of steps"),
        (["diff", run_, file, "--step", "5", "--step", "5"], "is one checkpoint, not a folder of steps"),
        (["diff", run_, run_, *["--step", "5"] * 3], "3 steps of 2 checkpoints"),
        (["verify", run_, "--step", "6"], "--step 6: " + run_ + " has the steps 5, 10"),
        (["verify", file, "--step", "6"], "is one checkpoint"),
    ):
        code, _, err = run(*words)
        assert code == 2 and message in err, words
    assert run("diff", run_, run_, "--step", "5", "--step", "10")[0] == 0


def test_several_models_are_listed_and_all_converted(model, tmp_path, run):
    fill(tmp_path, model, ["in/a.pt", "in/b.safetensors"])
    code, _, err = run("inspect", tmp_path / "in")
    assert code == 1 and "several checkpoints: a.pt, b.safetensors" in err
    (tmp_path / "out").mkdir()
    code, out, _ = run("timm2timm", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0 and "2 of 2 converted" in out
    for words in (["inspect"], ["timm2timm"]):  # folders with models are no files to convert each
        fill(tmp_path, model, ["runs/seed1/m.pt", "runs/seed2/m.pt"])
        code, _, err = run(*words, tmp_path / "runs")
        assert code == 1 and "runs: is a folder of several checkpoints: seed1, seed2 (give one of them)" in err


def test_what_timm_s_config_says_is_reported(model, tmp_path):
    fill(tmp_path, model, ["run/model.safetensors"])
    (tmp_path / "run/config.json").write_text(json.dumps({"architecture": "mixer_b16_224", "num_classes": 7}))
    assert "config.json says: architecture=mixer_b16_224 num_classes=7" in look(str(tmp_path / "run")).notes


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_a_path_without_its_suffix(suffix, model, tmp_path, run):
    fill(tmp_path, model, [f"best_model{suffix}"])
    (tmp_path / "best_model.pdopt").write_bytes(b"")
    code, out, _ = run("inspect", tmp_path / "best_model")
    assert code == 0 and f"names {tmp_path}/best_model{suffix}" in out
    fill(tmp_path, model, ["best_model.msgpack"])
    code, _, err = run("inspect", tmp_path / "best_model")
    assert code == 1 and "best_model.msgpack" in err and f"best_model{suffix}" in err


def test_parameters_of_an_inference_program_are_explained(tmp_path, run):
    (tmp_path / "x.pdiparams").write_bytes(bytes(16) + b"\4\0\0\0\x08\5\x10\4" + bytes(16))
    for path in (tmp_path / "x.pdiparams", tmp_path / "x", tmp_path):
        for command in ("inspect", "timm2timm"):
            code, _, err = run(command, path)
            assert code == 1 and "inference program" in err and 'state_dict(), "model.pdparams")' in err
            assert "file-formats.md shows how a new model takes" in err


def test_parameters_of_a_program_give_way_to_a_state_dict(model, tmp_path, run):
    fill(tmp_path, model, ["run/x.pdparams", "run/x.pdiparams", "run/x.pdmodel", "run/x.pdopt"])
    for path in ("run", "run/x"):
        assert look(str(tmp_path / path)).path == str(tmp_path / "run" / "x.pdparams")
    (tmp_path / "empty").mkdir()
    for command in ("inspect", "timm2timm", "verify"):
        code, _, err = run(command, tmp_path / "empty")
        assert code == 1 and "empty: is a folder that holds no checkpoint (.safetensors" in err


def _deep(root):
    (root / "/".join("d" * 60)).mkdir(parents=True)


def _wide(root):
    for i in range(300):
        (root / f"d{i}").mkdir(parents=True)
        for k in range(3):
            (root / f"d{i}" / f"n{k}.txt").touch()


def _ring(root):
    (root / "a").mkdir(parents=True)
    (root / "a" / "b").symlink_to(root)


def _pipes(root):
    root.mkdir()
    os.mkfifo(root / "checkpoint_1")
    os.mkfifo(root / "model.safetensors")


def _broken(root):
    root.mkdir()
    (root / "model.safetensors").symlink_to(root / "nothing")
    (root / "checkpoint_3").write_bytes(b"text")


@pytest.mark.parametrize("make", [_deep, _wide, _ring, _pipes, _broken])
def test_hostile_folders_are_refused_soon(make, tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "MAX_ENTRIES", 500)
    make(tmp_path / "run")
    with soon(make.__name__), pytest.raises(ConvertError):
        open_checkpoint(tmp_path / "run")


YAML = "MODEL:\n  TYPE: Mixer\n  NUM_CLASSES: 7\n  MIXER: {PATCH_SIZE: 16, EMBED_DIM: 512, DEPTH: 8}\n"


def test_a_yaml_file_of_paddlevit_builds_a_mixer(tmp_path):
    """With the files that BASE names under it, and a note for a section that nobody knows."""
    needs("torch")
    (tmp_path / "base.yaml").write_text("MODEL: {DROPOUT: 0.25, NUM_CLASSES: 3}\nDATA: {IMAGE_SIZE: 224}\n")
    (tmp_path / "m.yaml").write_text(f"BASE: ['base.yaml']\nWANDB: {{NAME: x}}\n{YAML}")
    with pytest.warns(UserWarning, match="ignored, as no part of the model: WANDB"):
        config = ports.build("mlp_mixer", str(tmp_path / "m.yaml"), "torch").config
    variant = ports.build("mlp_mixer", "S/16", "torch", classes=7, dropout=0.25).config
    assert config == variant


def test_a_yaml_file_configures_parity_without_a_checkpoint(tmp_path, capsys):
    from parity.given.targets import targets

    (tmp_path / "m.yaml").write_text("MODEL: {NUM_CLASSES: 4}\nFOO: 1\n")
    for target in targets("mlp_mixer", settings=read_config(str(tmp_path / "m.yaml"))):
        assert target.config().classes == 4
    assert "ignored, as no part of the model: FOO" in capsys.readouterr().err


BAD_YAML = {
    "itself": "BASE: ['m.yaml']\n", "ring": "BASE: ['n.yaml']\n", "absolute": "BASE: ['/etc/passwd']\n",
    "many": f"BASE: {['n.yaml'] * 20}\n", "missing": "BASE: ['no.yaml']\n", "number": "BASE: 3\n",
    "unknown key": "MODEL: {MIXER: {WIDTH: 3}}\n", "wrong type": "MODEL: {NUM_CLASSES: many}\n",
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_configuration_files_are_refused(case, tmp_path):
    (tmp_path / "m.yaml").write_text(BAD_YAML[case])
    (tmp_path / "n.yaml").write_text("BASE: ['m.yaml']\n")
    with soon(case), pytest.raises((ConvertError, UsageError)):
        ports.build("mlp_mixer", str(tmp_path / "m.yaml"), "torch")


HOSTILE_INDICES = {
    "outside": {"a": "../m-00001-of-00002.bin"}, "absolute": {"a": "/etc/passwd"}, "index": {"a": "x.bin.index.json"},
    "empty name": {"a": ""}, "many shards": {f"a{i}": f"{i}.bin" for i in range(10_001)},
    "bomb": {"a": "bomb.bin"}, "pickle that runs": {"a": "attack.bin"},
    "other format": {"a": "m.msgpack", "b": "m.bin"},
    "not there": {"a": "gone.bin"}, "more than listed": {"norm.weight": "m.bin"},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_INDICES)
def test_hostile_shards_of_other_formats_are_refused_soon(case, model, tmp_path):
    from .files.pickle_parts import COMMAND, call, one, pdparams, text

    fill(tmp_path, model, ["m.bin", "m.msgpack"])
    (tmp_path / "bomb.bin").write_bytes(pdparams(b")" + b"\x85" * 1_000_000))
    (tmp_path / "attack.bin").write_bytes(pdparams(one(call("os", "system", text(COMMAND)))))
    index = tmp_path / "x.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": HOSTILE_INDICES[case]}))
    with soon(case), pytest.raises(FormatError):
        open_checkpoint(index)


def test_a_part_is_extracted_in_its_own_dialect(tmp_path, run):
    """A training checkpoint becomes a plain one; what is left behind is named."""
    live = arrays(TIMM)
    averaged = {name: array + 1 for name, array in live.items()}
    path = save(tmp_path / "x.safetensors", {**under("state_dict/", live), **under("state_dict_ema/", averaged)})
    code, _, err = run("timm2timm", path, "--weights", "state_dict_ema", "-o", tmp_path / "y.pt")
    assert code == 0 and "--weights state_dict takes it" in err
    with convert.plan(tmp_path / "y.pt", src="timm", dst="timm") as plan:
        assert plan.reading.prefix == "" and not plan.aside
        assert all((array == averaged[name]).all() for name, array in plan.arrays())


def test_a_note_on_the_command_line_stands_once(run, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for name in "ab":
        shutil.copy(GOOGLE, source / f"{name}.npz")
    (tmp_path / "c.json").write_text('{"norm_eps": 1e-5}')
    code, _, err = run("google2torch", source, "-o", out, "--config", tmp_path / "c.json", "--set", "norm_eps=1e-6")
    note = f"note: --set norm_eps=1e-6 is used in place of norm_eps=1e-5 of --config {tmp_path / 'c.json'}\n"
    assert code == 0 and note in err and err.count("is used in place of") == 1
