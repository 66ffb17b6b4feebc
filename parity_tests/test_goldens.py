"""The truth that no port of ours produced: every golden file, in every framework, against its original's outputs."""

import contextlib
import functools
import hashlib
import json

import numpy as np
import pytest

import ports
import specs
from convert.errors import ConvertError
from convert.plans.planning import plan
from parity.conversion_proof import relative_error

from .conftest import needs_port
from .golden import CASES, FOLDERS, Case, shortest

FILES = [pytest.param(Case(name), file, id=f"{name}-{file.name}") for name in CASES for file in Case(name).files]
FRAMEWORKS = ("flax", "torch", "paddle")
DIALECTS = [(page, dialect) for page in specs.names() for dialect in specs.get(page).dialects]


@functools.cache
def single_in_flax():
    """XLA compiles a network again for another dtype, which takes seconds."""
    return shortest(map(Case, CASES))


@functools.cache
def dialects_of_cases():
    """Return (architecture, dialect) of every file; one that cannot be read fails the tests of its case."""
    found = set()
    for case in map(Case, CASES):
        for file in case.files:
            with contextlib.suppress(ConvertError), plan(file, settings=case.settings) as made:
                found.add((made.architecture, made.src))
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("case", "file"), FILES)
def test_logits(case, file, framework, tmp_path):
    """Converted to a file first, as a user would: what is tested is what lands on disk.

    In float32, flax computes one file of each kind of network; in float64 all, as torch and paddle do in both.
    """
    needs_port(case.architecture, framework)
    with plan(file, dst=framework, settings=case.settings) as made:
        made.write(tmp_path / "converted.safetensors")
    converted = str(tmp_path / "converted.safetensors")
    exact = ports.load(converted, framework, dtype="float64")(case.images)
    # float64 rounding is 1e-15; 1e-12 where paddle rounded an epsilon to float32
    assert relative_error(case.logits, _logits(case, exact)) <= 1e-10
    if framework == "flax" and (case.name not in single_in_flax() or file != case.files[0]):
        return
    single = ports.load(converted, framework, dtype="float32")(case.images)
    # the originals' own float32 noise on these cases is 2e-7 to 4e-6 (case.json, float32_noise)
    assert relative_error(case.logits, _logits(case, single)) <= 1e-5


def _logits(case, output):
    """A model that ends in softmax gives probabilities: logits up to a constant, which the truth shares."""
    if "eval/output.f64" not in case.arrays:
        return output
    logs = np.log(output)
    return logs - logs.mean(1, keepdims=True) + case.logits.mean(1, keepdims=True)


@pytest.mark.parametrize(("case", "file"), FILES)
def test_what_a_file_is(case, file):
    """Architecture, class count and parameter count follow from the file alone."""
    with plan(file, settings=case.settings) as made:
        assert made.architecture == case.architecture
        assert made.config.classes in (0, case.logits.shape[1])  # 0: features in place of logits
        if "param_count" in case.about:
            assert made.parameters == case.about["param_count"]
        assert {name: getattr(made.config, name) for name in case.settings} == case.settings


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=lambda folder: folder.name)
def test_a_folder_is_a_complete_case(folder):
    """case.json describes the files as they are."""
    about = json.loads((folder / "case.json").read_text())
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in about["files"]}
    assert hashes == about["files"]


@pytest.mark.parametrize(("architecture", "dialect"), DIALECTS)
def test_a_dialect_has_a_case(architecture, dialect):
    """Lines that no case uses may be wrong: converting with them there and back proves nothing of the original."""
    if (architecture, dialect) not in dialects_of_cases():
        pytest.skip(
            f"no golden case holds dialect {dialect} of {architecture}: nothing compares its lines with the original"
        )
