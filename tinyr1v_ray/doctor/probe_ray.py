"""Probe, run as a module: a Ray cluster is joined, or one started here, and a task runs on it."""

from __future__ import annotations

import sys

from tinyr1v_ray.cluster.connection import connected, num_nodes, resources, version_by_task
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.doctor.finding import CheckResult, Status, write_result
from tinyr1v_ray.errors import DeadlineError, PlacementError

TASK_TIMEOUT_S = 60.0


def main() -> None:
    """The address, possibly empty, is the only argument."""
    address = sys.argv[1]
    try:
        with connected(ClusterSettings(address=address, num_cpus=0 if address else 1)):
            seen = version_by_task(TASK_TIMEOUT_S)
            total, _ = resources()
            nodes = num_nodes()
    except DeadlineError:
        text = f"{address or 'a cluster started here'} ran no task within {TASK_TIMEOUT_S:g} s"
        write_result(CheckResult(Status.PROBLEM, text, "see `ray status`: is every CPU taken, does a node hang?"))
        return
    except PlacementError as error:
        seen, _, remedy = str(error).partition("; ")
        write_result(CheckResult(Status.PROBLEM, seen, remedy))
        return
    where = f"{address}: {nodes} nodes, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs" if address else ""
    write_result(CheckResult(Status.OK, f"{where or 'a cluster started here'} ran a task, Ray {seen}"))


if __name__ == "__main__":
    main()
