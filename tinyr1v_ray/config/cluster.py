"""The settings of the Ray cluster."""

from __future__ import annotations

from pydantic import NonNegativeInt

from tinyr1v_ray.config.base import Settings


class ClusterSettings(Settings):
    """The Ray cluster."""

    address: str = ""
    """`auto`, `ray://...` or host:port of a running cluster; empty: start one on this machine."""
    num_cpus: NonNegativeInt = 0
    """CPU cores that a cluster started here may use; 0: all."""
    autoscaling: bool = False
    """The cluster grows on demand: actors wait for nodes (until their start timeouts) instead of being refused."""
