"""The command line as people meet it: the installed command, each command's help, a terminal of 80 columns."""

import json
import os
import pty
import re
import subprocess
import sys
import tomllib

import pytest

from convert.command_line.parsers import COMMANDS, TABLE, parser
from convert.files import written_suffixes
from convert.reading.recognise import dialects
from convert.terminal import say, table, wrapped
from convert.version import __version__
from parity.__main__ import parser as parity
from ports.__main__ import main as ports

from .commands import GOOGLE, GOOGLE_NOTE, ROOT, TIMM, python_path
from .conftest import needs
from .golden import Case


@pytest.fixture
def triptych(tmp_path):
    """Run the installed command, as pip writes it, in a folder with a convert.py, ports.py and parity/ of its own."""
    home, entry = tmp_path / "home", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = entry["triptych"].split(":")
    (home / "parity").mkdir(parents=True)
    for name in ("convert.py", "ports.py", "specs.py", "parity/__init__.py", "parity/__main__.py"):
        (home / name).write_text("raise SystemExit('the code of the user ran')")
    script = tmp_path / "bin" / "triptych"
    script.parent.mkdir()
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")

    def call(*words, path=()):
        env = {**os.environ, **python_path(*path)}
        command = [sys.executable, str(script), *map(str, words)]
        return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=120, check=False)

    return call


