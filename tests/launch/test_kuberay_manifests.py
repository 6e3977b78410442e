"""The KubeRay manifests against the fields that the custom resources have, and against what a run needs.

Field tables: KubeRay's API reference for ray.io/v1 of KubeRay 1.6
(https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html) and the Kubernetes API reference for Pods
(https://kubernetes.io/docs/reference/kubernetes-api/), reduced to the types that are used here. A field that is not in
a table is an error, as it is for an API server in strict mode.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinyr1v_ray.cli.main import build_parser

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "launch" / "kuberay").glob("*.yaml"))
RAY = [path for path in MANIFESTS if path.name.startswith("ray")]
JOBS = [path for path in RAY if path.name.startswith("rayjob")]

INTEGER, STRING, BOOLEAN, STRINGS = "integer", "string", "boolean", "map of strings"
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")
TYPES: dict[str, dict[str, Any]] = {
    "RayJob": {"apiVersion": STRING, "kind": STRING, "metadata": "ObjectMeta", "spec": "RayJobSpec"},
    "RayCluster": {"apiVersion": STRING, "kind": STRING, "metadata": "ObjectMeta", "spec": "RayClusterSpec"},
    "ObjectMeta": {"name": STRING, "namespace": STRING, "labels": STRINGS, "annotations": STRINGS},
    "RayJobSpec": {
        "activeDeadlineSeconds": INTEGER,
        "backoffLimit": INTEGER,
        "rayClusterSpec": "RayClusterSpec",
        "metadata": STRINGS,
        "clusterSelector": STRINGS,
        "entrypoint": STRING,
        "runtimeEnvYAML": STRING,
        "jobId": STRING,
        "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
        "ttlSecondsAfterFinished": INTEGER,
        "shutdownAfterJobFinishes": BOOLEAN,
        "suspend": BOOLEAN,
    },
    "RayClusterSpec": {
        "suspend": BOOLEAN,
        "authOptions": "AuthOptions",
        "autoscalerOptions": "AutoscalerOptions",
        "enableInTreeAutoscaling": BOOLEAN,
        "headGroupSpec": "HeadGroupSpec",
        "rayVersion": STRING,
        "workerGroupSpecs": ["WorkerGroupSpec"],
    },
    "AuthOptions": {"mode": {"disabled", "token"}, "secretName": STRING},
    "AutoscalerOptions": {
        "idleTimeoutSeconds": INTEGER,
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "version": {"v1", "v2"},
    },
    "HeadGroupSpec": {"template": "PodTemplateSpec", "rayStartParams": STRINGS, "serviceType": STRING},
    "WorkerGroupSpec": {
        "groupName": STRING,
        "replicas": INTEGER,
        "minReplicas": INTEGER,
        "maxReplicas": INTEGER,
        "idleTimeoutSeconds": INTEGER,
        "numOfHosts": INTEGER,
        "rayStartParams": STRINGS,
        "template": "PodTemplateSpec",
    },
    "PodTemplateSpec": {"metadata": "ObjectMeta", "spec": "PodSpec"},
    "PodSpec": {
        "securityContext": "PodSecurityContext",
        "containers": ["Container"],
        "volumes": ["Volume"],
        "tolerations": ["Toleration"],
        "nodeSelector": STRINGS,
        "imagePullSecrets": ["ObjectMeta"],
    },
    "PodSecurityContext": {"runAsNonRoot": BOOLEAN, "runAsUser": INTEGER, "runAsGroup": INTEGER, "fsGroup": INTEGER},
    "Toleration": {"key": STRING, "operator": {"Exists", "Equal"}, "value": STRING, "effect": STRING},
    "Container": {
        "name": STRING,
        "image": STRING,
        "ports": ["ContainerPort"],
        "env": ["EnvVar"],
        "securityContext": "SecurityContext",
        "resources": "ResourceRequirements",
        "readinessProbe": "Probe",
        "livenessProbe": "Probe",
        "volumeMounts": ["VolumeMount"],
    },
    "ContainerPort": {"name": STRING, "containerPort": INTEGER},
    "EnvVar": {"name": STRING, "value": STRING},
    "SecurityContext": {"allowPrivilegeEscalation": BOOLEAN, "capabilities": "Capabilities"},
    "Capabilities": {"drop": [STRING]},
    "ResourceRequirements": {"requests": STRINGS, "limits": STRINGS},
    "Probe": {
        "httpGet": "HTTPGetAction",
        "initialDelaySeconds": INTEGER,
        "periodSeconds": INTEGER,
        "timeoutSeconds": INTEGER,
        "failureThreshold": INTEGER,
    },
    "HTTPGetAction": {"path": STRING, "port": INTEGER},
    "VolumeMount": {"name": STRING, "mountPath": STRING},
    "Volume": {
        "name": STRING,
        "persistentVolumeClaim": "ClaimSource",
        "emptyDir": "EmptyDir",
        "configMap": "ObjectMeta",
    },
    "ClaimSource": {"claimName": STRING, "readOnly": BOOLEAN},
    "EmptyDir": {"medium": STRING, "sizeLimit": STRING},
    "PersistentVolumeClaim": {"apiVersion": STRING, "kind": STRING, "metadata": "ObjectMeta", "spec": "ClaimSpec"},
    "ClaimSpec": {"accessModes": [STRING], "resources": "ResourceRequests", "storageClassName": STRING},
    "ResourceRequests": {"requests": STRINGS},
}
REQUIRED = {
    "RayClusterSpec": {"headGroupSpec"},
    "HeadGroupSpec": {"template", "rayStartParams"},
    "WorkerGroupSpec": {"groupName", "template", "rayStartParams", "maxReplicas", "minReplicas"},
    "PodSpec": {"containers"},
    "Container": {"name", "image"},
}


def problems(value: object, kind: Any, where: str) -> Iterator[str]:
    """What of a value does not fit its type."""
    if isinstance(kind, set):
        if value not in kind:
            yield f"{where} is {value!r}, not one of {sorted(kind)}"
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{where} is no list"
        else:
            for index, item in enumerate(value):
                yield from problems(item, kind[0], f"{where}[{index}]")
    elif kind in TYPES:
        yield from problems_of_object(value, kind, where)
    else:
        fits = {
            INTEGER: isinstance(value, int) and not isinstance(value, bool),
            STRING: isinstance(value, str),
            BOOLEAN: isinstance(value, bool),
            STRINGS: isinstance(value, dict) and all(isinstance(part, str) for pair in value.items() for part in pair),
        }
        if not fits[kind]:
            yield f"{where} is {value!r}, not of type {kind}"


def problems_of_object(value: object, kind: str, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no mapping"
        return
    for name in sorted(REQUIRED.get(kind, set()) - set(value)):
        yield f"{where}.{name} is missing"
    for name, part in value.items():
        if name in TYPES[kind]:
            yield from problems(part, TYPES[kind][name], f"{where}.{name}")
        else:
            yield f"{where}.{name} is no field of {kind}"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def cluster_of(path: Path) -> dict[str, Any]:
    spec = documents(path)[0]["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def pods_of(cluster: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, number and Pod of each group."""
    groups = cluster.get("workerGroupSpecs", [])
    head = ("head", 1, cluster["headGroupSpec"]["template"]["spec"])
    return [head, *((group["groupName"], group["maxReplicas"], group["template"]["spec"]) for group in groups)]


