"""`tinyr1v submit`: any `tinyr1v` command as a job on a running Ray cluster."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from tinyr1v_ray.cli import evaluate, merge, train
from tinyr1v_ray.cli import run as recipe
from tinyr1v_ray.cli.arguments import OneLineParser, given_settings
from tinyr1v_ray.cli.jobs import add_address, connect, follow
from tinyr1v_ray.config.shipped import shipped_config
from tinyr1v_ray.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.cluster.placement import Placement
    from tinyr1v_ray.cluster.working_tree import WorkingTree
    from tinyr1v_ray.config.kinds import AnyConfig

COMMANDS: tuple[ModuleType, ...] = (recipe, train, merge, evaluate)
KINDS = {"run": "recipe", "train": "train", "merge": "merge", "evaluate": "evaluate"}
"""Sub-commands that can be submitted, and the kind of configuration that each takes."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "submit",
        help="run a command as a job on a Ray cluster",
        description="Pack the working tree (or name an image), start the command as a job on a running Ray cluster and "
        "follow its output. Ctrl-C leaves the job running. What a job writes must lie on storage that outlives it, so "
        "folder (run), run.folder (train) or output (merge, evaluate) is an absolute path that all nodes see.",
        epilog="example: tinyr1v submit --address http://127.0.0.1:8265 run --config configs/recipe_miniature_cpu.yaml "
        "folder=/shared/runs; exit code: the job's own",
    )
    add_address(parser)
    parser.add_argument("--tree", type=Path, default=Path(), metavar="DIR", help="folder to pack (default: this one)")
    parser.add_argument("--limit-mib", type=float, metavar="N", help="largest tree that is packed (default: 100)")
    parser.add_argument("--image", default="", metavar="NAME", help="container image with the code; nothing is packed")
    parser.add_argument("--installed", action="store_true", help="use the code installed on the nodes; pack nothing")
    parser.add_argument("--python", default="python", metavar="PATH", help="interpreter on the cluster")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the job; repeat it")
    parser.add_argument(
        "--follow", action=argparse.BooleanOptionalAction, default=True, help="show the job's output (default)"
    )
    parser.add_argument("--config", metavar="FILE", help="without COMMAND: the one that this configuration is for")
    parser.add_argument(
        "job_command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help=f"{', '.join(KINDS)} and arguments"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked here, submit, follow."""
    command = list(options.job_command)
    if options.config is not None:
        command = [_command_for(_place(options.config, options.tree)), "--config", options.config, *command]
    if not command or command[0] not in KINDS:
        raise ConfigError(
            f"submit got {' '.join(command[:1]) or 'no command'}; a job is one of {', '.join(KINDS)}; write "
            "tinyr1v submit --address http://HOST:8265 train --config FILE"
        )
    environment = _environment(options.env)
    if options.image and options.installed:
        raise ConfigError("both --image and --installed are given; the code comes from one place; remove one")
    tree = None if options.image or options.installed else _packed_tree(options.tree, options.limit_mib)
    placements = _check_command(command, options.tree, tree)

    cluster = connect(options.address)
    cluster.check_room(placements)

    from tinyr1v_ray.cluster.submission import JobRequest, come_back

    request = JobRequest(command, tree, options.image, environment, options.python, _metadata(options.tree))
    job_id = cluster.submit(request)
    print(f"job {job_id} submitted" + (f", {tree.num_bytes / 2**20:.1f} MiB of {tree.root} packed" if tree else ""))
    if options.follow:
        return follow(cluster, options.address, job_id)
    print(f"follow it: {come_back(options.address, job_id)}")
    return 0


def _command_for(config: Path) -> str:
    """The command that a configuration is for, by what it holds."""
    from tinyr1v_ray.config.base import read_yaml
    from tinyr1v_ray.config.kinds import kind_of_config

    kind = kind_of_config(read_yaml(config), str(config))
    return next(command for command, taken in KINDS.items() if taken == kind)


def _place(config: str | Path, folder: Path) -> Path:
    """Where a job's configuration lies here: in the tree, or among the shipped ones, which its nodes have too."""
    packed = folder / config
    return packed if packed.exists() else shipped_config(Path(config)) or packed


def _packed_tree(folder: Path, limit_mib: float | None) -> WorkingTree:
    from tinyr1v_ray.cluster.working_tree import DEFAULT_LIMIT_MIB, check_size, read_working_tree

    tree = read_working_tree(folder)
    check_size(tree, DEFAULT_LIMIT_MIB if limit_mib is None else limit_mib)
    return tree


def _check_command(command: Sequence[str], folder: Path, tree: WorkingTree | None) -> list[Placement]:
    """Refuse here what the job would refuse: bad arguments, bad settings, a config that is not packed, lost output.

    Returns the actors that the command will start, as far as that can be known here.
    """
    from tinyr1v_ray.config.base import parse_settings
    from tinyr1v_ray.config.kinds import OUTPUT_KEYS, SCHEMAS, output_of

    options, kind = _parser().parse_args(command), KINDS[command[0]]
    placements: list[Placement] = []
    if tree is None:  # the config is read where the job runs
        options.config = None
        given = given_settings(options)
    else:
        if options.config is not None:
            place = _place(options.config, folder)
            if place == folder / options.config:
                _check_packed(options.config, tree)
            options.config = place
        given = given_settings(options)
        placements = _placements(parse_settings(SCHEMAS[kind], given))
    key, output = OUTPUT_KEYS[kind], output_of(kind, given)
    if output is None or not PurePosixPath(str(output)).is_absolute():
        raise ConfigError(
            f"{key} is {output or 'not set'} for a job; its working folder vanishes with it, so what it writes goes to "
            f"an absolute path on storage that all nodes share; add {key}=/shared/folder"
        )
    return placements


def _parser() -> OneLineParser:
    """Of the commands that can be submitted."""
    parser = OneLineParser(prog="tinyr1v")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def _placements(settings: AnyConfig) -> list[Placement]:
    """Of a training, an evaluation, or each stage of a recipe; none where the cluster grows by itself."""
    from tinyr1v_ray.cluster.placement import plan_engines, plan_placement
    from tinyr1v_ray.config.evaluate import EvaluateConfig
    from tinyr1v_ray.config.merge import MergeConfig
    from tinyr1v_ray.config.train import TrainConfig
    from tinyr1v_ray.jobs.recipe.graph import build_graph

    if isinstance(settings, MergeConfig) or settings.cluster.autoscaling:  # a merge fits itself to the cluster
        return []
    if isinstance(settings, TrainConfig):
        return [plan_placement(settings.rollout, settings.reward, settings.learner, settings.placement)]
    if isinstance(settings, EvaluateConfig):
        return [plan_engines(settings.engine)]
    stages = build_graph(settings, read_inputs=False).stages
    return [stage.placement for stage in stages if stage.placement is not None]


def _check_packed(config: Path, tree: WorkingTree) -> None:
    if config.is_absolute() or PurePosixPath(config.as_posix()) not in tree.files:
        if not (tree.root / config).is_file():
            raise ConfigError(
                f"config file {config} does not exist in {tree.root}; a job reads it from the packed tree; correct it"
            )
        raise ConfigError(
            f"config file {config} is not among the packed files of {tree.root}; a job reads it from there; name it "
            "relative to the tree, outside of ignored folders"
        )


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    environment = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError(f"--env {pair!r} is not NAME=VALUE; it sets a variable of the job; correct it")
        if _SECRET.search(name):
            raise ConfigError(
                f"--env {name} looks like a secret; a job's environment can be read by whoever sees the cluster's "
                "dashboard; give secrets to the cluster's nodes, such as by a Kubernetes Secret"
            )
        environment[name] = value
    return environment


def _metadata(folder: Path) -> dict[str, str]:
    """What is put on record with the job."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, check=True, timeout=10, text=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {"tinyr1v": version("tinyr1v-ray"), "git_commit": commit, "python": sys.version.split()[0]}
