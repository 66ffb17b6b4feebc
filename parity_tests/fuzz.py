"""Coverage-guided fuzzing of every reader: `python -m parity_tests.fuzz [SECONDS [FORMAT...]]`, or `make fuzz`.

Whatever the bytes, opening them and reading every tensor gives tensors of the announced sizes or a ConvertError, within
SLOWEST seconds and MEMORY megabytes. A file that does not is written to the current folder, and the exit status is 1.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 60  # for each format
SLOWEST, MEMORY, LONGEST = 5, 600, 16384  # seconds and megabytes of one file (instrumented code is slow); its bytes
SUFFIXES = {
    "safetensors": ".safetensors", "msgpack": ".msgpack", "npz": ".npz", "torch": ".pt", "pdparams": ".pdparams",
    "sharded": ".safetensors.index.json", "dcp": ".dcp", "orbax": ".orbax",
}  # fmt: skip
GOOGLE = "parity_tests/goldens/flax_mixer/weights.npz"


def seeds(name: str, folder: Path) -> Iterator[bytes]:
    """Good files with every feature of their reader, then the bad ones that are known."""
    from parity_tests.files import corpus_pickles, corpus_plain, pickle_parts, samples, test_fuzz_plain

    suffix = SUFFIXES[name]
    if name == "sharded":
        samples.written(folder / "s.safetensors", "safetensors")
        where = {tensor.name: "s.safetensors" for tensor in samples.SMALL}
        yield json.dumps({"metadata": {"total_size": 64}, "weight_map": where}).encode()
        return
    if name == "dcp":
        command = [sys.executable, "-m", "convert", "google2torch", GOOGLE, "-o", str(folder / "x.dcp")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield (folder / "x.dcp" / ".metadata").read_bytes()
        return
    if name == "orbax":  # the file of aggregated arrays: tensorstore reads the others, in a process of its own
        for _, ending, data in corpus_plain.bad_files():
            if ending == ".msgpack" and len(data) < LONGEST:
                yield data
        yield from (data for kind, data in test_fuzz_plain.ORIGINALS.items() if kind.startswith("msgpack"))
        return
    yield from (data for kind, data in test_fuzz_plain.ORIGINALS.items() if kind.startswith(name))
    yield samples.written(folder / "seed", suffix[1:]).read_bytes()
    if name == "torch":
        yield pickle_parts.legacy(pickle_parts.one(pickle_parts.tensor()))
    bad = [(ending, data) for _, ending, data in corpus_plain.bad_files()]
    bad += [(entry.suffix, entry.data) for entry in corpus_pickles.bad_files()]
    endings = (suffix, ".pth") if name == "torch" else (suffix,)
    yield from (data for ending, data in bad if ending in endings and len(data) < LONGEST)


def fuzz(name: str, seconds: int) -> None:
    """Never returns: libFuzzer ends the process, with a status of its own if it found something."""
    import atheris

    with atheris.instrument_imports(include=["convert"]):
        from convert import files
        from convert.errors import ConvertError

        for entry in (*files.FORMATS, *files.FOLDERS):
            entry.load(entry.reader)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    path, corpus = folder / f"x{SUFFIXES[name]}", folder / "corpus"
    put: Callable[[bytes], object] = (path / ".metadata" if name == "dcp" else path).write_bytes
    corpus.mkdir()
    for number, data in enumerate(seeds(name, folder)):
        (corpus / str(number)).write_bytes(data)

    if name == "orbax":
        path.mkdir()
        put = (path / "checkpoint").write_bytes

    def one(data: bytes) -> None:
        put(data)
        try:
            with files.open_checkpoint(path) as reader:
                for tensor in reader.tensors.values():
                    assert len(reader.read(tensor.name)) == tensor.nbytes
        except ConvertError as error:
            assert str(error).isprintable() or "\n" in str(error)

    limits = [
        "-verbosity=0",
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-max_len={LONGEST}",
    ]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


def main(words: list[str]) -> int:
    seconds, names = int(words[0]) if words else SECONDS, words[1:] or list(SUFFIXES)
    failed = []
    for name in names:
        command = [sys.executable, "-m", "parity_tests.fuzz", "--one", name, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n")
            failed.append(name)
        else:
            tried, peak = int(stats["number_of_executed_units"]), stats["peak_rss_mb"]
            print(f"{name}: nothing found in {tried:,} files, {seconds} s, {peak} MB", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "no reader failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]))
    sys.exit(main(sys.argv[1:]))
