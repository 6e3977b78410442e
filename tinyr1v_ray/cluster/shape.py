"""A cluster by its shape: how many nodes of which accelerators, from one word on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tinyr1v_ray.config.base import shortened
from tinyr1v_ray.errors import PlacementError

GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU, by its data sheet: memory, dense bfloat16 and float32 matrix rates, memory bandwidth."""

    name: str
    memory_gib: float
    bf16_flops_per_s: float
    fp32_flops_per_s: float
    memory_bytes_per_s: float


ACCELERATORS = {
    gpu.name: gpu
    for gpu in (
        Accelerator("A100-40GB", 39.4, 312e12, 19.5e12, 1.555e12),
        Accelerator("A100-80GB", 79.2, 312e12, 19.5e12, 2.039e12),
        Accelerator("H100-80GB", 79.1, 989e12, 67e12, 3.35e12),
        Accelerator("H200-141GB", 139.8, 989e12, 67e12, 4.8e12),
        Accelerator("L40S-48GB", 44.5, 362e12, 91.6e12, 0.864e12),
    )
}
"""NVIDIA's data sheets (SXM versions where there are several, without sparsity); memory is what the driver leaves."""

CPUS_PER_GPU = 12
HOST_GIB_PER_GPU = 128.0
"""Of a GPU node whose shape does not say: less than the usual 8-GPU nodes have, so a plan that fits, fits them."""

MOST_NODES, MOST_GPUS, MOST_CPUS, MOST_HOST_GIB = 1024, 64, 4096, 1e6
"""Of a cluster, and of one node: larger ones are taken for slips of the hand."""

_NODES = re.compile(r"(?P<nodes>[0-9]+)x(?P<node>[^,]+)(?P<host>(,[^,]+)*)")
_CPU_NODE = re.compile(r"cpu(?P<cpus>[0-9]+)-(?P<memory>[0-9]+(\.[0-9]+)?)GB")
_GPU_NODE = re.compile(r"(?P<gpus>[0-9]+)x(?P<kind>.+)")
_HOST_CPUS = re.compile(r"([0-9]+)cpu")
_HOST_MEMORY = re.compile(r"([0-9]+(\.[0-9]+)?)GB")


@dataclass(frozen=True)
class ClusterShape:
    """`num_nodes` equal nodes; `accelerator` None for nodes without GPUs."""

    num_nodes: int
    num_gpus: int
    accelerator: Accelerator | None
    num_cpus: int
    host_gib: float
    assumed_host: bool = False

    def __str__(self) -> str:
        if self.accelerator is None:
            return f"{self.num_nodes}xcpu{self.num_cpus}-{self.host_gib:g}GB"
        return f"{self.num_nodes}x{self.num_gpus}x{self.accelerator.name}"

    def with_nodes(self, num_nodes: int) -> ClusterShape:
        """The same nodes, another number of them."""
        return replace(self, num_nodes=num_nodes)


def parse_cluster(text: str) -> ClusterShape:
    """`NODESxGPUSxKIND` (`4x8xH100-80GB`), with `,96cpu,1024GB` for a node's host, or `NODESxcpuCORES-MEMORYGB`.

    >>> str(parse_cluster("4x8xH100-80GB")), parse_cluster("1x8xA100-40GB,96cpu,1024GB").num_cpus
    ('4x8xH100-80GB', 96)
    >>> parse_cluster("1xcpu16-64GB").host_gib
    64.0
    """
    match = _NODES.fullmatch(text.strip())
    if len(text) > 100:  # before a number of thousands of digits is read
        raise _malformed(text, f"has {len(text)} characters")
    if match is None or int(match["nodes"]) < 1:
        raise _malformed(text, "has no NODESx in front")
    shape = _parse_node(text, match)
    if not (
        shape.num_nodes <= MOST_NODES
        and shape.num_gpus <= MOST_GPUS
        and shape.num_cpus <= MOST_CPUS
        and shape.host_gib <= MOST_HOST_GIB
    ):
        most = f"{MOST_NODES} nodes of {MOST_GPUS} GPUs, {MOST_CPUS} cores and {MOST_HOST_GIB:.0f} GB"
        raise _malformed(text, f"is larger than {most}")
    return shape


def _parse_node(text: str, match: re.Match[str]) -> ClusterShape:
    num_nodes, host = int(match["nodes"]), match["host"]
    if cpu_node := _CPU_NODE.fullmatch(match["node"]):
        if host or int(cpu_node["cpus"]) < 1:
            raise _malformed(text, "is no CPU node")
        return ClusterShape(num_nodes, 0, None, int(cpu_node["cpus"]), float(cpu_node["memory"]))
    gpu_node = _GPU_NODE.fullmatch(match["node"])
    if gpu_node is None or int(gpu_node["gpus"]) < 1:
        raise _malformed(text, f"has {match['node']!r} for a node")
    accelerator = ACCELERATORS.get(gpu_node["kind"])
    if accelerator is None:
        raise _malformed(text, f"has the unknown accelerator {gpu_node['kind']!r}")
    num_gpus = int(gpu_node["gpus"])
    num_cpus, host_gib = CPUS_PER_GPU * num_gpus, HOST_GIB_PER_GPU * num_gpus
    for part in filter(None, host.split(",")):
        if cpus := _HOST_CPUS.fullmatch(part):
            num_cpus = int(cpus[1])
        elif memory := _HOST_MEMORY.fullmatch(part):
            host_gib = float(memory[1])
        else:
            raise _malformed(text, f"has {part!r} for a host")
    return ClusterShape(num_nodes, num_gpus, accelerator, num_cpus, host_gib, assumed_host=not host)


def _malformed(text: str, seen: str) -> PlacementError:
    return PlacementError(
        f"cluster {shortened(repr(text))} {seen}; a cluster is NODESxGPUSxKIND with KIND one of "
        f"{', '.join(ACCELERATORS)}, or NODESxcpuCORES-MEMORYGB; write --cluster 4x8xH100-80GB or 1xcpu16-64GB"
    )
