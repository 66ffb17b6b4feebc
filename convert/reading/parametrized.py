"""Recognise weights that are stored in parts, which only arithmetic puts together, and name the call that does it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from convert.folding import fold
from specs.words import first_few

from .nesting import LONGEST, MAX_ARRAYS


class Parts(NamedTuple):
    """One way to store a weight in parts.

    Args:
      pattern: of the level of a name that shows it; what stands before it is the module.
      leaves: of the parts of one weight: all of these are there.
      what: the way. call: what merges the parts in torch. paddle: the same in paddle, "" where it has none.
    """

    pattern: re.Pattern[str]
    leaves: frozenset[str]
    what: str
    call: str
    paddle: str = ""


def _parts(pattern: str, leaves: str, what: str, call: str, paddle: str = "") -> Parts:
    return Parts(re.compile(pattern), frozenset(leaves.split()), what, call, paddle)


_SEPARATOR = re.compile(r"[./]")
_EACH = "for each of these modules call"
_QUANTIZED = "take the checkpoint that was quantized, or load this one in its own program and call model.dequantize()"
_PADDLE = "paddle.nn.utils.remove_{}_norm(layer)"
WAYS = (
    _parts("parametrizations", "", "a parametrization (weight or spectral norm)",
           f'{_EACH} torch.nn.utils.parametrize.remove_parametrizations(module, "weight")'),
    _parts(r"\w+_[gv]", "weight_g weight_v", "weight normalisation",
           f"{_EACH} torch.nn.utils.remove_weight_norm(module)", f"{_EACH} {_PADDLE.format('weight')}"),
    _parts(r"\w+_(?:orig|mask)", "weight_orig weight_mask", "pruning",
           f'{_EACH} torch.nn.utils.prune.remove(module, "weight")'),
    _parts(r"\w+_(?:orig|u|v)", "weight_orig weight_u", "spectral normalisation",
           f"{_EACH} torch.nn.utils.remove_spectral_norm(module)"),
    _parts(r"lora_(?:A|B|a|b|down|up|embedding_A|embedding_B)", "lora_A lora_B", "LoRA, low-rank additions",
           "with peft call model = PeftModel.from_pretrained(base_model, folder).merge_and_unload()"),
    _parts(r"lora_(?:a|b)", "lora_a lora_b", "LoRA, low-rank additions",
           "set each kernel to kernel + lora_a @ lora_b (times alpha / rank, if your module scales it)"),
    _parts(r"lora_(?:down|up)", "lora_down lora_up", "LoRA, low-rank additions",
           "add alpha / rank * (up @ down) to each weight, as diffusers' fuse_lora does"),
    _parts("ia3_l", "ia3_l", "IA3, scaled activations",
           "with peft call model = PeftModel.from_pretrained(base_model, folder).merge_and_unload()"),
    _parts(r"_?flat_param(?:_\d+)?", "_flat_param", "the flat parameters of FSDP",
           "inside FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT) call model.state_dict()"),
    _parts(r"absmax|quant_map", "absmax quant_map", "quantization (bitsandbytes)", _QUANTIZED),
    _parts("SCB", "SCB", "quantization (bitsandbytes)", _QUANTIZED),
    _parts(r"qweight|qzeros", "qweight qzeros", "quantization (GPTQ, AWQ)", _QUANTIZED),
    _parts(r"weight_scale(?:_inv)?", "", "quantization (scaled float8 or integers)", _QUANTIZED),
)  # fmt: skip


def parametrized(names: Iterable[str], framework: str | None = None) -> str:
    """Say which weights are stored in parts, and how to merge them; "" where there are none.

    Args:
      framework: whose call is named, where it has one of its own.
    """
    listed = [_SEPARATOR.split(name) for name in islice(names, MAX_ARRAYS) if len(name) <= LONGEST]
    for way in WAYS:
        modules_of: dict[str, None] = {}
        leaves: set[str] = set()
        for levels in listed:
            if (at := next((k for k, level in enumerate(levels) if way.pattern.fullmatch(level)), None)) is not None:
                modules_of[".".join(levels[:at]) or "the model"] = None
                leaves.add(levels[at])
        if modules_of and way.leaves <= leaves:
            where = first_few(fold(modules_of), 3)
            call = (way.paddle if framework == "paddle" else "") or way.call
            return (
                f"the weights of {where} are stored in parts, by {way.what}: merge them first: {call}, and save again"
            )
    return ""
