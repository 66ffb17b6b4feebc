"""Faults while writing: whatever happens, the old output or the new one is there, whole, and running again succeeds."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from convert.__main__ import main
from convert.errors import ConvertError
from convert.execute import execute
from convert.files import atomic, open_checkpoint
from convert.files.atomic import reserve
from convert.plans.planning import plan
from convert.records.record import SEAL, read
from convert.records.verification import verify
from convert.running import guarded

from .commands import GOOGLE, GOOGLE_NOTE, ROOT, listing
from .injection import Before, content, forked

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # a disk would spend minutes in fsync

# suffix, route, further arguments, what carries the final name
TARGETS = {
    "inside": ("m.safetensors", "google2torch", [], "m.safetensors"),
    "beside": ("m.msgpack", "google2flax", [], "m.msgpack"),
    "zip": ("m.pt", "google2torch", [], "m.pt"),
    "shards": ("m.safetensors", "google2torch", ["--shard-size", "5kB"], "m.safetensors.index.json"),
    "equal shards": ("m.safetensors", "google2torch", ["--shard-size", "5kB"], "m.safetensors.index.json"),
    # of a format that does not keep the name of their index
    "nameless shards": ("m.msgpack", "google2flax", ["--shard-size", "5kB"], "m.msgpack.index.json"),
}
ALIKE = ("equal shards", "nameless shards")  # in float16, and in bfloat16 as many shards of the same names


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Words of a conversion of a Mixer with a single block: (folder, target, further words)."""
    source = tmp_path_factory.mktemp("source") / "s.npz"
    np.savez(
        source, **{name: array for name, array in np.load(GOOGLE).items() if not re.match("MixerBlock_[12]", name)}
    )

    def words(folder, target, *more):
        name, route, own, _ = TARGETS[target]
        dtype = ["--dtype", "float16"] if target in ALIKE and "--dtype" not in more else []
        return [route, str(source), "-o", str(folder / name), *own, *dtype, *more]

    return words


