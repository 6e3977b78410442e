"""Out of core: a set of 3 GB merges in a process that may not hold one of its checkpoints."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tinyr1v_ray.config.merge import AmmConfig, MergeConfig, MethodConfig
from tinyr1v_ray.files.safetensors_file import header_bytes
from tinyr1v_ray.merging.amm import merge_task_vectors
from tinyr1v_ray.merging.costs import MatrixShape, gram_cost, thin_cost
from tinyr1v_ray.merging.methods import SOLVED
from tinyr1v_ray.merging.session import prepare_merge

pytestmark = pytest.mark.slow

LIMIT_BYTES = 760 << 20
SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
from pathlib import Path
from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.methods import SOLVED
from tinyr1v_ray.merging.session import Silent, prepare_merge, run_merge
config = load_settings(MergeConfig, Path(sys.argv[1]))
run_merge(prepare_merge(config, Path(config.base)), local_runner(1, 1 << 40), Silent())
"""
HIDDEN, INTERMEDIATE, VOCABULARY, NUM_LAYERS = 256, 32768, 600_000, 12
ROWS = range(599_000, 599_006)
"""The part of the embedding that is not zero."""


def write_model(folder: Path, factor: float) -> Path:
    """1.0 GB: an embedding of 0.6 GB, nearly the limit by itself, and twelve matrices of 34 MB; every third row scaled.

    The embedding is a hole but for a few rows, and matrices repeat their first rows: what is tested reads all of it.
    """
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "tie_word_embeddings": True}))
    generator = torch.Generator().manual_seed(1)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    shapes |= {f"model.layers.{i}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN) for i in range(NUM_LAYERS)}
    header = header_bytes([(name, "F32", shape, 4 * math.prod(shape)) for name, shape in shapes.items()])
    rows = torch.rand(len(ROWS), HIDDEN, generator=generator)
    rows[[row % 3 == 0 for row in ROWS]] *= factor
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.seek(len(header) + 4 * HIDDEN * ROWS.start)
        file.write(rows.numpy().tobytes())
        file.seek(len(header) + 4 * HIDDEN * VOCABULARY)
        for _ in range(NUM_LAYERS):
            weight = torch.rand(INTERMEDIATE // 32, HIDDEN, generator=generator) - 0.5
            weight[::3] *= factor
            for _ in range(32):
                file.write(weight.numpy().tobytes())
    return folder


def test_three_gigabytes_under_a_limit_below_one_checkpoint(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", 1.0)
    experts = [write_model(tmp_path / f"e{i}", factor) for i, factor in enumerate((1.01, 0.98))]
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (base, *experts)]
    assert min(sizes) > 1_000_000_000 > LIMIT_BYTES and sum(sizes) > 3_000_000_000
    tree = {
        "base": str(base), "experts": [str(e) for e in experts], "output": str(tmp_path / "merged"),
        "method": {"amm": {"steps": 1}},
    }  # fmt: skip
    planned = max(t.cost.memory_bytes for t in prepare_merge(MergeConfig.model_validate(tree), base).plan.tasks)
    assert planned < 0.6 * LIMIT_BYTES
    (tmp_path / "merge.yaml").write_text(json.dumps(tree))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "merge.yaml"), str(LIMIT_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with (
        safe_open(base / "model.safetensors", "pt") as old,
        safe_open(tmp_path / "merged/model.safetensors", "pt") as new,
    ):
        rows = slice(ROWS.start, ROWS.stop)
        weight = old.get_slice("model.embed_tokens.weight")[rows]
        assert weight.abs().sum() > 1
        touched = torch.tensor(ROWS) % 3 == 0
        expected = torch.where(touched[:, None], weight * (1 + (0.01 - 0.02) / 2), weight)
        assert torch.allclose(new.get_slice("model.embed_tokens.weight")[rows], expected, atol=1e-6)
    for folder in (base, *experts, tmp_path / "merged"):
        (folder / "model.safetensors").unlink()


def test_planned_memory_bounds_what_a_matrix_takes() -> None:
    """Peak resident memory of a fresh process that merges one matrix, less what it has after its imports."""
    cases = [(4096, 1024, "gram", "per_expert"), (4096, 1024, "gram", "none"), (512, 8192, "thin", "per_expert")]
    script = """
import json, os, sys, torch
from pathlib import Path
from tinyr1v_ray.merging.amm import AmmConfig, merge_task_vectors
def status_bytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
def measure(rows, columns, form, projection):
    torch.set_num_threads(1)
    config = AmmConfig(steps=2, projection=projection, compatibility="softmax" if projection != "none" else "none")
    merge_task_vectors(torch.randn(2, 16, 16), config, form=form)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status_bytes("VmRSS")
    stack = torch.randn(2, rows, columns)
    merge_task_vectors(stack, config, form=form)
    print(status_bytes("VmHWM") - before, flush=True)
for case in json.loads(sys.argv[1]):
    if os.fork() == 0:  # imports are paid for once
        measure(*case)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)], capture_output=True, text=True, check=True, timeout=120
    )
    for (rows, columns, form, projection), used in zip(cases, map(int, done.stdout.split()), strict=True):
        config = AmmConfig(projection=projection, compatibility="softmax" if projection != "none" else "none")
        cost = {"gram": gram_cost, "thin": thin_cost}[form](MatrixShape(rows, columns, (None, None)), config)
        print(form, projection, used / cost.peak_bytes)
        assert 0.5 * cost.peak_bytes < used < 1.15 * cost.peak_bytes + (16 << 20), (form, projection)


@pytest.mark.parametrize("name", ["resmerge", "swudi", "iso_c"])
def test_planned_memory_bounds_what_other_methods_take(name: str) -> None:
    """The same in a process of its own; what is planned includes the task vectors."""
    script = """
import sys, torch
from pathlib import Path
from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.merging.methods import merge_matrix
def status_bytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
torch.set_num_threads(1)
method = MethodConfig(name=sys.argv[1])
merge_matrix(torch.randn(2, 64, 64), method)
Path("/proc/self/clear_refs").write_text("5")
before = status_bytes("VmRSS")
merge_matrix(torch.randn(3, 4096, 1024), method)
print(status_bytes("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=True, timeout=300)
    planned = SOLVED[name].cost(MatrixShape(4096, 1024, (None,) * 3), MethodConfig(name=name), None).peak_bytes
    assert 0.4 * planned < int(done.stdout) < 1.15 * planned + (16 << 20)


def test_a_stack_of_task_vectors_is_not_copied() -> None:
    """The thin form works on the very memory that the caller read the experts into."""
    from tinyr1v_ray.merging.forms import ThinForm

    stack = torch.randn(2, 8, 64)
    form = ThinForm(stack, torch.ones(2), with_penalty=False)
    assert form._stack.data_ptr() == stack.data_ptr()
    assert merge_task_vectors(stack, AmmConfig(steps=1), form="thin").task_vector.data_ptr() != stack.data_ptr()
