"""What of the working tree goes to a cluster: which files, how large, and the archive that carries them.

Free of Ray, so that a tree that is too large is refused before a cluster is asked anything.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinyr1v_ray.errors import ConfigError

DEFAULT_LIMIT_MIB = 100
NEVER_PACKED = frozenset({".git", ".venv", "venv", "runs", "wandb", "node_modules", "__pycache__"})
"""Names of folders that stay here at any depth; so does each folder whose name starts with a dot."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""One time stamp for all files: the archive's hash, by which the cluster knows it, then depends on contents alone."""
_MIB = 1024 * 1024


@dataclass(frozen=True)
class WorkingTree:
    """A folder, and the files of it that are packed (relative, sorted).

    >>> WorkingTree(Path("/project"), (PurePosixPath("a.py"),), (12,)).num_bytes
    12
    """

    root: Path
    files: tuple[PurePosixPath, ...]
    sizes: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Before compression."""
        return sum(self.sizes)


def read_working_tree(root: Path) -> WorkingTree:
    """Files below `root` that git would track, or all of them where there is no git; less `NEVER_PACKED`.

    Links are followed where they name files below `root` and left out otherwise. Raises ConfigError when `root` is no
    folder or holds nothing.
    """
    if not root.is_dir():
        raise ConfigError(f"working tree {root} is no folder; the tree is packed for the cluster; correct --tree")
    root = root.resolve()
    found = _files_of_git(root)
    names = sorted(name for name in (found if found is not None else _files_of_disk(root)) if _is_packed(name))
    kept = [name for name in names if _is_file_inside(root, name)]
    if not kept:
        raise ConfigError(f"working tree {root} holds no files to pack; a job needs its code; correct --tree")
    return WorkingTree(root, tuple(kept), tuple((root / name).stat().st_size for name in kept))


def check_size(tree: WorkingTree, limit_mib: float = DEFAULT_LIMIT_MIB) -> None:
    """Raise ConfigError that names the folder to look at when the tree is larger than the limit."""
    if tree.num_bytes <= limit_mib * _MIB:
        return
    folder, num_bytes = largest_folder(tree.files, tree.sizes)
    where = "its own files" if folder == PurePosixPath(".") else f"folder {folder}"
    raise ConfigError(
        f"working tree {tree.root} has {tree.num_bytes / _MIB:.1f} MiB in {len(tree.files)} files, most in {where} "
        f"({num_bytes / _MIB:.1f} MiB); the limit is {limit_mib:g} MiB; add that folder to .gitignore, put data on the "
        "cluster's shared storage, or raise --limit-mib"
    )


def largest_folder(files: Sequence[PurePosixPath], sizes: Sequence[int]) -> tuple[PurePosixPath, int]:
    """The deepest folder that holds more than half of what its parent holds, followed down from the root.

    >>> largest_folder((PurePosixPath("a/b/x"), PurePosixPath("a/y"), PurePosixPath("z")), (90, 5, 5))
    (PurePosixPath('a/b'), 90)
    """
    totals: Counter[PurePosixPath] = Counter()
    for file, size in zip(files, sizes, strict=True):
        for folder in file.parents:
            totals[folder] += size
    here = PurePosixPath(".")
    while True:
        below = [(total, folder) for folder, total in totals.items() if folder.parent == here and folder != here]
        if not below or max(below)[0] * 2 <= totals[here]:
            # The root alone names nothing: its largest folder does, even with less than half.
            if here == PurePosixPath(".") and below:
                return max(below)[1], max(below)[0]
            return here, totals[here]
        here = max(below)[1]


def write_archive(tree: WorkingTree, path: Path) -> None:
    """A zip archive of the tree; the same contents give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in tree.files:
            entry = zipfile.ZipInfo(str(name), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            mode = 0o755 if os.access(tree.root / name, os.X_OK) else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, (tree.root / name).read_bytes())


def _is_packed(name: PurePosixPath) -> bool:
    return not any(part in NEVER_PACKED or part.startswith(".") for part in name.parts[:-1])


def _is_file_inside(root: Path, name: PurePosixPath) -> bool:
    path = root / name
    return path.is_file() and path.resolve().is_relative_to(root)


def _files_of_git(root: Path) -> list[PurePosixPath] | None:
    """Tracked files and new ones that are not ignored; None outside a git working tree."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return [PurePosixPath(os.fsdecode(name)) for name in listed.split(b"\0") if name]


def _files_of_disk(root: Path) -> Iterator[PurePosixPath]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if _is_packed(PurePosixPath(name) / "file")]
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from (here / name for name in files)
