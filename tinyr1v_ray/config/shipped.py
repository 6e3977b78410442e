"""The configurations that come with the package: in a wheel within it, in a checkout beside it."""

from __future__ import annotations

import difflib
from pathlib import Path

import tinyr1v_ray
from tinyr1v_ray.errors import ConfigError


def shipped_files() -> dict[str, Path]:
    """Every shipped file by its name without ending: the configurations, and `REFERENCE`, which lists all settings."""
    package = Path(str(tinyr1v_ray.__file__)).parent
    folder = next(place for place in (package / "configs", package.parent / "configs") if place.is_dir())
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".yaml", ".md")}


def shipped_file(name: str) -> Path:
    """The file of that name; raises ConfigError with the nearest name."""
    files = shipped_files()
    stem = name.removesuffix(".yaml")
    if stem not in files:
        near = difflib.get_close_matches(stem, files, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "see tinyr1v configs list"
        raise ConfigError(f"no shipped configuration is called {name!r}; a name is one of the list; {remedy}")
    return files[stem]


def shipped_config(path: Path) -> Path | None:
    """The shipped configuration whose mere name, with or without ending, is given as a path."""
    found = shipped_files().get(path.name.removesuffix(".yaml")) if path.name == str(path) else None
    return found if found is not None and found.suffix == ".yaml" else None
