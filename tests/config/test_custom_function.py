"""Functions of the user's own: found or refused in one line, and told apart by the content of their files."""

import hashlib
import importlib
import sys

import pytest

from tinyr1v_ray.config.custom_function import function_sha256, load_function, look_here, search_path
from tinyr1v_ray.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Modules found there are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_a_functions_identity_is_its_files_content(folder):
    (folder / "mine_a.py").write_text("def f():\n    return 1\n")
    assert load_function("s", "mine_a:f")() == 1
    assert function_sha256("s", "mine_a:f") == sha256((folder / "mine_a.py").read_bytes())


def test_a_function_that_is_only_handed_on_is_known_by_both_files(folder):
    (folder / "mine_b.py").write_text("from mine_c import f\n")
    (folder / "mine_c.py").write_text("def f():\n    return 1\n")
    contents = [(folder / name).read_bytes() for name in ("mine_b.py", "mine_c.py")]
    assert function_sha256("s", "mine_b:f") == sha256(*contents)


def test_the_identity_is_that_of_the_code_that_runs(folder):
    """A process keeps the module that it has imported, and so the identity that goes with it."""
    path = folder / "mine_d.py"
    path.write_text("def f():\n    return 1\n")
    before = function_sha256("s", "mine_d:f")
    path.write_text("def f():\n    return 1000\n")
    assert load_function("s", "mine_d:f")() == 1 and function_sha256("s", "mine_d:f") == before
    del sys.modules["mine_d"]
    assert load_function("s", "mine_d:f")() == 1000 and function_sha256("s", "mine_d:f") != before


def test_a_function_without_a_file_has_an_identity_too():
    assert function_sha256("s", "builtins:sum") == sha256(b"builtins")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def f(:\n", "invalid syntax"),
        ("raise RuntimeError('one\\ntwo')\n", "RuntimeError: one two; it must import"),
        ("import sys\nsys.exit(4)\n", "SystemExit: 4"),
        ("f = 3\n", "is a int; it is a function"),
        ("", "has no attribute 'f'"),
    ],
)
def test_a_module_that_fails_is_one_line(folder, source, says):
    (folder / "mine_e.py").write_text(source)
    with pytest.raises(ConfigError, match=r"^s\.function mine_e:f ") as caught:
        load_function("s.function", "mine_e:f")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_working_folder_comes_first_and_travels(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "/a", "/a"])
    monkeypatch.chdir(tmp_path)
    assert search_path() == f"{tmp_path}:/a"
    look_here()
    assert sys.path == [str(tmp_path), "", "/a", "/a"] and search_path() == f"{tmp_path}:/a"
