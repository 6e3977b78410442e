"""A lock on a file, which ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1v_ray.errors import RunFolderError

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, rule: str) -> Iterator[None]:
    """Hold the file `path` (made if need be) against other processes.

    Raises RunFolderError, with the holder and `rule` (the remedy included), when another process holds it, on any node
    that sees the file. A file system without locks gives no protection, and a warning.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunFolderError(f"{path.parent} is in use by {holder}; {rule}") from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): make sure that no other process uses it", path.parent, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
