"""The house's promises about itself: what a room may import, empty `__init__`s, and sizes."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinyr1v_ray"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("."))
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
GROUND = CONTRACTS["the ground is free of heavy libraries"]
HEAVY = GROUND["forbidden_modules"]
OWNERS = {
    "ray": ["cluster"],
    "vllm": ["rollout/vllm", "weight_sync/cpu_file/receiver.py", "weight_sync/nccl/sender.py"],
    "deepspeed": ["learner"],
}
NAMES_OF_NOTHING = {"docs", "scripts", "examples", "utils", "common", "manager", "helpers"}

IMPORT_ALL = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} may not be imported here")

HEAVY = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocked())
failures = []
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failures.append(f"{name}: {error}")
failures += sorted(HEAVY & sys.modules.keys())
sys.exit("\\n".join(failures) or 0)
"""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported_roots(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_ground_rooms_import_nothing_heavy():
    """In a process where it could not: import-linter does not see what an `__init__` or a library pulls in."""
    paths = [path for path in FILES if path.stem != "__init__"]
    names = [name for path in paths if (name := module_name(path)).startswith(tuple(GROUND["source_modules"]))]
    assert len(names) > 50
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_leak_into_a_ground_room_would_be_seen():
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), "torch"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1 and "torch may not be imported here" in done.stderr


def test_ray_vllm_and_deepspeed_have_one_room_each(trees):
    """A weight transport's half in the engine, or for it, speaks vLLM too."""
    seen = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path, tree in trees.items()
        for name in imported_roots(tree)
        if name in OWNERS
    }
    assert {name for _, name in seen} == set(OWNERS)
    assert {(path, name) for path, name in seen if not path.startswith(tuple(OWNERS[name]))} == set()


def test_every_init_below_the_root_is_empty():
    inits = [path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert inits and [str(path) for path in inits if path.read_bytes()] == []


def test_no_folder_or_module_is_named_after_nothing():
    names = {path.name for path in ROOT.iterdir() if path.is_dir()}
    names |= {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert names & NAMES_OF_NOTHING == set()


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in FILES}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_files_and_functions_stay_short(trees):
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): count for path, count in lines.items() if count > 300} == {}
    sizes = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in trees.items()
        for node in functions(tree)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert sum(size < 40 for size in sizes.values()) >= 0.95 * len(sizes)


def test_a_class_name_stands_once(trees):
    """Private ones too, and none that differs from another by an underscore or the case of a letter."""
    places = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.strip("_").casefold(), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 300 and {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_loop_fits_on_one_screen():
    assert len((PACKAGE / "loop.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_every_module_says_what_it_is(trees):
    missing = [str(path) for path, tree in trees.items() if path.read_bytes() and not ast.get_docstring(tree)]
    assert missing == []
