"""Check the structure of the repository: who imports whom, and that the engine names no architecture."""

from __future__ import annotations

import ast
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import parity
import specs
import triptych
from convert.version import PACKAGES
from specs.kinds import FRAMEWORKS

ROOT = Path(__file__).parents[1]
FLOORS = PACKAGES  # each may import itself and what stands before it
ROOF = "convert.command_line"  # with `__main__` modules: may import any floor, and no other file may import it


TOP = {".gitignore", "CHANGELOG.md", "CONVENTIONS.md", "LICENSE", "Makefile", "README.md", "constraints.txt",
       "pyproject.toml", "triptych.py"}  # fmt: skip


def module_of(path: Path) -> str:
    """Return the dotted name of a file; a package's __init__ has the package's own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# What `python -m ports new` copies for users is theirs, and may import every floor.
PATHS = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")) if "template" not in path.parts]
FILES = {module_of(path): path for path in PATHS}


def room_of(module: str) -> str:
    """Return the package right below its floor that a module stands in, with its __init__; else the module itself."""
    room = ".".join(module.split(".")[:2])
    return room if FILES.get(room, ROOT).name == "__init__.py" else module


def is_roof(module: str) -> bool:
    return room_of(module) == ROOF or module.endswith(".__main__")


def imports(module: str, path: Path, known: Mapping[str, object] = FILES) -> Iterator[str]:
    """Yield each known module that a file imports anywhere in it: also inside functions and for type checking."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            inner = [f"{source}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in known)
            if source in known and not all(name in known for name in inner):
                yield source


