"""Custom functions, which a setting names as `package.module:function`: found, and told apart by content."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyr1v_ray.errors import ConfigError


def load_function(setting: str, path: str) -> Callable[..., Any]:
    """The function at `package.module:function`; raises ConfigError when it is not there or its module fails."""
    module_name, separator, function_name = path.partition(":")
    if not separator or not module_name or not function_name:
        raise ConfigError(f"{setting} is {path!r}; it is written package.module:function; correct it")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{setting} {path} cannot be imported: {' '.join(str(error).split())}; its module is found in the folder "
            "where the command is called, or through PYTHONPATH; correct it"
        ) from error
    except (Exception, SystemExit) as error:  # supervision: a user's module may raise anything
        raise ConfigError(f"{setting} {path} cannot be imported: {told(error)}; it must import; fix it") from error
    if not callable(function):
        raise ConfigError(f"{setting} {path} is a {type(function).__name__}; it is a function; correct it")
    return function  # type: ignore[no-any-return]


def function_sha256(setting: str, path: str) -> str:
    """SHA-256 of the file with the function, and of the named module where it only hands the function on.

    What else these import is not looked at. Files are read once in a process: a module's code stays what it was, too.
    """
    function = load_function(setting, path)
    names = dict.fromkeys((path.partition(":")[0], getattr(function, "__module__", None) or ""))
    return _sha256(setting, path, tuple(sys.modules[name] for name in names if name in sys.modules))


@lru_cache(maxsize=64)
def _sha256(setting: str, path: str, modules: tuple[ModuleType, ...]) -> str:
    digest = hashlib.sha256()
    for module in modules:
        file = getattr(module, "__file__", None)
        try:
            digest.update(Path(file).read_bytes() if file else module.__name__.encode())
        except OSError as error:
            raise ConfigError(
                f"{setting} {path}: its file {file} cannot be read ({error.strerror}); its content tells a changed "
                "function; use a module with a file of its own"
            ) from error
    return digest.hexdigest()


def told(error: BaseException) -> str:
    """What a user's code raised, in one line of at most 300 characters."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - supervision: the error is the user's class
        text = ""
    return f"{type(error).__name__}: {text}"[:300]


def look_here() -> None:
    """Find modules in the working folder first: custom functions lie where the user stands."""
    sys.path.insert(0, str(Path.cwd()))


def search_path() -> str:
    """Where this process finds modules, as the PYTHONPATH of a process that must find the same."""
    return os.pathsep.join(dict.fromkeys(path or str(Path.cwd()) for path in sys.path))
