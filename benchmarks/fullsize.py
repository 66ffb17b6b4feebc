"""Convert full-size checkpoints by Tables that were derived from tiny twins, beside `cp` of the same file.

    python -m benchmarks.fullsize                   times, peak memory, and the frameworks that were imported
    python -m benchmarks.fullsize derive CORPUS     derive the Tables again (see pairs/run.py), where its packages are
    python -m benchmarks.fullsize official CORPUS   compare with what transformers' own converter makes of the same file

The files are random arrays with the names and shapes of the published models: no weights are downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convert.files import open_checkpoint

from .files import ENVIRONMENT, Timed, make, overhead, timed

TABLES = Path(__file__).parent / "tables"
RUNS = 5
FRAMEWORKS = ("torch", "jax", "flax", "paddle", "numpy")
Shapes = dict[str, tuple[int, ...]]


def _leaves(path: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a layer's weight, and its bias: as long as the first axis."""
    yield f"{path}.weight", shape
    yield f"{path}.bias", shape[:1]


def _encoder(block: str, width: int, *attention: str) -> Shapes:
    """Return the dense layers of one block of transformers' encoders, its attention's by name."""
    found: Shapes = {}
    for name in attention:
        found |= dict(_leaves(f"{block}.attention.{name}", width, width))
    found |= dict(_leaves(f"{block}.intermediate.dense", 4 * width, width))
    return found | dict(_leaves(f"{block}.output.dense", width, 4 * width))


def bert() -> Shapes:
    """Return the sizes of BERT-base."""
    width, names = 768, {"word": 30522, "position": 512, "token_type": 2}
    found = {f"embeddings.{name}_embeddings.weight": (count, width) for name, count in names.items()}
    found |= dict(_leaves("embeddings.LayerNorm", width)) | dict(_leaves("pooler.dense", width, width))
    for i in range(12):
        block = f"encoder.layer.{i}"
        found |= _encoder(block, width, "self.query", "self.key", "self.value", "output.dense")
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= dict(_leaves(f"{block}.{name}", width))
    return found


def gpt2() -> Shapes:
    """GPT-2 (117M), whose kernels are stored as (in, out)."""
    width = 768
    found = {"transformer.wte.weight": (50257, width), "transformer.wpe.weight": (1024, width)}
    for i in range(12):
        block = f"transformer.h.{i}"
        for name, shape in (("attn.c_attn", (width, 3 * width)), ("attn.c_proj", (width, width)),
                            ("mlp.c_fc", (width, 4 * width)), ("mlp.c_proj", (4 * width, width))):  # fmt: skip
            found |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[1:]}
        found |= dict(_leaves(f"{block}.ln_1", width)) | dict(_leaves(f"{block}.ln_2", width))
    return found | dict(_leaves("transformer.ln_f", width))


