"""Orbax folders: what tensorstore writes is read alike, in any range, and hostile ones give one error soon.

The folders that tensorstore would not write are put together by hand in `corpus_orbax`.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from convert.errors import ConvertError, FormatError
from convert.files import open_checkpoint, writer_for
from convert.files.base import Tensor
from convert.files.folders import orbax_writer, tensorstore_process
from convert.table import by_table
from specs.table import Table

from ..commands import GOOGLE, listing
from ..test_distributed import needs_module, script, translate, write
from . import corpus_orbax
from .corpus_orbax import (
    ABOUT,
    DATA,
    GOOD,
    HOSTILE,
    chunk,
    interior,
    leaf,
    leaf_of,
    listed,
    made,
    packed,
    paths,
    table,
    tower,
    varints,
    zstd,
)
from .harm import soon

ts = pytest.importorskip("tensorstore", reason="it is not installed: pip install '.[orbax]'")
PEAK = 768  # megabytes of a child: its limit is 512 beside what its imports take


def tensors(folder):
    """{name: (shape, dtype, payload)}, within the time that a bad file may take."""
    with soon(str(folder)), open_checkpoint(folder) as reader:
        return {t.name: (t.shape, t.dtype, bytes(reader.read(t.name))) for t in reader.tensors.values()}


def refused(folder, match=None):
    with pytest.raises(FormatError, match=match) as caught:
        tensors(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


# Good ones

ZARR = {
    "plain": {"compressor": None},
    "zstd": {"compressor": {"id": "zstd", "level": 3}},
    "slashes": {"compressor": None, "dimension_separator": "/"},
    "blosc": {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}},
    "gzip": {"compressor": {"id": "gzip", "level": 5}},
    "order": {"compressor": None, "order": "F"},
    "big-endian": {"compressor": None, "dtype": ">f4"},
    "filled": {"compressor": None, "fill_value": 3.0},
}


@pytest.mark.parametrize("database", [True, False], ids=["ocdbt", "folder"])
@pytest.mark.parametrize("kind", ZARR)
def test_every_grid_of_chunks(kind, database, tmp_path):
    """Cut along any axes, ragged at the end, or larger than the array; read as tensorstore reads them."""
    expected = {}
    shapes = [((5, 7), grid) for grid in product((2, 5, 9), (3, 7, 8))]
    shapes += [((3, 4, 5), (2, 4, 3)), ((3, 4, 5), (2, 4, 5))]
    shapes += [((), ()), ((6,), (4,))] if kind != "order" else []  # both orders are one
    for number, (shape, chunks) in enumerate(shapes):
        base = f"file://{tmp_path}/"
        store = {"driver": "ocdbt", "base": base, "path": f"a{number}/"} if database else f"{base}a{number}/"
        about = {"dtype": "<f4", "shape": shape, "chunks": chunks, **ZARR[kind]}
        array = ts.open({"driver": "zarr", "kvstore": store, "metadata": about}, create=True).result()
        expected[f"a{number}"] = np.random.default_rng(number).standard_normal(shape, np.float32)
        array.with_transaction(None)[...] = expected[f"a{number}"]
    listed(tmp_path, expected, use_ocdbt=database)
    with open_checkpoint(tmp_path) as reader:
        for name, array in expected.items():
            assert bytes(reader.read(name)) == array.tobytes()
            for start in range(0, array.nbytes, 12):
                assert bytes(reader.read(name, start, array.nbytes)) == array.tobytes()[start:]


def array(folder, about, chunks):
    folder.mkdir(exist_ok=True)
    about = {"zarr_format": 2, "order": "C", "filters": None, "dimension_separator": ".", **about}
    (folder / ".zarray").write_text(json.dumps(about))
    for name, data in chunks.items():
        (folder / name).write_bytes(data)


def test_a_name_with_a_slash_lies_in_folders_of_its_folder(tmp_path):
    """As Orbax writes {"a/b": array} without a database."""
    about = {"shape": [2], "chunks": [2], "dtype": "<f4", "compressor": None, "fill_value": None}
    (tmp_path / "a").mkdir()
    array(tmp_path / "a" / "b", about, {"0": bytes(range(8))})
    listed(tmp_path, ["a/b"], use_ocdbt=False)
    with open_checkpoint(tmp_path) as reader:
        assert bytes(reader.read("a/b")) == bytes(range(8)) and not reader.skipped.counts


def test_an_array_alone_lies_in_a_folder_of_the_name_of_aggregated_ones(tmp_path):
    """As ArraySave writes it."""
    about = {"shape": [2], "chunks": [2], "dtype": "<f4", "compressor": None, "fill_value": None}
    array(tmp_path / "checkpoint", about, {"0": bytes(range(8))})
    listed(tmp_path, ["checkpoint"], use_ocdbt=False)
    with open_checkpoint(tmp_path) as reader:
        assert bytes(reader.read("checkpoint")) == bytes(range(8))


@pytest.mark.parametrize("stored", [False, None], ids=["says no", "says nothing"])
def test_absent_chunks_are_zeros_only_with_a_note_and_a_mark(stored, tmp_path):
    """Where the folder does not say that all chunks are stored, an absent one may be of zeros, or lost."""
    about = {"shape": [4, 6], "chunks": [2, 3], "dtype": "<f4", "compressor": None, "fill_value": None}
    chunks = {f"{row}.{column}": bytes(range(24)) for row, column in product(range(2), repeat=2)}
    array(tmp_path / "a", about, {})
    array(tmp_path / "b", about, chunks)
    array(tmp_path / "c", about, {**chunks, "2.0": bytes(24)})
    (tmp_path / "c" / "1.1").unlink()
    listed(tmp_path, "abc", use_ocdbt=False, store_array_data_equal_to_fill_value=stored)
    with by_table.plan(str(tmp_path), Table.parse("table 1\n{x=a|b|c}: i j <-> {x=u|v|w}: i j")) as plan:
        assert bytes(plan.reader.read("a")) == bytes(96)
        assert plan.facts()["supplied"] == ["u", "w"]
        assert [note for note in plan.notes() if "absent chunks are read" in note and note.endswith(": 'a', 'c'")]
    listed(tmp_path, "abc", use_ocdbt=False)
    refused(tmp_path, "'a' cannot be read: it has 0 of its 4 chunks")
    listed(tmp_path, "bc", use_ocdbt=False)
    refused(tmp_path, "'c' cannot be read: it has 3 of its 4 chunks")


def database(folder, arrays):
    """Write the rows of arrays that a process has into a database, a chunk for each two rows."""
    for name, (shape, rows) in arrays.items():
        store = {"driver": "ocdbt", "base": f"file://{folder}/", "path": f"{name}/"}
        about = {"dtype": "<f4", "shape": shape, "chunks": [2, *shape[1:]], "compressor": None}
        spec = {"driver": "zarr", "kvstore": store, "metadata": about, "open": True, "create": True}
        array = ts.open(spec).result()
        array[rows] = np.arange(np.prod(shape), dtype="f4").reshape(shape)[rows] + 1


@pytest.mark.parametrize("stored", [True, False], ids=["all stored", "zeros absent"])
def test_databases_of_several_hosts_are_read_where_they_are_merged(stored, tmp_path):
    """As of arrays that are sharded over hosts; what one of them has and the merged database lacks is not zeros."""
    first, second = {"a": ((4, 3), slice(0, 2)), "b": ((2,), slice(0, 2))}, {"a": ((4, 3), slice(2, 4))}
    database(tmp_path / "ocdbt.process_0", first)
    database(tmp_path / "ocdbt.process_1", second)
    listed(tmp_path, "ab", use_ocdbt=True, store_array_data_equal_to_fill_value=stored)
    refused(tmp_path, "lacks its file 'manifest.ocdbt', into which Orbax merges the databases of hosts")
    database(tmp_path, first)
    missing = "it has 1 of its 2 chunks" if stored else "ocdbt.process_1 has chunks of 'a' that the main database lacks"
    refused(tmp_path, missing)
    database(tmp_path, second)
    with open_checkpoint(tmp_path) as reader:
        assert bytes(reader.read("a")) == np.arange(1, 13, dtype="f4").tobytes()
        assert bytes(reader.read("b")) == np.array([1, 2], "f4").tobytes() and not reader.skipped.counts


def test_shards_whose_chunks_do_not_show_are_marked(tmp_path):
    """A chunk inside a shard may be absent though the shard is there."""
    inner = {"chunk_shape": [2, 3], "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}
    grid = {"name": "regular", "configuration": {"chunk_shape": [4, 6]}}
    codecs = [{"name": "sharding_indexed", "configuration": inner}]
    about = {"shape": [4, 6], "data_type": "float32", "chunk_grid": grid, "codecs": codecs}
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/a/", "metadata": about}
    ts.open(spec, create=True).result()[:2] = np.ones((2, 6), np.float32)
    for stored, filled in ((None, {"a"}), (True, set())):
        listed(tmp_path, "a", use_ocdbt=False, use_zarr3=True, store_array_data_equal_to_fill_value=stored)
        with open_checkpoint(tmp_path) as reader:
            assert reader.filled == filled


def test_a_missing_chunk_is_found_when_opened_and_when_read(tmp_path):
    payloads = write(tmp_path / "x.orbax", [Tensor("a", (3,), "float32")])
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{tmp_path}/x.orbax/"}).result()
    with open_checkpoint(tmp_path / "x.orbax") as reader:
        assert bytes(reader.read("a")) == payloads["a"]
    with pytest.raises(FormatError, match="missing"), open_checkpoint(tmp_path / "x.orbax") as reader:
        store.delete_range(ts.KvStore.KeyRange("a/0", "a/1")).result()
        reader.read("a")
    store.write("a/9", b"counts as no chunk").result()
    with pytest.raises(FormatError, match="has 0 of its 1 chunks"):
        open_checkpoint(tmp_path / "x.orbax")


IMPORTED = """
    import sys
    from convert.files import open_checkpoint
    with open_checkpoint(sys.argv[1]) as reader:
        for name in reader.tensors:
            reader.read(name)
        print(sorted(name for name in ("numpy", "jax", "orbax", "tensorstore") if name in sys.modules))