def test_the_installed_command_works_beside_files_of_the_same_names(triptych, tmp_path):
    done = triptych("convert", "google2torch", GOOGLE, "-o", tmp_path / "x.safetensors")
    assert (done.returncode, done.stderr) == (0, GOOGLE_NOTE)
    assert (tmp_path / "x.safetensors").exists()
    done = triptych("ports")
    assert done.returncode == 0 and "59,880,472" in done.stdout
    done = triptych("parity", "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"Triptych {__version__}, Python ")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["flax", "torch", "paddle"]


def test_a_process_for_each_framework_works_beside_files_of_the_same_names(triptych):
    needs("torch")
    needs("flax")
    words = ["--isolate", "--check", "forward", "--frameworks", "torch", "flax", "--json"]
    (row,) = json.loads(triptych("parity", "convmixer:tiny 1536/20", *words).stdout)
    assert row["passed"], row


def test_the_installed_command_is_named_as_it_was_called(triptych):
    for words, message in (
        (
            ["convert", "inspekt"],
            "triptych convert: 'inspekt' is neither a command nor a route, did you mean 'inspect'? (",
        ),
        (["convert", "inspekt"], "(triptych convert --help lists the commands, triptych convert routes the routes)"),
        (["convert", "inspect"], "triptych convert inspect: the following arguments are required: CKPT"),
        (["parity", "--batch", "x"], "(see triptych parity --help)"),
        (["prity"], "triptych: unknown name 'prity', did you mean 'parity'?"),
        (["derive", "a.py:f"], "triptych: derive is a command of convert: triptych convert derive"),
        (["google2torch"], "triptych: google2torch is a command of convert: triptych convert google2torch"),
    ):
        done = triptych(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert triptych("convert", "diff", "--help").stdout.startswith("usage: triptych convert diff A B [options]")
    page = triptych("--help").stdout.partition("\ndocumentation: ")[2].strip()
    assert page.endswith("quick-start.md") and page.startswith("/")  # where the packages lie, not here


def test_the_command_runs_as_a_module_too():
    for words, said in (
        (["--version"], f"Triptych {__version__}"),
        (["prity"], "python -m triptych: unknown name 'prity'"),
    ):
        command = [sys.executable, "-m", "triptych", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert (done.stdout + done.stderr).startswith(said), done


def test_processes_of_tests_find_what_the_path_has(monkeypatch):
    """Packages may be installed in a folder of PYTHONPATH alone."""
    monkeypatch.setenv("PYTHONPATH", "/packages")
    assert python_path("/first")["PYTHONPATH"].split(os.pathsep) == ["/first", str(ROOT), "/packages"]
    monkeypatch.delenv("PYTHONPATH")
    assert python_path()["PYTHONPATH"] == str(ROOT)


def test_a_path_that_hides_our_packages_is_named(triptych, tmp_path):
    done = triptych("ports", path=[str(tmp_path / "home")])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"triptych: {tmp_path}/home/specs.py hides Triptych's own: take its folder out of PYTHONPATH\n"
    )


@pytest.mark.parametrize("statement", ["import ports", "import parity; parity.compare"])
def test_an_import_beside_a_file_of_the_same_name_says_which(tmp_path, statement):
    """As of a script: Python then looks into its folder first."""
    (tmp_path / "convert.py").write_text("")
    (tmp_path / "script.py").write_text(statement)
    env = {**os.environ, **python_path()}
    for words, code in ((["script.py"], 1), (["-P", "script.py"], 0)):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        said = f"ImportError: {tmp_path}/convert.py hides Triptych's own: rename it, or run the script as python -P"
        assert (done.returncode, said in done.stderr) == (code, bool(code)), done.stderr
        for page in re.findall(r"python -P \((.*)\)", done.stderr):
            assert os.path.isabs(page) and os.path.isfile(page)


@pytest.mark.parametrize("command", ["", *COMMANDS, "google2torch"])
def test_each_help_fits_and_shows_its_own_options(command):
    text = parser(command).format_help()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert re.search(r"^examples?:\n  python -m convert \S", text, re.MULTILINE)
    own = {"inspect": "--hash", "diff": "--rtol", "google2torch": "--prove", "derive": "--left-weights"}
    shown = set(re.findall(r"^  (?:-\w \w+, )?(--[\w-]+)", text.partition("\noptions:")[2], re.MULTILINE))
    for other, option in own.items():
        if command and command != "SRC2DST":
            assert (option in shown) == (other == command)


def test_help_of_parity_lists_its_version_last():
    options = re.findall(r"^  (--[\w-]+)", parity().format_help(), re.MULTILINE)
    assert options[-1] == "--version" and options[-4:-1] == ["--batch", "--steps", "--seed"]


def test_help_names_every_suffix_that_is_written():
    for command in ("google2torch", TABLE):
        paragraph = parser(command).format_help().partition("The suffix of OUT")[2].partition("\n\n")[0]
        assert set(re.findall(r"(?<![.\w])\.\w+", paragraph)) == set(written_suffixes())


def test_help_fits_into_the_columns_that_are_stated(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for command in ("", *COMMANDS):
        _, _, text = parser(command).format_help().partition("\n\n")
        assert [line for line in text.splitlines() if len(line) > 60] == []


def on_a_terminal(*words, cols=80, **environment):
    """Run `python -m convert` on a terminal of 80 columns, or of others; return what it shows."""
    master, slave = pty.openpty()
    subprocess.run(["stty", "cols", str(cols), "rows", "24"], stdin=slave, check=True)
    env = {**os.environ, "TERM": "xterm", **environment}
    env.pop("COLUMNS", None)  # which a test runner may state of its own output
    command = [sys.executable, "-m", "convert", *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(master)
    assert process.returncode is not None
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("words", [
    ["diff", GOOGLE, TIMM], ["google2timm", GOOGLE, "-o", "nowhere.pth", "--dry-run"], ["routes"],
    ["inspect", GOOGLE], ["google2torch", GOOGLE, "--weights", "ema"],
], ids=lambda words: words[0])  # fmt: skip
def test_a_terminal_of_80_columns_breaks_nothing(words):
    coloured = on_a_terminal(*words)
    plain = on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert [line for line in plain.splitlines() if len(line) > 80] == []


def test_the_columns_of_routes_and_plans_align_on_a_terminal(tmp_path):
    listed = on_a_terminal("routes", "mlp_mixer", NO_COLOR="1").splitlines()[1:]
    column = listed[0].index("suffix")
    assert {line[column - 2 : column] for line in listed} == {"  "}
    assert sum(line[column] == "." for line in listed) == len(dialects("mlp_mixer"))
    shown = on_a_terminal("google2timm", GOOGLE, "-o", tmp_path / "x.pth", "--dry-run", NO_COLOR="1").splitlines()
    head = next(k for k, line in enumerate(shown) if line.split() == ["target", "shape", "how"])
    rows = shown[head + 1 : -1]
    assert len(rows) == 36 and shown[-1] == "42 arrays; nothing was written"
    assert all(line.startswith("    <- ") for line in rows[1::2])
    for column in map(shown[head].index, ("shape", "how")):
        assert all(line[column - 2 : column] == "  " and line[column] != " " for line in rows[::2])


@pytest.mark.parametrize(("cols", "widest"), [(70, 70), (90, 90), (140, 100)])
def test_a_wide_terminal_is_filled_to_100_columns(cols, widest):
    """Help and prose; where no terminal shows them, help has 80 columns."""
    for words in (["google2torch", "--help"], ["google2torch", GOOGLE, "--weights", "ema"]):
        lines = on_a_terminal(*words, cols=cols, NO_COLOR="1").splitlines()
        words_fit = [line for line in lines if " " in line.strip()]
        assert widest - 25 < max(map(len, words_fit)) <= widest


def test_a_stacked_table_breaks_no_row_that_fits_without_its_last_cell(monkeypatch):
    words = (
        ("target", "how", "<- source"),
        [("x" * 50, "copy", "<- a.weight"), ("y", "copy", "<- " + "b" * 20), ("z", "zeros", "")],
    )
    monkeypatch.setattr("convert.terminal.columns", lambda stream: 80)
    assert table(*words, stacked=True)[1:3] == [f"  {'x' * 50}  copy", "    <- a.weight"]
    assert [line for line in table(*words, stacked=True) if not line.strip()] == []
    assert table(words[0], words[1][1:], stacked=True)[1] == f"  y       copy   <- {'b' * 20}"


def test_of_what_is_printed_the_verdict_alone_has_a_colour(tmp_path):
    colours = r"\x1b\[3[0-9][;m](?!note|warning)"
    shown = on_a_terminal("diff", GOOGLE, TIMM)
    assert "\x1b[31;1mdifferent\x1b[0m: " in shown and len(re.findall(colours, shown)) == 1
    shown = on_a_terminal("verify", "nothing.npz")
    assert shown.startswith("\x1b[31;1mpython -m convert\x1b[0m: nothing.npz: ")
    shown = on_a_terminal("inspect", GOOGLE)
    assert "\x1b[1mformat:\x1b[0m       npz" in shown and not re.search(colours, shown)
    open_fields = on_a_terminal("inspect", Case("mobileformer_a_base").folder / "weights.pdparams")
    assert "\x1b[33mopen:\x1b[0m         4 fields" in open_fields and len(re.findall(colours, open_fields)) == 1


def test_a_verdict_is_coloured_across_lines(monkeypatch, capsys):
    monkeypatch.setattr("convert.terminal.columns", lambda stream: 30)
    monkeypatch.setattr("convert.terminal.wants_colour", lambda stream: True)
    say("complete, but not proven, as the models differ in two epsilons: outputs differ", kind="bad")
    assert capsys.readouterr().out.startswith("\x1b[31;1mcomplete, but not proven\x1b[0m, as\n  the models")
    say("complete, but not proven, and more", kind="bad", words="and more")
    assert capsys.readouterr().out == "complete, but not proven, \x1b[31;1mand\n  more\x1b[0m\n"


def test_text_is_wrapped_between_words():
    number = "0.12345678901234567890"
    assert wrapped(f"differs by {number} at-most here", 24, "", "  ") == ["differs by", f"  {number}", "  at-most here"]
    assert wrapped("x" * 30, 10) == ["x" * 30]
    assert wrapped("give lengths (--set h=... --set d=...)", 20) == ["give lengths", "(--set h=...", "--set d=...)"]
    for command in ("python -m convert diff --help", "triptych parity --help", "python -m ports convmixer"):
        assert wrapped(f"is required (see {command})", 24) == ["is required", f"(see {command})"]
    assert wrapped("blocks.0.weight  float32 [20, 36]", 26, "", "  ") == ["blocks.0.weight", "  float32 [20, 36]"]


def test_a_table_gives_a_long_last_cell_its_own_line_on_a_terminal(monkeypatch):
    words = ("name", "error", "where"), [("a", "1.5", "here"), ("bb", "22.5", "w" * 70)], [1]
    assert table(*words)[2] == "  bb     22.5  " + "w" * 70
    monkeypatch.setattr("convert.terminal.columns", lambda stream: 80)
    lines = table(*words)
    assert lines == ["  name  error  where", "  a       1.5  here", "  bb     22.5", "    " + "w" * 70]


def test_quiet_prints_only_notes_and_what_is_wrong(run, tmp_path):
    words = ["google2timm", GOOGLE, "-o", tmp_path / "x.pth", "--quiet"]
    code, printed, err = run(*words)
    assert (code, printed) == (0, "") and err.startswith("note: ")
    assert run("verify", tmp_path / "x.pth", "--quiet") == (0, "", "")
    code, printed, _ = run("diff", GOOGLE, TIMM, "--quiet")
    assert (code, printed) == (1, run("diff", GOOGLE, TIMM)[1].splitlines()[0] + "\n")
    assert run("diff", GOOGLE, GOOGLE, "--set", "gelu=erf", "--set", "norm_eps=1e-6", "--quiet")[:2] == (0, "")
    code, printed, err = run("inspect", tmp_path / "x.pth", "--quiet")
    assert (code, printed) == (0, "") and all(line.startswith(("note: ", "  ")) for line in err.splitlines())


def test_the_list_of_architectures_is_a_table_of_even_columns(capsys):
    from ports.__main__ import main

    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 30 and {len(line) for line in lines} == {len(lines[0])}
    assert {line.split()[1] for line in lines} >= {"variant", "cifar10-mixer"}


def test_the_fields_of_an_architecture_fit_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setattr("convert.terminal.columns", lambda stream: 60)
    assert ports(["mlp_mixer"]) == 0
    printed = capsys.readouterr().out
    assert "ports.build Defaults are" in " ".join(printed.split())
    assert [line for line in printed.splitlines() if len(line) > 60] == []


@pytest.mark.parametrize("name", ["mobile_former", "raft_mlp"])
def test_the_fields_of_an_architecture_have_80_columns_where_no_terminal_shows_them(name: str, capsys):
    assert ports([name]) == 0
    assert 60 < max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_misspelled_new_is_recognised(capsys):
    assert ports(["nw", "my_network"]) == 2
    assert "unrecognized arguments: my_network, did you mean 'new'?" in capsys.readouterr().err
    assert ports(["mlp_mixer", "more"]) == 2
    assert "unrecognized arguments: more (see" in capsys.readouterr().err
