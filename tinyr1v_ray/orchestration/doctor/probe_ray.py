"""Probe, run as a module: a Ray cluster is joined, or one started here, and a task runs on it."""

from __future__ import annotations

import sys

import ray

from tinyr1v_ray.config.surroundings import ClusterSettings
from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.orchestration.cluster import connected, resources
from tinyr1v_ray.orchestration.doctor.finding import Outcome, Status, write_outcome

TASK_TIMEOUT_S = 60.0


def _version() -> str:
    return str(ray.__version__)


def main() -> None:
    """The address, possibly empty, is the only argument."""
    address = sys.argv[1]
    try:
        with connected(ClusterSettings(address=address, num_cpus=0 if address else 1)):
            seen = ray.get(ray.remote(_version).options(num_cpus=0.01).remote(), timeout=TASK_TIMEOUT_S)
            total, _ = resources()
            num_nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    except ray.exceptions.GetTimeoutError:
        text = f"{address or 'a cluster started here'} ran no task within {TASK_TIMEOUT_S:g} s"
        write_outcome(Outcome(Status.PROBLEM, text, "see `ray status`: is every CPU taken, does a node hang?"))
        return
    except PlacementError as error:
        seen, _, remedy = str(error).partition("; ")
        write_outcome(Outcome(Status.PROBLEM, seen, remedy))
        return
    where = (
        f"{address}: {num_nodes} nodes, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs" if address else ""
    )
    write_outcome(Outcome(Status.OK, f"{where or 'a cluster started here'} ran a task, Ray {seen}"))


if __name__ == "__main__":
    main()
