"""Seeds of completions: the same prompt in the same epoch of the same run is sampled with the same seeds, anywhere."""

from __future__ import annotations

import hashlib

from tinyr1v_ray.types import Prompt


def group_seed(run_seed: int, prompt: Prompt) -> int:
    """Seed of a group, below 2**62; completion i of the group uses this seed + i."""
    key = f"{run_seed}/{prompt.epoch}/{prompt.prompt_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 2