def by_name(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@by_name(MANIFESTS)
def test_every_field_is_one_of_the_resource(path: Path) -> None:
    for document in documents(path):
        version = "v1" if document["kind"] == "PersistentVolumeClaim" else "ray.io/v1"
        assert document["apiVersion"] == version
        assert list(problems(document, document["kind"], document["kind"])) == []


def test_the_checker_finds_what_an_api_server_would() -> None:
    wrong = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "spec": {"entryPoint": "x", "backoffLimit": "0", "submissionMode": "http", "rayClusterSpec": {"rayVersion": 2}},
    }
    assert list(problems(wrong, "RayJob", "RayJob")) == [
        "RayJob.spec.entryPoint is no field of RayJobSpec",
        "RayJob.spec.backoffLimit is '0', not of type integer",
        f"RayJob.spec.submissionMode is 'http', not one of {sorted(TYPES['RayJobSpec']['submissionMode'])}",
        "RayJob.spec.rayClusterSpec.headGroupSpec is missing",
        "RayJob.spec.rayClusterSpec.rayVersion is 2, not of type string",
    ]


@by_name(RAY)
def test_every_pod_is_probed_bounded_without_root_and_has_what_a_run_needs(path: Path) -> None:
    cluster = cluster_of(path)
    assert cluster["authOptions"] == {"mode": "token"}
    for name, _, pod in pods_of(cluster):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        mounted = {volume["name"] for volume in pod["volumes"]}
        assert len(pod["containers"]) == 1  # the first one is Ray's
        container = pod["containers"][0]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert all(QUANTITY.fullmatch(amount) for amount in container["resources"]["limits"].values())
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == mounted and mounts["shared"] == "/shared" and mounts["shm"] == "/dev/shm"
        health = "/api/gcs_healthz" if name == "head" else "/api/local_raylet_healthz"
        assert {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {health}


@by_name(RAY)
def test_ray_and_the_image_are_the_ones_of_this_release(path: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    cluster = cluster_of(path)
    assert f'"ray[default]=={cluster["rayVersion"]}"' in project
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    for _, _, pod in pods_of(cluster):
        image = pod["containers"][0]["image"]
        assert image.endswith(f":{version[1]}-" + ("gpu" if "gpu" in path.stem else "cpu"))


@by_name(RAY)
def test_the_gpus_are_those_that_the_name_promises(path: Path) -> None:
    cluster = cluster_of(path)
    gpus = [
        int(pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))
        for _, count, pod in pods_of(cluster)
        for _ in range(count)
    ]
    shape = re.search(r"_(\d)x(\d)$", path.stem)
    assert [count for count in gpus if count] == ([int(shape[2])] * int(shape[1]) if shape else [])
    if shape and int(shape[1]) > 1:
        assert cluster["enableInTreeAutoscaling"] and cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        assert groups["rollout"]["minReplicas"] < groups["rollout"]["maxReplicas"]
        assert groups["learner"]["minReplicas"] == groups["learner"]["maxReplicas"] == 1


@by_name(JOBS)
def test_a_job_is_one_command_that_the_command_line_accepts(path: Path) -> None:
    spec = documents(path)[0]["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[0] == "tinyr1v"
    options = build_parser().parse_args(words[1:])
    grows = bool(spec["rayClusterSpec"].get("enableInTreeAutoscaling"))
    arguments = ["run.folder=/shared/runs", *(["cluster.autoscaling=true"] if grows else [])]
    assert options.overrides == arguments, "settings are in the configuration, not here"
    mounts = [mount["mountPath"] for mount in pods_of(spec["rayClusterSpec"])[0][2]["containers"][0]["volumeMounts"]]
    if options.config.is_absolute():
        assert str(options.config.parent) in mounts
    else:
        assert (ROOT / options.config).is_file()
    assert spec["shutdownAfterJobFinishes"] is True