def vit() -> Shapes:
    """ViT-L/16."""
    width = 1024
    found = {"embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, 197, width)}
    found |= dict(_leaves("embeddings.patch_embeddings.projection", width, 3, 16, 16))
    for i in range(24):
        block = f"encoder.layer.{i}"
        found |= _encoder(block, width, "attention.query", "attention.key", "attention.value", "output.dense")
        found |= dict(_leaves(f"{block}.layernorm_before", width)) | dict(_leaves(f"{block}.layernorm_after", width))
    return found | dict(_leaves("layernorm", width)) | dict(_leaves("pooler.dense", width, width))


MODELS: dict[str, tuple[Callable[[], Shapes], str]] = {
    "bert": (bert, "hf_bert"), "gpt2": (gpt2, "hf_gpt2"), "vit": (vit, "hf_vit"),
}  # fmt: skip  # name: shapes of the full-size model, tiny twin in the corpus


def imported(words: list[str]) -> str:
    """Return the frameworks that a conversion imports."""
    code = f"import sys; from convert.__main__ import main; main({words!r}); " \
           f"print(*(n for n in {FRAMEWORKS!r} if n in sys.modules), file=sys.stderr)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=ENVIRONMENT)
    return done.stderr.splitlines()[-1] or "none"  # after the notes of the conversion


def measure() -> None:
    """Print the least of interleaved runs: seconds (s), and seconds of processor time in all threads (p).

    A conversion syncs its target to the disk and `cp` does not: `dd` copies and syncs.
    """
    heads = [f"{name + unit:>11}" for name in ("cp", "dd", "convert") for unit in (" s", " p")]
    print(f"{'model':6} {'MB':>5} {' '.join(heads)} {'peak MB':>8}  imported")
    for name, (shapes, _) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "source.safetensors", Path(folder) / "target.msgpack"
            make(source, shapes())
            words = ["--table", str(TABLES / f"{name}.table"), str(source), "-o", str(target), "--force"]
            jobs = {
                "cp": ["cp", str(source), str(target) + ".cp"],
                "dd": ["dd", f"if={source}", f"of={target}.dd", "bs=256k", "conv=fsync", "status=none"],
                "convert": [sys.executable, "-m", "convert", *words],
            }
            base, runs = overhead(), {job: list[Timed]() for job in jobs}
            for _ in range(RUNS):
                for job, command in jobs.items():
                    runs[job].append(timed(command))
            times = [time for job in jobs for time in (min(run.seconds for run in runs[job]) - base,
                     min(run.processor for run in runs[job]))]  # fmt: skip
            peak = max(run.megabytes for run in runs["convert"])
            print(f"{name:6} {source.stat().st_size / 1e6:5.0f} {' '.join(f'{time:11.2f}' for time in times)} "
                  f"{peak:8.0f}  {imported(words)}", flush=True)  # fmt: skip


def _pairs(corpus: str) -> Any:
    import importlib

    from .pairs.run import _imports

    _imports(corpus)
    return importlib.import_module("pairs_hf").PAIRS


def derive(corpus: str) -> None:
    """Derive each Table from the tiny twin in the corpus."""
    pairs = _pairs(corpus)
    import parity

    for name, (_, twin) in MODELS.items():
        pair = pairs[twin]()
        sides = pair.left, pair.right
        calls = [parity.Call(*s.args, method=s.method, output=s.pick, **s.kwargs) for s in sides]
        found = parity.derive(pair.left.model, pair.right.model, *calls)
        if not found.proven:
            raise SystemExit(f"{name}: not proven: {found.to_dict()}")
        found.table.save(TABLES / f"{name}.table")
        print(f"{name}: {len(found.table.lines)} lines, {found.seconds:.1f} s")


def official(corpus: str) -> None:
    """Convert full-size files by transformers' own converter as well, and compare every array's bytes."""
    _pairs(corpus)
    import numpy as np
    import transformers as t
    from flax.traverse_util import flatten_dict
    from transformers.modeling_flax_pytorch_utils import convert_pytorch_state_dict_to_flax

    from convert.table.by_table import plan

    large = t.ViTConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    models = {"bert": lambda: t.FlaxBertModel(t.BertConfig()),
              "gpt2": lambda: t.FlaxGPT2LMHeadModel(t.GPT2Config()),
              "vit": lambda: t.FlaxViTModel(large)}  # fmt: skip
    for name, (shapes, _) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "source.safetensors", Path(folder) / "target.npz"
            make(source, shapes())
            with open_checkpoint(source) as reader:
                state = {n: np.frombuffer(bytes(reader.read(n)), np.float32).reshape(x.shape)
                         for n, x in reader.tensors.items()}  # fmt: skip
            theirs = flatten_dict(convert_pytorch_state_dict_to_flax(state, models[name]()), sep="/")
            with plan(str(source), str(TABLES / f"{name}.table")) as made:
                made.write(str(target))
            with np.load(target) as ours:
                same = {f"params/{key}": np.asarray(array) for key, array in theirs.items()}
                wrong = [key for key in ours if not np.array_equal(ours[key], same.get(key))]
                print(f"{name}: {len(ours.files)} arrays, {len(wrong)} differ {wrong[:3]}", flush=True)


if __name__ == "__main__":
    {"derive": derive, "official": official}[sys.argv[1]](sys.argv[2]) if sys.argv[1:] else measure()
