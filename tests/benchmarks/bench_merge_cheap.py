"""The cheap methods against mergekit on the same base and three experts of 0.5 GB (bfloat16), and against bare bytes.

    python tests/benchmarks/bench_merge_cheap.py [--mergekit-python PATH] [--folder DIR] [--small]

mergekit is looked for at that path, at $MERGEKIT_PYTHON and on the PATH; failing these it is installed by pip into an
environment of its own in a temporary folder (it wants older pins).
Every command runs in a process of its own, twice; the second, warm run counts. Wall and CPU seconds, and the peak of
anonymous memory (sampled from /proc). "Bare" reads all inputs and writes the output once, in this
process. Times net of imports subtract a run of the same program's imports alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_EXPERTS = 3
ASKED = {"task_arithmetic": 0.5, "ties": 0.25}
"""Share of mergekit's time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit-python", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--small", action="store_true", help="models of 0.1 GB")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench_merge_"))
    try:
        base, experts = write_models(folder, num_layers=3 if options.small else 13)
        total = sum((m / "model.safetensors").stat().st_size for m in (base, *experts))
        bare_s = min(bare(base, experts, folder / "bare") for _ in range(3))
        print(f"inputs {total / 1e9:.2f} GB; bare reading of all and writing of one: {bare_s:.2f} s", flush=True)
        ours = run_ours(folder, base, experts)
        python = options.mergekit_python or find_mergekit() or install_mergekit(folder)
        theirs = run_mergekit(folder, base, experts, python)
        for method in ("task_arithmetic", "ties"):
            mine, other = ours[method], theirs[method]
            print(
                f"{method}: {mine['wall_s'] / other['wall_s']:.2f} of mergekit's wall time (asked {ASKED[method]:g}), "
                f"{mine['cpu_s'] / other['cpu_s']:.2f} of its CPU time, "
                f"{mine['anonymous_gib'] / other['anonymous_gib']:.2f} of its anonymous memory (asked 0.2)"
            )
        net = ours["task_arithmetic"]["wall_s"] - ours["imports"]["wall_s"]
        print(f"task arithmetic net of imports: {net:.2f} s, {net / bare_s:.1f} times the bare bytes (asked 2)")
        print(f"of which SHA-256 of the inputs: {sha256_s(total):.2f} s on one core")
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def write_models(folder: Path, num_layers: int) -> tuple[Path, list[Path]]:
    """Qwen2-shaped: 0.5 B parameters' layers at hidden 896, random values."""
    import torch
    from safetensors.torch import save_file

    hidden, intermediate, vocabulary = 896, 4864, 32_000
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", 128), ("v", 128), ("o", hidden)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
            if name != "o":
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{prefix}mlp.gate_proj.weight"] = shapes[f"{prefix}mlp.up_proj.weight"] = (intermediate, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, intermediate)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{norm}.weight"] = (hidden,)
    shapes.update({"lm_head.weight": (vocabulary, hidden)})
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": num_layers, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": vocabulary, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 1024,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    base_tensors = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    models = []
    for index in range(1 + NUM_EXPERTS):
        model = folder / f"model_{index}"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps(config))
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
        write = {
            name: (t if index == 0 else t + 1e-3 * torch.randn(t.shape, generator=generator)).bfloat16()
            for name, t in base_tensors.items()
        }
        save_file(write, model / "model.safetensors", metadata={"format": "pt"})
        models.append(model)
    return models[0], models[1:]


def bare(base: Path, experts: list[Path], target: Path) -> float:
    """Read every input byte, write as many as one model has."""
    start = time.perf_counter()
    buffer = bytearray(16 << 20)
    for model in (base, *experts):
        with (model / "model.safetensors").open("rb") as file:
            while file.readinto(buffer):
                pass
    left = (base / "model.safetensors").stat().st_size
    with target.open("wb") as file:
        while left > 0:
            left -= file.write(memoryview(buffer)[: min(left, len(buffer))])
    elapsed = time.perf_counter() - start
    target.unlink()
    return elapsed


def sha256_s(nbytes: int) -> float:
    """How long this machine hashes that many bytes."""
    data = bytes(64 << 20)
    start = time.process_time()
    hashlib.sha256(data).digest()
    return (time.process_time() - start) * nbytes / len(data)


def run_ours(folder: Path, base: Path, experts: list[Path]) -> dict[str, dict[str, float]]:
    code = "import sys; from tinyr1v_ray.cli.main import main; sys.exit(main(sys.argv[1:]))"
    imports = "import tinyr1v_ray.jobs.merge.job, tinyr1v_ray.jobs.merge.progress"
    arguments = ["merge", "--base", str(base), "--output-dtype", "bfloat16"]
    for expert in experts:
        arguments += ["--expert", str(expert)]
    found = {"imports": measured([sys.executable, "-c", imports], None)}
    print(f"ours imports: {describe(found['imports'])}", flush=True)
    for method in ("task_arithmetic", "ties"):
        output = folder / f"ours_{method}"
        command = [sys.executable, "-c", code, *arguments, "--method", method, "--output", str(output)]
        found[method] = measured(command, output)
        print(f"ours {method}: {describe(found[method])}", flush=True)
    return found


def run_mergekit(folder: Path, base: Path, experts: list[Path], python: Path) -> dict[str, dict[str, float]]:
    found = {}
    for method in ("task_arithmetic", "ties"):
        models = [
            {"model": str(e), "parameters": {"weight": 0.3 if method != "ties" else 1.0, "density": 0.2}}
            for e in experts
        ]
        config = {"merge_method": method, "base_model": str(base), "models": models, "dtype": "bfloat16"}
        (folder / f"{method}.yml").write_text(json.dumps(config))
        output = folder / f"mergekit_{method}"
        command = [
            str(python.parent / "mergekit-yaml"),
            str(folder / f"{method}.yml"),
            str(output),
            "--no-copy-tokenizer",
        ]
        found[method] = measured(command, output)
        print(f"mergekit {method}: {describe(found[method])}", flush=True)
    return found


def find_mergekit() -> Path | None:
    """The interpreter of an environment that has it."""
    if named := os.environ.get("MERGEKIT_PYTHON"):
        return Path(named)
    found = shutil.which("mergekit-yaml")
    return Path(found).parent / "python" if found else None


def install_mergekit(folder: Path) -> Path:
    environment = folder / "mergekit_env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(environment / "bin/pip"), "install", "-q", "mergekit"], check=True)
    return environment / "bin/python"


def measured(command: list[str], output: Path | None) -> dict[str, float]:
    """The second of two runs."""
    result = {}
    for _ in range(2):
        if output is not None:
            shutil.rmtree(output, ignore_errors=True)
        result = measure_once(command)
    if output is not None:
        shutil.rmtree(output, ignore_errors=True)
    return result


def measure_once(command: list[str]) -> dict[str, float]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    before = os.times()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
        wall_s = time.perf_counter() - start
        after = os.times()
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{command[0]} failed: {log.read()[-2000:].decode(errors='replace')}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": wall_s, "cpu_s": cpu_s, "anonymous_gib": peak / 2**30}


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def describe(metrics: dict[str, float]) -> str:
    return f"{metrics['wall_s']:.2f} s wall, {metrics['cpu_s']:.2f} s CPU, {metrics['anonymous_gib']:.2f} GiB anonymous"


if __name__ == "__main__":
    main()