@cache
def graph() -> dict[str, set[str]]:
    """Return {module: modules that it imports}."""
    return {module: set(imports(module, path)) - {module} for module, path in FILES.items()}


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return every group of modules that reach each other, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(arrows[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(arrows):
        if module not in order:
            visit(module)
    return groups


def upward(arrows: Mapping[str, set[str]]) -> list[str]:
    """List imports of a higher floor, and of the roof by what is no roof."""
    floor = {module: FLOORS.index(module.partition(".")[0]) for module in arrows}
    return [
        f"{module} imports {other}"
        for module, others in arrows.items()
        for other in sorted(others)
        if not is_roof(module) and (floor[other] > floor[module] or is_roof(other))
    ]


def test_the_installed_command_lists_the_packages_of_the_converter():
    """It has a list of its own, as it runs before any package may be imported."""
    assert set(triptych.PACKAGES) == set(PACKAGES)


def test_nothing_that_a_command_left_behind_is_in_the_repository():
    """As what was converted in its folder, and what patch leaves beside a file."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone, or git is not installed")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in listed if "/" not in name} == TOP
    assert not [name for name in listed if name.endswith((".orig", ".rej"))]


def test_there_is_no_circle_among_files():
    assert circles(graph()) == []


@pytest.mark.parametrize("floor", ["specs", "convert", "parity"])
def test_there_is_no_circle_among_the_rooms_of_a_floor(floor):
    """Nor among them and the modules beside them: an arrow between two rooms goes in one direction."""
    arrows: dict[str, set[str]] = {}
    for module, others in graph().items():
        if module.partition(".")[0] == floor:
            inside = {room_of(other) for other in others if other.partition(".")[0] == floor}
            arrows.setdefault(room_of(module), set()).update(inside - {room_of(module)})
    assert {"specs": "specs.notation", "convert": "convert.plans", "parity": "parity.page"}[floor] in arrows
    assert circles(arrows) == []


def test_no_file_imports_a_higher_floor():
    assert upward(graph()) == []


def rooms(house: str) -> list[str]:
    """Return the rooms of a house in the order of its map: the first table after "before it:"."""
    table = ast.get_docstring(ast.parse(FILES[house].read_text())).partition("before it:")[2].split("\n\n")[1]
    lines = re.findall(r"^    (\w[\w, ]*?)/? {2,}", table, re.MULTILINE)
    return [room for line in lines for room in line.split(", ")]


@pytest.mark.parametrize("house", ["specs", "convert", "parity", "parity.derive"])
def test_rooms_import_only_those_before_them(house):
    """What stands in no room is free, if it makes no circle."""
    order = {f"{house}.{room}": number for number, room in enumerate(rooms(house))}
    assert {f"{house}.{path.parent.name}" for path in FILES[house].parent.glob("*/__init__.py")} == set(order)

    def room(module: str) -> str:
        return ".".join(module.split(".")[: house.count(".") + 2])

    back = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if order.get(room(other), -1) > order.get(room(module), len(order))
    ]
    assert back == []


def test_rooms_of_derive_import_of_what_stands_in_none_only_limits():
    inside = {f"parity.derive.{room}" for room in rooms("parity.derive")}
    beside = {
        other
        for module, path in FILES.items()
        if module.rpartition(".")[0] in inside
        for other in imports(module, path)
        if other.startswith("parity.derive") and other.rpartition(".")[0] not in inside
    }
    assert beside == {"parity.derive.limits"}
    assert not list(imports("parity.derive.limits", FILES["parity.derive.limits"]))


def test_no_room_has_the_name_of_a_public_function():
    """`parity.derive` alone is both, and can be called."""
    assert set(rooms("parity")) & set(parity.__all__) == {"derive"}
    assert not set(rooms("specs")) & {name for name, value in vars(specs).items() if callable(value)}


MAPS = ["specs", "convert", "convert.files.folders", "convert.files.pickled", "ports", "ports.runners", "parity"]
MAPS += sorted(
    {room_of(module) for module in FILES if FILES[module].parent.parent.name in ("specs", "convert", "parity")}
)
MAPS += [f"parity.derive.{room}" for room in rooms("parity.derive")]


@pytest.mark.parametrize("floor", MAPS)
def test_the_map_of_a_floor_names_each_of_its_modules(floor):
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(FILES[floor].read_text())) or ""))
    modules = {path.stem for path in FILES[floor].parent.glob("*.py") if path.stem != "__init__"}
    assert {name for name in modules - words if not name.endswith(tuple(specs.names()))} == set()


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.GeneratorExp, *COMPREHENSIONS)


def bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that code binds where it stands, not those inside its functions, classes and comprehensions."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, ast.alias):
        yield node.asname or node.name.partition(".")[0]
    if isinstance(node, SCOPES):
        yield getattr(node, "name", "")
    else:
        yield from itertools.chain.from_iterable(map(bound, ast.iter_child_nodes(node)))


def test_no_variable_of_a_comprehension_has_a_name_of_its_module():
    """CPython 3.12 inlines comprehensions, and raises UnboundLocalError for some that hide a global name."""
    hidden = set()
    for path in PATHS:
        names = set(bound(tree := ast.parse(path.read_text())))
        parts = [part for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS) for part in node.generators]
        hidden |= {f"{path.relative_to(ROOT)}:{part.target.lineno}: {names & {*bound(part.target)}}" for part in parts
                   if names & {*bound(part.target)}}  # fmt: skip
    assert hidden == set()


def verbs_amiss(tree: ast.AST) -> Iterator[str]:
    """Yield the functions whose docstrings begin with a verb that says of their value what is not so."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not (text := ast.get_docstring(node)):
            continue
        functions = (
            own for own in ast.walk(node) if own is not node and isinstance(own, (ast.FunctionDef, ast.Lambda))
        )
        inner = {id(part) for own in functions for part in ast.walk(own)}
        yields = any(isinstance(own, (ast.Yield, ast.YieldFrom)) and id(own) not in inner for own in ast.walk(node))
        managed = any("contextmanager" in ast.unparse(one) for one in node.decorator_list)
        value, verb = ast.unparse(node.returns) if node.returns else "", text.split()[0]
        if (
            (yields and not managed and verb in ("Return", "List"))
            or (value == "None" and verb in ("Return", "List", "Yield"))
            or (text.startswith("Tell whether") and value and "bool" not in value)
        ):
            yield f"{node.name}: {text.splitlines()[0]}"


def test_docstrings_begin_with_what_a_function_does():
    amiss = [f"{path.relative_to(ROOT)}: {one}" for path in PATHS for one in verbs_amiss(ast.parse(path.read_text()))]
    assert amiss == []


@pytest.mark.parametrize("line", [
    'def f(): "Return each."; yield 1', 'def f() -> None: "Return it."', 'def f() -> str | None: "Tell whether it is."',
])  # fmt: skip
def test_a_docstring_with_another_verb_is_seen(line):
    assert len([*verbs_amiss(ast.parse(line))]) == 1


def test_derive_calls_both_models_left_and_right():
    """`ours` may be either side's, and has been each of them."""
    files = FILES["parity.derive"].parent.rglob("*.py")
    assert [path.name for path in files if re.search(r"\b(ours|theirs)\b", path.read_text())] == []


def test_circles_and_upward_imports_are_seen():
    """The two checks above are able to fail."""
    roof = f"{ROOF}.commands"
    arrows = {"specs.a": {"convert.b"}, "convert.b": {"convert.c"}, "convert.c": {"convert.b", roof}}
    arrows |= {roof: {"parity.d"}, "parity.d": set()}
    assert circles(arrows) == [["convert.b", "convert.c"]]
    assert upward(arrows) == ["specs.a imports convert.b", f"convert.c imports {roof}"]


def engine() -> Iterator[Path]:
    """Yield every file but the pages, what belongs to one page (specs/..._PAGE.py), and the ports' networks."""
    for path in FILES.values():
        network = path.parent.parent.name == "ports" and path.parent.name in FRAMEWORKS
        if not network and not any(path.stem.endswith(name) for name in specs.names()):
            yield path


def test_the_engine_names_no_architecture():
    """In whatever spelling: an architecture is its page and its ports, and nothing else."""
    spelling = re.compile("|".join(name.replace("_", "[ _-]?") for name in specs.names()), re.IGNORECASE)
    assert spelling.search("class MlpMixer")
    named = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in engine()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if spelling.search(line)
    }
    assert named == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import specs.config", ["specs.config"]),
        ("from . import folding", ["convert.folding"]),
        ("from .folding import fold", ["convert.folding"]),
        ("from specs import config as configs", ["specs.config"]),
        ("def f():\n    from parity.conversion_proof import prove", ["parity.conversion_proof"]),
        ("if TYPE_CHECKING:\n    from . import __version__", ["convert"]),
        ("import os, numpy", []),
    ],
)
def test_every_way_to_import_is_seen(tmp_path, text, expected):
    (tmp_path / "some.py").write_text(text)
    assert list(imports("convert.some", tmp_path / "some.py")) == expected


def test_files_import_no_other_part_of_the_converter_but_errors():
    """Readers and writers know nothing of plans, records and reports."""
    arrows = {
        (module, other)
        for module, others in graph().items()
        if module.startswith("convert.files")
        for other in others
        if other.startswith("convert.") and not other.startswith("convert.files") and other != "convert.errors"
    }
    assert arrows == set()
