"""The house's promises about itself: what a room may import, empty `__init__`s, and sizes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinyr1v_ray"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("."))
HEAVY = ("torch", "ray", "vllm", "deepspeed", "transformers")
OWNERS = {"ray": "orchestration", "vllm": "rollout", "deepspeed": "learner"}
GROUND_ROOMS = ("config", "rewards", "telemetry")
GROUND_FILES = (
    *("errors.py", "types.py", "ports.py", "loop.py"),
    *("algorithms/group.py", "algorithms/lipo.py", "algorithms/baselines.py", "algorithms/advantages.py"),
    *("data/batching.py", "rollout/window.py", "evaluation/statistics.py"),
)

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
    paths = [PACKAGE / name for name in GROUND_FILES]
    paths += [path for room in GROUND_ROOMS for path in FILES if path.parent == PACKAGE / room]
    names = [module_name(path) for path in paths if path.stem != "__init__"]
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_leak_into_a_ground_room_would_be_seen():
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(HEAVY), "torch"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1 and "torch may not be imported here" in done.stderr


def test_ray_vllm_and_deepspeed_have_one_room_each(trees):
    seen = {
        (path.relative_to(PACKAGE).parts[0], name)
        for path, tree in trees.items()
        for name in imported_roots(tree)
        if name in OWNERS
    }
    assert {(room, name) for room, name in seen if OWNERS[name] != room} == set()


def test_every_init_below_the_root_is_empty():
    inits = [path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert inits and [str(path) for path in inits if path.read_bytes()] == []


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


def test_the_loop_fits_on_one_screen():
    assert len((PACKAGE / "loop.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_every_module_says_what_it_is(trees):
    missing = [str(path) for path, tree in trees.items() if path.read_bytes() and not ast.get_docstring(tree)]
    assert missing == []
