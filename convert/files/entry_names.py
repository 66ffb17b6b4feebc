"""Tell by their names what the entries of a folder are: models, shards, numbered steps, training state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Set

from .base import PDOPT

# Entries that store no model: the stem of a file, or the name of a folder.
TRAINING = (
    r"(opt|optim|optimizers?|opt_states?|optimizer_states?|(lr_)?schedulers?|((grad|amp|loss)_)?scaler|samplers?"
    r"|rng(_states?)?|random_states?|custom_checkpoint)(_\d+)?|.+_optim_states|training_args|trainer_state|train_state"
    r"|tx|extra|meta(data)?|dataset|(.+_)?iterator|data_iter|step"
)
COPY = r"(.*[_.-])?(ema|swa|avg|average[d]?|polyak)([_.-].*)?"  # of a model: the model itself comes first
BEST = r"(.*[_.-])?best([_.-].*)?"  # of the steps of a run: one of them once more
PROGRAM = ".pdiparams"  # of a Paddle inference program: taken where nothing else is there, to be explained
OPTIMIZER_FILES = (PDOPT, ".pdstates", ".pdscaler")

# Names of one model that lies there in several formats, or of the state of a run that goes on, best first.
PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
    "model_state.pdparams",
    "model_state.pdparams.index.json",
)
PREFERRED_STEMS = (
    "last", "latest", "checkpoint_last", "best_model", "model_best", "model_final", "default", "params", "model",
    "state", "ema", "ema_params",
)  # fmt: skip
SUFFIX = r"\.[a-z]+(\.tar)?$"
STEP = r"steps?|iter(?:ation)?s?"  # words before the number of a step, which goes before that of an epoch
COUNT = rf"{STEP}|epochs?|checkpoint|ckpt|weights"
NUMBERED = rf"(?i:(?:.*[^a-z\d])?(?:{COUNT}|global_step)[-_=]?\d)"
NUMBER = re.compile(  # in a name, with the word before it, which has a digit itself in "top1=50"
    r"(?:([a-z]+\d*)=|([a-z]*)[-_]?)(?<![\d.])(\d{1,18}(?:\.\d+)?(?:e-?\d+)?)(?![a-z\d=]|\.\d)"
)
METRIC = (  # words before a number that says how good a model is, and not which of several it is
    r"(loss|acc|accuracy|top|err|error|score|metric|m?ap|m?iou|dice|f|auc|auroc|psnr|ssim|fid|ppl|perplexity|bleu"
    r"|[wc]er|r?ms?e|mae|kl|elbo|reward|return|val|valid)\d*"
)


SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")


def index_of(names: Iterable[str]) -> str:
    """Return the name of the index that lists these files, if all are named as shards of one model; else ""."""
    indices = {f"{match[1]}{match[2]}.index.json" if (match := SHARD.fullmatch(name)) else "" for name in names}
    return indices.pop() if len(indices) == 1 else ""


def is_shard(name: str, names: Set[str]) -> bool:
    """Tell whether a file is one of the shards that an index among `names` lists."""
    match = SHARD.fullmatch(name)
    if match is None:
        return False
    stem, _, variant = match[1].rpartition(".")
    return not names.isdisjoint((f"{match[1]}{match[2]}.index.json", f"{stem}{match[2]}.index.{variant}.json"))


def is_training(name: str) -> bool:
    """Tell whether an entry stores the state of an optimizer or of a training run, and no model."""
    stem = name.partition(".")[0].lower()
    return name.endswith(OPTIMIZER_FILES) or re.fullmatch(TRAINING, stem) is not None


def preferred(models: list[str]) -> str | None:
    """Return the one of several checkpoints that is meant, if that shows: by a usual name, or as the last step."""
    if len(models) == 1:
        return models[0]
    stems = {stem_of(name): name for name in reversed(models)}
    usual = [name for name in PREFERRED if name in models]
    usual += [stems[stem] for stem in PREFERRED_STEMS if stem in stems]
    if usual:
        return usual[0]
    plain = [name for name in models if not re.fullmatch(f"{COPY}|{BEST}", stem_of(name))]
    if len(plain) == 1:
        return plain[0]
    alike = len({re.sub(r"\d+(\.\d+)?(e-?\d+)?", "0", name) for name in plain}) == 1
    return _newest(plain) if alike and len(steps_of(plain)) == len(plain) else None


def _newest(names: list[str]) -> str | None:
    """Return the last of several steps, if every way to read their numbers says so."""
    numbers = {name: _numbers(name) for name in names}
    words = {word for words_of in numbers.values() for word in words_of if not re.fullmatch(METRIC, word)}
    last = set(names)
    for word in words:
        values = {name: words_of.get(word, -1) for name, words_of in numbers.items()}
        is_count = word.isdigit() or re.fullmatch(COUNT, word)
        if not is_count and len({*values.values()}) > 1:  # as seed1 and seed2, which are no steps of one run
            return None
        last &= {name for name in names if values[name] == max(values.values())}
    return last.pop() if len(last) == 1 else None


def _numbers(name: str) -> dict[str, int]:
    """Return {word: the number behind it} of the integers in the name of an entry, where a number alone has its place.

    As {"epoch": 9, "step": 900} of "epoch=9-step=900-val_loss=0.12.ckpt", and {"checkpoint": 1, "1": 900} of
    "checkpoint_1_900". A number with a decimal point is a metric.
    """
    stem = re.sub(SUFFIX, "", name.lower())
    words = enumerate((match[1] or match[2], match[3]) for match in NUMBER.finditer(stem))
    return {word or str(place): int(number) for place, (word, number) in words if number.isdigit()}


def steps_of(names: Iterable[str]) -> dict[str, int]:
    """Return the step of each entry that is named for one."""
    return {name: step for name in names if (step := step_of(name)) is not None}


def stem_of(name: str) -> str:
    """Return a name without the suffix of a checkpoint, in lower case."""
    from . import suffixes

    stem, suffix = os.path.splitext(name.removesuffix(".tar"))
    return (stem if suffix in suffixes() else name).lower()


def step_of(name: str) -> int | None:
    """Return the step that an entry is named for: 12 of "12", "checkpoint_12" and "epoch=1-step=12-loss=0.5.ckpt"."""
    stem = re.sub(SUFFIX, "", name)
    if re.fullmatch(r"\d{1,18}", stem):
        return int(stem)
    numbers = _numbers(name) if re.match(NUMBERED, stem) and re.fullmatch(r".*\d", stem) else {}
    steps = [number for word, number in numbers.items() if re.fullmatch(STEP, word)]
    counts = [number for word, number in numbers.items() if word.isdigit() or re.fullmatch(COUNT, word)]
    return next(reversed(steps or counts), None)
