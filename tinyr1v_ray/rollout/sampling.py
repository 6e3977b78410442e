"""How completions are drawn, and with which seeds: the same prompt in the same epoch of the same run gets the same
seeds on any engine, so a group that is sampled again comes out again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tinyr1v_ray.types import Prompt


@dataclass(frozen=True)
class Sampling:
    """How the completions of a prompt are drawn; `temperature` 0 is greedy, `seed` is the run's.

    Without `shares_cache` no other request gets the keys and values that these leave behind: those of the same tokens
    may differ in their last bits, which the batch decides.
    """

    num_completions: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    shares_cache: bool = True


def group_seed(run_seed: int, prompt: Prompt) -> int:
    """Seed of a group, below 2**62; completion i of the group uses this seed + i."""
    key = f"{run_seed}/{prompt.epoch}/{prompt.prompt_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 2
