"""The truth that no port of ours produced: every golden file, in every framework, against its original's outputs."""

import contextlib
import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest

import ports
import specs
from convert.config.conventions import same
from convert.config.variants import restrictions
from convert.errors import ConvertError
from convert.plans.planning import plan
from parity.results.elements import relative_error
from specs.checking.unseen import options, uncovered, written
from specs.dialects import applied
from specs.layer import parameters
from specs.notation.paths import pattern
from specs.words import in_a_row

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
def configs_of_cases():
    """Return {(architecture, dialect): Configs} of every file; one that cannot be read fails the tests of its case."""
    found = {}
    for case in map(Case, CASES):
        for file in case.files:
            with contextlib.suppress(ConvertError), plan(file, settings=case.settings) as made:
                found.setdefault((made.architecture, made.src), []).append(made.config)
    return found


def placed(spec, dialect, configs):
    """Return {(array, numbers of blocks aside; number of the dialect's line that places it, or 0)} of some Configs."""
    lines = ((p, applied(p, dialect)) for config in configs for p in parameters(list(spec.layers(config))))
    return dict.fromkeys((pattern(p.name), line[0].number if line else 0) for p, line in lines)


def writable(dialect, config):
    """Yield a Config with the values that a dialect requires; nothing, if no Config is so."""
    with contextlib.suppress(ValueError):
        yield dataclasses.replace(config, **dialect.requires)


def values(spec, configs):
    """Return {(field, value)} of the fields with a few values, where these change something."""
    return dict.fromkeys(option for config in configs for option in options(spec, config).items())


def contradicted(architecture, name, configs):
    """Yield what a dialect of a page states and cases that its own code wrote have otherwise.

    Its code may compute another value of a convention, where a case's settings state it, but not in each case.
    """
    spec = specs.get(architecture)
    for config in configs:
        for field, (fixed, own) in restrictions(architecture, config, name).items():
            yield f"requires: {field}={fixed}, and a case has {own}"
    for field, value in spec.dialects[name].conventions.items():
        material = [config for config in configs if field not in spec.immaterial(config)]
        if material and not any(same(getattr(config, field), value) for config in material):
            yield f"conventions: {field}={value}, and no case has this value"


def stated(dialect):
    """Return the fields that a dialect's own code fixes."""
    return {**dialect.conventions, **dialect.requires}


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
    assert all(about["upstream"][name] for name in ("repo", "commit"))


@pytest.mark.parametrize(("architecture", "dialect"), DIALECTS)
def test_a_dialect_has_cases_of_all_its_lines(architecture, dialect):
    """Lines that no case uses may be wrong: converting with them there and back proves nothing of the original."""
    spec, configs = specs.get(architecture), configs_of_cases().get((architecture, dialect))
    if not configs:
        pytest.skip(
            f"no golden case that can be read holds dialect {dialect} of {architecture}: nothing compares its lines "
            "with the original"
        )
    assert [*contradicted(architecture, dialect, configs)] == [], f"dialect {dialect} of {architecture}"
    its = spec.dialects[dialect]
    needed = placed(spec, its, [one for twin in spec.tiny.values() for one in writable(its, twin)])
    if left := [key for key in needed if key not in placed(spec, its, configs)]:
        arrays, lines = in_a_row({array: None for array, _ in left}), {line: None for _, line in left if line}
        what = f"line{'s' if len(lines) > 1 else ''} {in_a_row(lines)} of its table" if lines else "their names"
        pytest.skip(
            f"no golden case of dialect {dialect} holds {arrays} of {architecture}: "
            f"nothing compares {what} with the original"
        )


@pytest.mark.parametrize("architecture", specs.names())
def test_the_cases_use_every_option(architecture):
    """An option that no case has may be wrong in all ports alike, and so may those that a variant has together.

    A value that every dialect fixes otherwise is none of an original.
    """
    spec = specs.get(architecture)
    configs = [config for (name, _), some in configs_of_cases().items() if name == architecture for config in some]
    used = values(spec, configs)
    left = [
        written((name, value))
        for name, value in values(spec, spec.tiny.values())
        if (name, value) not in used
        and any(stated(dialect).get(name, value) == value for dialect in spec.dialects.values())
    ]
    if left:
        pytest.skip(f"no golden case of {architecture} has {in_a_row(left)}: nothing compares that with the original")
    if together := [f"{some} (as {in_a_row(named)})" for some, named in uncovered(spec, configs).items() if configs]:
        what = "; nor ".join(together)
        pytest.skip(f"no golden case of {architecture} has {what}: nothing compares that with the original")
