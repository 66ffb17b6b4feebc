"""What a command imports: no framework and no page of an architecture that it does not need."""

import functools
import re

import pytest

import specs
from convert.reading.recognise import dialects
from specs.dialects import shapes

from .commands import GOOGLE, TIMM, python
from .conftest import needs
from .golden import Case

BARE = "import sys; bare = set(sys.modules)"  # what .pth files of site-packages import is not ours


def imported(names):
    """Return the code of a list: those of some modules that were imported after BARE."""
    return f"[m for m in {names} if m in sys.modules and m not in bare]"


LOADED = "import sys; print([m for m in ('jax', 'flax', 'torch', 'paddle', 'numpy') if m in sys.modules])"


@pytest.mark.parametrize(("code", "loaded"), [
    ("import specs; [specs.get(n) for n in specs.names()]; ", []),
    ("import ports; ", []),
    ("from convert.__main__ import main; main(['routes']); ", []),
    ("from convert.__main__ import main; main(['google2flax', r'{google}', '-o', r'{out}/x.msgpack']); ", ["numpy"]),
    ("from convert.__main__ import main; main(['timm2torch', r'{timm}', '-o', r'{out}/x.pt']); ", ["numpy"]),
    ("from convert.__main__ import main; main(['passl2paddle', r'{passl}', '-o', r'{out}/x.pdparams']); ", ["numpy"]),
])  # fmt: skip
def test_no_framework_is_imported_that_the_task_does_not_need(code, loaded, tmp_path):
    code = code.format(google=GOOGLE, timm=TIMM, passl=Case("passl_mixer").folder / "weights.pdparams", out=tmp_path)
    done = python("-c", code + LOADED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(loaded)


def test_of_paddles_warnings_only_that_of_a_missing_compiler_cache_is_silent():
    warn = "warnings.warn_explicit({!r}, UserWarning, 'x.py', {}, module='paddle.utils.cpp_extension.extension_utils')"
    lines = [warn.format("No ccache found. Please be aware", 1), warn.format("another", 2)]
    done = python("-c", "; ".join(["import warnings, parity.derive.command", *lines]))
    assert "x.py:2: UserWarning: another" in done.stderr
    assert "ccache" not in done.stderr


def test_of_torchs_warnings_only_that_of_even_kernels_is_silent():
    """It would stand in the middle of parity's progress line."""
    needs("torch")
    lines = ["import ports, torch, warnings", "warnings.warn('another')"]
    lines.append("torch.nn.Conv2d(1, 1, 4, padding='same')(torch.zeros(1, 1, 8, 8))")
    assert "even kernel lengths" in python("-c", "; ".join([lines[0].replace("ports, ", ""), *lines[1:]])).stderr
    done = python("-c", "; ".join(lines))
    assert "UserWarning: another" in done.stderr and "even kernel" not in done.stderr


def test_a_derivation_does_not_import_torchs_compiler():
    """Its import takes longer than the derivation of a small model."""
    needs("torch")
    code = "import sys, numpy, parity, torch; one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3); "
    code += "print(parity.derive(one, other, (numpy.ones((4, 2)),)).proven, 'torch._dynamo' in sys.modules)"
    assert python("-c", code).stdout == "True False\n"


SIGNED = [(a, d) for a in specs.names() if specs.get(a).sign for d in dialects(a)]


@functools.cache
def spellings(architecture, dialect):
    """Return [(twin, the names of its arrays)], as linen and as nnx write them."""
    spec, rows = specs.get(architecture), dialects(architecture)[dialect]
    found = []
    for twin, config in spec.tiny.items():
        names = list(shapes(spec.layers(config), rows, config))
        inner = [name.partition("/")[2] for name in names if "/" in name]  # as of nnx: without collection
        every = names, inner, [re.sub(r"_(\d+)(/|$)", r"/\1\2", name) for name in inner]
        found += [(twin, some) for some in every if some]
    return found


@pytest.mark.parametrize(("architecture", "dialect"), SIGNED)
def test_an_architecture_is_told_at_a_glance(architecture, dialect):
    """So that no other's spec is imported; nothing else depends on it."""
    for twin, some in spellings(architecture, dialect):
        signs = {one: specs.get(one).sign for one in specs.names() if specs.get(one).sign}
        matched = {one: sum(re.search(sign, name) is not None for name in some) for one, sign in signs.items()}
        where = f"tiny {twin!r}, names as {some[0]!r}: names that match the sign of each architecture: {matched}"
        assert specs.likely(some) == architecture, where


@pytest.mark.parametrize("architecture", dict.fromkeys(architecture for architecture, _ in SIGNED))
def test_the_sign_of_an_architecture_takes_no_names_of_others(architecture):
    """A new page fails by itself, though the pages that it takes names of are not asked for."""
    sign = specs.get(architecture).sign
    for other, dialect in SIGNED:
        for twin, some in spellings(other, dialect) if other != architecture else ():
            taken = [name for name in some if re.search(sign, name)]
            where = f"the sign {sign!r} matches {len(taken)} of {len(some)} names of {other}"
            where = f"{where} ({dialect}, tiny {twin!r}), too many to tell them apart: {', '.join(taken[:4])}"
            assert not taken or specs.likely(some) == other, where


def test_only_one_spec_is_imported_and_which_does_not_matter(monkeypatch, run):
    told = "import sys; print([m for m in sys.modules if m in {'specs.' + n for n in __import__('specs').names()}])"
    code = f"from convert.__main__ import main; main(['inspect', r'{GOOGLE}', '--json']); {told}"
    *printed, loaded = python("-c", code).stdout.splitlines()
    assert loaded == "['specs.mlp_mixer']"
    for guess in ("raft_mlp", None):
        monkeypatch.setattr("specs.likely", lambda _, guess=guess: guess)
        assert run("inspect", GOOGLE, "--json")[1].splitlines() == printed


def test_help_imports_next_to_nothing():
    """40 ms of start-up are argparse and little else: what would cost more is not there."""
    heavy = ("numpy", "dataclasses", "json", "zipfile", "specs")
    code = "from convert.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    done = python("-c", f"{BARE}\n{code}\nprint({imported(heavy)})")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "google2torch" in done.stdout
    assert python("-m", "convert", "--help").returncode == 0


INSPECT_NEEDS_NOT = (  # what reads payloads, hashes, writes and compares, and what only errors need
    "numpy", "ml_dtypes", "xxhash", "hashlib", "tempfile", "subprocess", "importlib.metadata", "difflib", "logging",
    "convert.arrays.casting", "convert.records.new", "convert.plans.refusal", "convert.reading.replicas",
    "convert.table.file", "convert.config.open_fields", "convert.files.zip_writer",
    "convert.execute", "convert.command_line.conversion", "convert.diff", "convert.table.by_table",
    "convert.arrays.payload", "convert.records.verification", "convert.reading.parametrized", "convert.optimizer",
    "ports", "parity",
)  # fmt: skip


def test_inspect_imports_only_what_describes_a_file():
    code = f"{BARE}; from convert.__main__ import main; main(['inspect', r'{GOOGLE}', '--json']); "
    done = python("-c", f"{code}print({imported(INSPECT_NEEDS_NOT)})")
    assert done.stdout.splitlines()[-1] == "[]"


def test_inspect_compiles_no_annotations():
    """A NamedTuple compiles each annotation that is a string, and the first of them costs 3 ms: so the modules that
    `inspect` imports do without `from __future__ import annotations` where they define records."""
    count = "import typing; texts = []; typing.compile = lambda *a: texts.append(a) or compile(*a)"
    code = f"{count}; from convert.__main__ import main; main(['inspect', r'{GOOGLE}', '--json']); print(texts)"
    assert python("-c", code).stdout.splitlines()[-1] == "[]"
