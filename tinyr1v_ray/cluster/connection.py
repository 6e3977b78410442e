"""The Ray cluster of a run: one started on this machine, or one that runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import ray

from tinyr1v_ray.cluster.assignment import Node
from tinyr1v_ray.cluster.placement import Placement, check_fits
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.errors import DeadlineError, PlacementError

_CONNECT_TIMEOUT_S = 5.0


@contextmanager
def connected(
    settings: ClusterSettings, *, setting: str = "cluster.address", object_store_bytes: int | None = None
) -> Iterator[None]:
    """Be connected to the cluster; one that was started here ends with the block.

    A process that is connected already stays as it is. `setting` is what messages call the address;
    `object_store_bytes` is for a cluster that is started here (None: Ray's own share of the memory).
    Raises PlacementError when a named cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    check_reachable(settings, setting)
    address = cluster_address(settings.address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",  # without an address Ray would join whatever cluster it finds on the machine
            num_cpus=None if address else settings.num_cpus or None,
            object_store_memory=None if address else object_store_bytes,
            include_dashboard=False if address is None else None,
            log_to_driver=False,  # actors' output is in Ray's log folder; what a user must know is raised
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PlacementError(
            f"Ray cluster {address or 'on this machine'} is not available: {reason}; {setting} names a running "
            "cluster (a cluster with token authentication needs RAY_AUTH_MODE=token and its token here too) or is "
            "empty; correct it"
        ) from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler ends the process with a C++ stack
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(settings: ClusterSettings, setting: str = "cluster.address") -> None:
    """Raise PlacementError when a named cluster does not answer; one that this process is connected to does."""
    address = cluster_address(settings.address)
    if not ray.is_initialized() and (reason := unreachable(address or "")):
        raise PlacementError(
            f"nobody answers at {address}: {reason}; {setting} (or RAY_ADDRESS) names a running cluster or is "
            "empty; start the cluster, open its port, or correct the address"
        )


def cluster_address(configured: str | None) -> str | None:
    """Address of a running cluster to join, or None to start one here.

    A setting comes first, then RAY_ADDRESS, which Ray sets for a job to the job's own cluster. To know the latter
    matters, since Ray refuses `num_cpus` and the like when it joins a cluster.
    """
    return configured or os.environ.get("RAY_ADDRESS") or None


def unreachable(address: str) -> str:
    """Why nothing listens at host:port (Ray itself would go on trying for minutes); empty when something does.

    Addresses that name no host are left to Ray.
    """
    if address in ("", "auto", "local"):
        return ""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        socket.create_connection((str(parts.hostname), parts.port or 10001), _CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def check_room(placement: Placement, settings: ClusterSettings) -> None:
    """Raise PlacementError when the cluster can never hold the actors; one that grows by itself is not asked."""
    if not settings.autoscaling:
        check_fits(placement, *resources())


def node_resources() -> list[dict[str, float]]:
    """Ray's resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes() -> list[Node]:
    """What the cluster's nodes have, whoever holds it now; one that grows has more later."""
    resources = node_resources()
    return [Node(each.get("CPU", 0.0), [1.0] * int(each.get("GPU", 0.0))) for each in resources]


def resources() -> tuple[dict[str, float], dict[str, float]]:
    """Ray's resources of the whole cluster, and the largest of each on one node."""
    nodes = node_resources()
    names = {name for node in nodes for name in node}
    largest = {name: max(node.get(name, 0.0) for node in nodes) for name in names}
    return dict(ray.cluster_resources()), largest


def free_resources() -> dict[str, float]:
    """Ray's resources that nobody holds now."""
    return dict(ray.available_resources())


def num_nodes() -> int:
    """Nodes of the cluster that are alive."""
    return len(node_resources())


def version_by_task(timeout_s: float) -> str:
    """Ray's version, as a task on the cluster tells it; raises DeadlineError when none runs in time."""

    def version() -> str:
        return str(ray.__version__)

    try:
        return str(ray.get(ray.remote(version).options(num_cpus=0.01).remote(), timeout=timeout_s))
    except ray.exceptions.GetTimeoutError as error:
        raise DeadlineError(
            f"no task ran within {timeout_s:g} s; a cluster runs one at once; see `ray status`"
        ) from error