"""


def test_reading_imports_not_even_numpy_in_this_process(tmp_path):
    write(tmp_path / "x.orbax", [Tensor("a", (3,), "float32")])
    assert script(IMPORTED, tmp_path / "x.orbax").strip() == "[]"


def test_chunks_are_bands_of_rows_filled_up_with_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr("convert.files.folders.orbax_writer.CHUNK", 8)
    monkeypatch.setattr("convert.files.folders.orbax_writer.BATCH", 8)
    payloads = write(tmp_path / "x.orbax", [Tensor("a", (3,), "float32"), Tensor("b/c", (2, 3), "float16")])
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{tmp_path}/x.orbax/"}).result()
    assert store.read("a/0").result().value == payloads["a"][:8]
    assert store.read("a/1").result().value == payloads["a"][8:] + bytes(4)
    assert store.read("b.c/1.0").result().value == payloads["b/c"][6:]


def test_a_checkpoint_without_tensors_is_not_written(tmp_path):
    with open(tmp_path / "triptych.json", "w+b", buffering=0) as file, pytest.raises(ConvertError, match="without"):
        writer_for("x.orbax")(file, [], {})


def test_a_write_that_fails_is_an_error_of_the_system(tmp_path):
    """tensorstore raises ValueError; callers report and clean up after OSError."""
    (tmp_path / "x.orbax").mkdir()
    with open(tmp_path / "x.orbax" / "triptych.json", "w+b", buffering=0) as file:
        tensor = Tensor("a", (3,), "float32")
        writer = writer_for("x.orbax")(file, [tensor], {})
        (tmp_path / "x.orbax" / "d").write_text("a file where the folder of the values should be")
        writer.write(tensor, [bytes(12)])
        with pytest.raises(OSError, match="Not a directory"):
            writer.finish()


# URLs


def test_a_url_is_read_as_the_folder_is(run, tmp_path):
    """file:// here; gs:// and s3:// go the same way through tensorstore."""
    folder = translate(GOOGLE, tmp_path / "m.orbax", "flax")
    url = f"file://{folder}"
    for source in (folder, url):
        code, printed, _ = run("flax2google", source, "-o", tmp_path / "back.npz", "--force", "--json")
        assert code == 0
        assert json.loads(printed)["config"]["gelu"] == "tanh"  # the record travels
        assert run("diff", GOOGLE, tmp_path / "back.npz")[0] == 0
    assert run("inspect", url)[0] == run("diff", url, folder)[0] == 0
    code, _, err = run("flax2google", url)
    assert code == 2 and "-o" in err
    for target in (f"{url}2", "gs://bucket/x.orbax"):
        code, _, err = run("google2flax", GOOGLE, "-o", target)
        assert code == 2 and "URL" in err
    assert listing(tmp_path) == ["back.npz", "back.npz.json", "m.orbax"]


