"""Remembers which images decode, so that each is decoded once per cache and not once per start.

Large PNG images take some 60 ms each to decode but 1 ms to hash. Facts are kept by the hash of the content, so a
changed image is simply another one and nothing needs to be invalidated; other rules of what is read have another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from tinyr1v_ray.data.images import ImageFacts, check_size, inspect_image
from tinyr1v_ray.files.durable import replace_file

_RULES = "at most 16 bits"
"""Names what `inspect_image` lets pass."""


class VerifiedImages:
    """Facts by hash, in a file of JSON lines. A file that cannot be read or written costs time, never a run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts = {facts.sha256: facts for facts in _read(path)}
        self._num_saved = len(self._facts)

    @classmethod
    def for_sources(cls, cache_folder: Path, names: Iterable[str]) -> VerifiedImages:
        """The memory of a data set, by its sources' names."""
        key = hashlib.sha256("\n".join([_RULES, *names]).encode()).hexdigest()[:16]
        return cls(cache_folder / "verified" / f"{key}.jsonl")

    def inspect(self, content: bytes, max_megapixels: float) -> ImageFacts:
        """As `inspect_image`, decoding only what is new; may be called from several threads."""
        known = self._facts.get(hashlib.sha256(content).hexdigest())
        if known is not None:
            check_size(known.width_px, known.height_px, max_megapixels)
            return known
        facts = inspect_image(content, max_megapixels)
        self._facts[facts.sha256] = facts
        return facts

    def save(self) -> None:
        """Write what was learned, whole or not at all."""
        if len(self._facts) == self._num_saved:
            return
        lines = [json.dumps(astuple(facts)) + "\n" for facts in self._facts.values()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, "".join(lines))
        except OSError:
            return
        self._num_saved = len(self._facts)


def _read(path: Path) -> list[ImageFacts]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [ImageFacts(str(row[0]), int(row[1]), int(row[2]), int(row[3]), str(row[4])) for row in rows]
    except (OSError, ValueError, TypeError, LookupError):
        return []