@pytest.mark.parametrize("before", ["over an old one", "alone"])
@pytest.mark.parametrize("target", TARGETS)
def test_killed_at_every_change_on_disk(target, before, arguments):
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        dtype = "bfloat16" if target in ALIKE else "float64"  # as many shards of the same names, or more
        old = [] if before == "alone" else arguments(folder, target, "--dtype", dtype)
        new = arguments(folder, target, *(["--force"] if old else []))
        words = [folder, folder / TARGETS[target][3], json.dumps(old), json.dumps(new)]
        command = [sys.executable, "-m", "parity_tests.injection", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert (found["last"], found["changed"]) == (0, True)
    assert found["points"] > 20  # one for each tensor at least


@pytest.mark.parametrize(("out", "size"), [("x.safetensors", None), ("x.safetensors", 5000), ("x.dcp", None)])
def test_errors_of_an_unfinished_file_name_the_target(out, size, tmp_path):
    def prove(path):
        raise ConvertError(f"{path}: does not fit", [f"{path} again"])

    with plan(GOOGLE, dst="torch", assume=True) as planned, pytest.raises(ConvertError) as refused:
        execute(planned, tmp_path / out, prove=prove, shard_size=size)
    assert str(refused.value) == f"{tmp_path / out}: does not fit\n  - {tmp_path / out} again"


def fail(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_disk_full_and_control_c_at_every_write(run, target, error, tmp_path, arguments):
    assert run(*arguments(tmp_path, target, "--dtype", "float64"))[0] == 0
    old = content(tmp_path)
    code = 0
    for number in range(10_000):
        with Before(number, fail(error)) as before:
            code, out, err = run(*arguments(tmp_path, target, "--force"))
        if before.count <= number or content(tmp_path) != old:
            break
        assert (code, out) == (130 if isinstance(error, KeyboardInterrupt) else 1, "")
        assert "No space left on device" in err or "interrupted" in err
        assert err.count("convert: ") == 1
        assert listing(tmp_path) == sorted(old)  # no temporary either
    assert number > 20  # all before the first file gets its name
    assert run(*arguments(tmp_path, target, "--force"))[0] == 0
    assert listing(tmp_path) == sorted(content(tmp_path))


@pytest.mark.parametrize("target", ["inside", "beside", "zip"])
@pytest.mark.parametrize("limit", [0, 1000, 8000])
def test_a_limit_on_the_size_of_files(target, limit, tmp_path, arguments):
    """`ulimit -f`: writes are cut short, then refused."""
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
    code += "from convert.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-B", "-c", code, *arguments(tmp_path, target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "m." in done.stderr and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk(run, small_disk, monkeypatch, arguments):
    code, _, err = run(*arguments(small_disk, "inside", "--dtype", "float64"))
    assert code == 1
    assert "m.safetensors: needs" in err  # told before anything is written
    monkeypatch.setattr("convert.targets.check_room", lambda *_: None)
    code, _, err = run(*arguments(small_disk, "inside", "--dtype", "float64"))
    assert code == 1
    assert "No space left on device" in err
    assert listing(small_disk) == []
    assert run(*arguments(small_disk, "inside"))[0] == 0
    assert listing(small_disk) == ["m.safetensors"]


def test_a_folder_that_counts_no_blocks_is_not_called_full(run, arguments):
    code, _, err = run(*arguments(Path("/proc"), "inside"))
    assert code == 1 and "cannot be written" in err and "make room" not in err


def test_space_is_set_aside_without_a_change_of_size(tmp_path):
    with open(tmp_path / "x", "w+b", buffering=0) as file:
        reserve(file, 1 << 20)
        assert os.fstat(file.fileno()).st_size == 0
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
    with open("/dev/null", "wb", buffering=0) as unsupported:
        reserve(unsupported, 1 << 20)


@pytest.fixture
def open_to_all():
    """A folder that other users may look into; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_written(open_to_all):
    """Told before anything is read; root may write anywhere, so somebody else tries."""
    folder = open_to_all / "locked"
    folder.mkdir(0o555)
    copy = str(shutil.copy(GOOGLE, open_to_all / "s.npz"))
    warm = str(open_to_all / "warm.safetensors")  # imports what is needed below
    assert main(["google2torch", copy, "-o", warm]) == 0

    def attempt():
        os.dup2(said.fileno(), 2)
        sys.stderr = said
        if os.geteuid() == 0:
            os.setuid(65534)
        code = main(["google2torch", copy, "-o", str(folder / "x.safetensors")])
        said.flush()
        return code

    with tempfile.TemporaryFile("w+") as said:
        code = forked(attempt)
        said.seek(0)
        assert "is not writable" in said.read()
    assert code == 1
    assert listing(folder) == []


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "s.npz"
    path.parent.mkdir()
    shutil.copy(GOOGLE, path)
    return path


@pytest.mark.parametrize("moment", [0, 10, 40])
def test_a_source_truncated_meanwhile(run, source, tmp_path, moment):
    out = tmp_path / "x.safetensors"
    assert run("google2torch", GOOGLE, "-o", out, "--dtype", "float64")[0] == 0
    old = out.read_bytes()
    with Before(moment, lambda: os.truncate(source, 5000)):
        code, _, err = run("google2torch", source, "-o", out, "--force")
    assert code == 1
    assert "s.npz" in err
    assert "truncated" in err or "changed while it was read" in err
    assert out.read_bytes() == old
    assert listing(tmp_path) == ["in", "x.safetensors"]


@pytest.mark.parametrize("more", [[], ["--no-verify"]], ids=["hashed", "unhashed"])
def test_a_source_replaced_in_place_meanwhile(run, source, tmp_path, more):
    def rewrite():
        data = source.read_bytes()
        with source.open("r+b") as file:
            file.write(data)
        os.utime(source, ns=(1, 1))

    with Before(10, rewrite):
        code, _, err = run("google2torch", source, "-o", tmp_path / "x.safetensors", *more)
    assert code == 1
    assert "s.npz: changed while it was read" in err
    assert listing(tmp_path) == ["in"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_names_are_given_waits_for_them(number, run, tmp_path, monkeypatch):
    """Half the shards under their names would be no checkpoint, and would stand in the way of the next one."""
    publish, given = atomic.publish, []

    def publish_and_signal(*words):
        publish(*words)
        given.append(words)
        if len(given) == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(atomic, "publish", publish_and_signal)
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    before = {n: signal.signal(n, lambda n, _: sys.exit(128 + n)) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        code, _, _ = run("google2torch", GOOGLE, "-o", tmp_path / "m.safetensors", "--shard-size", "9kB")
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)
        signal.signal(signal.SIGINT, ctrl_c)
    assert (code, len(given) > 3) == (128 + number, True)
    assert run("verify", tmp_path / "m.safetensors.index.json")[0] == 0
    assert not [name for name in listing(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_nothing_is_left_behind(number, tmp_path):
    """As by a scheduler, or a terminal that is closed, while the file is written and a thread syncs it."""
    code = "import os, signal, sys, convert.arrays.payload as p; from convert.__main__ import program\n"
    code += f"signal.signal({int(number)}, signal.SIG_DFL); chunks = p.chunks\n"  # also where the tests run under nohup
    code += f"def ending(*words):\n    os.kill(os.getpid(), {int(number)}); yield from chunks(*words)\n"
    code += "import convert.execute as s; s.chunks = ending; sys.exit(program())"
    words = ["google2torch", str(GOOGLE), "-o", str(tmp_path / "x.safetensors")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", GOOGLE_NOTE)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("module", "out"), [("atomic", "x.msgpack"), ("atomic_folder", "x.orbax")])
def test_asked_to_end_while_the_unfinished_target_is_created(module, out, tmp_path):
    code = f"import os, signal, sys, convert.files.{module} as a; from convert.__main__ import program\n"
    code += "lock = a._lock\n"
    code += "def ending(*words):\n    made = lock(*words); os.kill(os.getpid(), signal.SIGTERM); return made\n"
    code += "a._lock = ending; sys.exit(program())"
    words = ["google2flax", str(GOOGLE), "-o", str(tmp_path / out)]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, listing(tmp_path)) == (143, []), done.stderr


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path):
    code = "import os, signal, sys, convert.execute as s; from convert.__main__ import program\n"
    code += "signal.signal(signal.SIGHUP, signal.SIG_IGN); write = s._write_whole\n"
    code += "def hung_up(job):\n    os.kill(os.getpid(), signal.SIGHUP); return write(job)\n"
    code += "s._write_whole = hung_up; sys.exit(program())"
    words = ["google2torch", str(GOOGLE), "-o", str(tmp_path / "x.safetensors")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, listing(tmp_path)) == (0, ["x.safetensors"]), done.stderr


@pytest.mark.parametrize("error", [ImportError("initialization failed"), RuntimeError("Error calling __set_name__")])
@pytest.mark.parametrize(("ending", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_import_that_is_interrupted_ends_the_command(ending, status, error, capsys):
    """C code makes another error of it."""

    def work():
        raise error from ending

    assert guarded("convert", work, [], "interrupted") == status
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(ImportError, match="no such module"):
        guarded("convert", lambda: exec("raise ImportError('no such module')"), [])


def test_a_deferred_module_runs_again_where_ctrl_c_ended_it(tmp_path):
    """It does not run when it is imported a second time, where Python drops a Ctrl-C."""
    (tmp_path / "late.py").write_text("import sys; sys.runs.pop()(); value = 1\n")
    code = "import sys, convert.running as r; sys.meta_path.insert(0, r.Deferred('late')); import late; import late\n"
    code += "sys.runs = [int, exec('def f(): raise KeyboardInterrupt') or f]\n"
    code += "try: late.value\nexcept KeyboardInterrupt: import late; print(late.value, len(sys.runs))\n"
    python_path = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=python_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1 0\n", done.stderr


def test_ctrl_c_in_a_text_that_is_run_does_not_end_the_process_by_the_signal(tmp_path):
    """Imports run texts, as of dataclasses: after that, `python -m` itself would end by SIGINT."""
    code = f"import sys; sys.path.append({str(ROOT)!r}); from convert.running import guarded\n"
    code += "sys.exit(guarded('convert', lambda: exec('raise KeyboardInterrupt'), []))"
    (tmp_path / "interrupted.py").write_text(code)
    words = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "python -m convert: interrupted\n")


@pytest.mark.parametrize("target", TARGETS)
def test_one_of_two_conversions_wins_whole_and_the_other_says_so(run, target, tmp_path, arguments):
    answers = []

    def other():
        words = [sys.executable, "-m", "convert", *arguments(tmp_path, target, "--dtype", "float64")]
        answers.append(subprocess.run(list(map(str, words)), capture_output=True, cwd=ROOT, check=False).returncode)
        answers.extend(run(*arguments(tmp_path, target, "--force")))

    with Before(15, other):
        code, _, _ = run(*arguments(tmp_path, target))
    assert code == 0
    assert answers[:2] == [1, 1]
    assert "another conversion is writing it" in answers[3]
    assert verify(str(tmp_path / TARGETS[target][3])).problems == []
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_appears_meanwhile_stays_whole(run, target, tmp_path, arguments, monkeypatch):
    """Another conversion ends after this one has seen no target and before it locks its own: the record stays too."""
    executing = sys.modules["convert.execute"]
    first = executing.check_steps

    def other(plan):
        monkeypatch.setattr(executing, "check_steps", first)
        assert run(*arguments(tmp_path, target))[0] == 0
        first(plan)

    monkeypatch.setattr(executing, "check_steps", other)
    code, _, err = run(*arguments(tmp_path, target, "--dtype", "float64"))
    assert code == 2 and "appeared meanwhile (--force replaces it)\n" in err
    assert verify(str(tmp_path / TARGETS[target][3])).problems == []
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


def test_many_conversions_at_once(tmp_path, arguments):
    """Whichever wins, what carries the name is whole; the losers exit with 1."""
    dtypes = ("float64", "float32", "float16", "bfloat16")
    words = [sys.executable, "-m", "convert", *arguments(tmp_path, "beside", "--force", "--dtype")]
    started = [subprocess.Popen([*words, dtype], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
               for dtype in dtypes]  # fmt: skip
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert any(code == 0 for _, code in ends)
    assert all(code == 0 or "another conversion" in err for err, code in ends), ends
    assert listing(tmp_path) == ["m.msgpack", "m.msgpack.json"]
    assert verify(str(tmp_path / "m.msgpack")).problems == []


def test_a_kill_between_two_names_of_one_file_harms_no_later_run(run, tmp_path, arguments):
    """Killed after link(2): the temporary is the target under a second name, and must not be truncated."""
    out = tmp_path / "m.safetensors"
    assert run(*arguments(tmp_path, "inside"))[0] == 0
    os.link(out, tmp_path / ".m.safetensors.triptych.part")
    old = out.read_bytes()
    with Before(3, fail(OSError(errno.EIO, "Input/output error"))):
        code, _, err = run(*arguments(tmp_path, "inside", "--force"))
    assert code == 1
    assert "Input/output error" in err
    assert out.read_bytes() == old
    assert listing(tmp_path) == ["m.safetensors"]


def test_what_a_killed_run_left_is_swept(run, tmp_path, arguments):
    (tmp_path / ".m.safetensors.triptych.part").write_bytes(bytes(1_000_000))
    assert run(*arguments(tmp_path, "inside"))[0] == 0
    assert listing(tmp_path) == ["m.safetensors"]
    assert run("verify", tmp_path / "m.safetensors")[0] == 0


def test_damage_between_writing_and_reading_back(run, tmp_path, arguments):
    """A file that does not read back as it was meant does not get the name."""
    part = tmp_path / ".m.msgpack.triptych.part"

    def damage():
        with part.open("r+b") as file:
            file.seek(300)
            byte = file.read(1)
            file.seek(300)
            file.write(bytes([byte[0] ^ 1]))

    with Before(25, damage):  # long after what lies at byte 300
        code, _, err = run(*arguments(tmp_path, "beside"))
    assert code == 1
    assert "reads back otherwise than it was written" in err
    assert listing(tmp_path) == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_disk_that_fails_once(run, target, tmp_path, arguments, monkeypatch):
    """The system tells an error of the disk to one sync and to no later one."""
    sync, errors = os.fsync, [OSError(errno.EIO, "Input/output error")]

    def failing(descriptor):
        if errors:
            raise errors.pop()
        sync(descriptor)

    monkeypatch.setattr("convert.execute.PAUSE", 0)
    monkeypatch.setattr(os, "fsync", failing)
    code, _, err = run(*arguments(tmp_path, target))
    assert (code, errors) == (1, [])
    assert "cannot be written: Input/output error" in err
    assert listing(tmp_path) == []


@pytest.mark.parametrize("target", ["inside", "beside", "shards"])
def test_without_verification_nothing_is_hashed_or_read_back(run, target, tmp_path, arguments, monkeypatch):
    name = TARGETS[target][3]
    assert run(*arguments(tmp_path, target))[0] == 0
    with open_checkpoint(tmp_path / name) as reader:
        hashed, values = read(reader).content, {name: bytes(reader.read(name)) for name in reader.tensors}
    for call in ("damage", "hashing.sha256", "hashing.xxhash.xxh3_128"):
        monkeypatch.setattr(f"convert.execute.{call}", None)
    assert run(*arguments(tmp_path, target, "--no-verify", "--force"))[0] == 0
    with open_checkpoint(tmp_path / name) as reader:
        bare = read(reader).content
        assert {name: bytes(reader.read(name)) for name in reader.tensors} == values
    assert bare["source"].pop("sha256") is None
    assert len(hashed["source"].pop("sha256")) == 64
    assert all(len(line.pop("xxh3_128")) == 32 for line in hashed["tensors"].values())
    assert bare.pop(SEAL) != hashed.pop(SEAL)
    assert bare == hashed
    code, _, err = run("verify", tmp_path / name)
    assert code == 1
    assert f"{name}: was written with --no-verify" in err


def test_a_record_without_its_hashes_was_changed(run, tmp_path):
    """Its file was not written without them: the record would say so of itself."""
    path = tmp_path / "x.npz"
    assert run("google2google", GOOGLE, "-o", path)[0] == 0
    record = json.loads((tmp_path / "x.npz.json").read_text())
    for line in record["tensors"].values():
        line["xxh3_128"] = None
    (tmp_path / "x.npz.json").write_text(json.dumps(record))
    code, printed, _ = run("verify", path)
    assert code == 1 and "head/bias has no hash in the record" in printed and "other values" not in printed
    for line in record["tensors"].values():
        del line["xxh3_128"]
    (tmp_path / "x.npz.json").write_text(json.dumps(record))
    code, _, err = run("verify", path)
    assert code == 1 and "is not as it was written, and holds no hashes" in err and "--no-verify" not in err, err


def test_a_record_is_taken_for_its_own_file_only(run, tmp_path, arguments):
    """Another file of the same size beside the same .json: only its configuration is used, with a note."""
    out = tmp_path / "m.msgpack"
    assert run(*arguments(tmp_path, "beside"))[0] == 0
    with open_checkpoint(out) as reader:
        assert read(reader).content["config"]["gelu"] == "tanh"
    source = arguments(tmp_path, "beside")[1]
    np.savez(tmp_path / "other.npz", **{name: np.flip(array) for name, array in np.load(source).items()})
    assert run("google2flax", tmp_path / "other.npz", "-o", tmp_path / "other.msgpack")[0] == 0
    assert (tmp_path / "other.msgpack").stat().st_size == out.stat().st_size
    shutil.copy(tmp_path / "other.msgpack", out)
    with open_checkpoint(out) as reader:
        assert read(reader).change == "whose bytes are not those that were written"
        assert read(reader).hints == {"architecture": "mlp_mixer"}
    code, printed, _ = run("verify", out)
    assert (code, "m.msgpack.json no longer fits the file" in printed) == (1, True)
    _, _, err = run("flax2torch", out, "--dry-run")
    assert "only its configuration is used" in err