def test_aggregated_arrays_at_a_url(tmp_path):
    from .corpus_plain import PAYLOAD, tree
    from .corpus_plain import array as packed_array

    (tmp_path / "checkpoint").write_bytes(tree(packed_array()))
    assert tensors(f"file://{tmp_path}")["a"][2] == PAYLOAD


@pytest.mark.parametrize(
    ("url", "message"), [("file:///none/x", "nothing at this URL"), ("odd://x", "cannot be listed")]
)
def test_a_url_without_a_checkpoint(url, message):
    refused(url, message)


# Damaged ones


@pytest.fixture
def official(tmp_path):
    """What Orbax writes: two databases, nodes and chunks compressed."""
    needs_module("orbax.checkpoint", "dev")
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", {"a": np.arange(400, dtype=np.float64), "b": np.ones((2, 3), np.float32)})
    return tmp_path / "x"


def test_damaged_bytes_give_an_error_or_other_values(official):
    """Here and there in manifest and data: one error of ours, or arrays of the same names and sizes."""
    expected, outcomes = tensors(official), {"refused": 0, "read": 0}
    for path in [official / "manifest.ocdbt", *sorted((official / "d").iterdir())]:
        good = path.read_bytes()
        for at in range(3, len(good), len(good) // 4 + 1):
            for damaged in (good[:at], good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]):
                path.write_bytes(damaged)
                try:
                    found = tensors(official)
                except FormatError as error:
                    assert str(official) in str(error)
                    outcomes["refused"] += 1
                else:
                    assert {name: value[:2] for name, value in found.items()} == {
                        name: value[:2] for name, value in expected.items()
                    }
                    outcomes["read"] += 1
        path.write_bytes(good)
    assert tensors(official) == expected
    assert outcomes["refused"] > 8, outcomes


# Hostile ones


def hostile(folder, change):
    listed(folder, ["a"], use_ocdbt=True)
    change(folder)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_databases_are_refused(name, tmp_path):
    change, message = HOSTILE[name]
    (tmp_path / "x").mkdir()
    hostile(tmp_path / "x", change)
    refused(tmp_path / "x", message)


def test_what_is_put_together_by_hand_is_good_but_for_the_fault(tmp_path):
    good = [leaf_of(), tower(16), chunk(zstd(b"xy")), leaf_of(files=paths("../not used"))]
    for number, change in enumerate(good):
        folder = tmp_path / str(number)
        folder.mkdir()
        hostile(folder, change)
        assert tensors(folder)["a"][:2] == ((2,), "uint8")


def test_an_array_without_elements_takes_no_time(tmp_path):
    """However many chunks its other axes would have."""
    hostile(tmp_path, chunk(b"", shape=[1 << 62, 0], chunks=[1, 1]))
    assert tensors(tmp_path) == {"a": ((1 << 62, 0), "uint8", b"")}


def test_paths_in_a_node_begin_with_its_own(tmp_path):
    """As in what Orbax merges: a root of ours, a node of process 0, and a value that this one names."""
    below = packed(corpus_orbax.NODE_MAGIC, leaf({**GOOD, "a/0": (0, 3, 2)}, files=paths("d/values")))
    (tmp_path / "p0" / "d").mkdir(parents=True)
    (tmp_path / "p0" / "d" / "nodes").write_bytes(below)
    (tmp_path / "p0" / "d" / "values").write_bytes(b"123xy")
    root, files = interior(1, [(b"a", 0, len(below))]), varints([1, 10, 3]) + b"p0/d/nodes"
    made(tmp_path, packed(corpus_orbax.NODE_MAGIC, root[:1] + files + root[1 + len(table(DATA)) :]), height=1)
    listed(tmp_path, ["a"], use_ocdbt=True)
    assert tensors(tmp_path)["a"][2] == b"xy"


def test_links_out_of_a_folder_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    array(tmp_path / "elsewhere", ABOUT, {"0": b"xy"})
    listed(tmp_path / "x", ["a"], use_ocdbt=False)
    (tmp_path / "x" / "a").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "x", "has a link 'a': outside the folder")


@pytest.mark.parametrize("fault", ["abort", "memory", "time"])
def test_a_process_that_ends_is_one_error(fault, tmp_path, monkeypatch):
    """Whatever hostile bytes make of tensorstore: the child's end is told, and ours goes on."""
    code = {
        "abort": "import os; os.abort()",
        "memory": "held = [bytes(1 << 20) for _ in range(1 << 20)]",
        "time": "while True: pass",
    }[fault]
    text = Path(tensorstore_process.CHILD).read_text(encoding="utf-8").replace("SECONDS = 20", "SECONDS = 0")
    keys = "        self.keys = "
    assert keys in text
    (tmp_path / "child.py").write_text(text.replace(keys, f"        {code}\n{keys}"))
    monkeypatch.setattr(tensorstore_process, "CHILD", str(tmp_path / "child.py"))
    write(tmp_path / "x.orbax", [Tensor("a", (3,), "float32")])
    message = {"abort": "SIGABRT", "memory": "MemoryError", "time": "SIGXCPU"}[fault]
    refused(tmp_path / "x.orbax", message)


MEMORY = """
    import re, resource, sys
    from convert.errors import FormatError
    from convert.files import open_checkpoint
    for folder in sys.argv[1:]:
        try:
            with open_checkpoint(folder) as reader:
                for name in reader.tensors:
                    reader.read(name)
        except FormatError:
            pass
    print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def test_no_database_takes_much_memory(tmp_path):
    folders = []
    bad = ("bombed", "bombed_manifest", "bombed_chunk", "long_keys", "long_paths", "large_tree")
    for change in (getattr(corpus_orbax, name) for name in bad):
        folders.append(tmp_path / change.__name__)
        folders[-1].mkdir()
        hostile(folders[-1], change)
    ours, children = map(int, script(MEMORY, *folders).split())
    assert ours < 200
    assert children < PEAK


def test_an_interrupted_commit_goes_on_to_its_end(tmp_path):
    """tensorstore's threads would write on while the unfinished folder is removed, and create it again."""

    class Commit:
        asked = 0

        def result(self):
            raise KeyboardInterrupt

        def done(self):
            self.asked += 1
            return self.asked == 3

    class Transaction:
        def commit_async(self):
            return commit

    commit, database = Commit(), orbax_writer.Database(str(tmp_path))
    database._transaction = Transaction()
    with pytest.raises(KeyboardInterrupt):
        database.commit()
    assert commit.asked == 3
