"""merge.json, the machine-readable account of a merge, and the model card made from it."""

from __future__ import annotations

import json
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.merging.names import MATRIX_KINDS
from tinyr1v_ray.merging.rounding import RETENTION_WARNING

REPORT = "merge.json"
CARD = "README.md"
_GROWTH_WARNING = 3.0
_PACKAGES = ("tinyr1v-ray", "torch", "safetensors", "numpy", "ray")


def versions() -> dict[str, str]:
    """Of everything that takes part in the arithmetic."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def make_report(
    method: MethodConfig, records: Sequence[dict[str, Any]], refused: Sequence[dict[str, Any]], context: dict[str, Any]
) -> dict[str, Any]:
    """`context` holds what is common to all methods: inputs, donor, conflicts, fingerprint, job."""
    settings = method.model_dump(mode="json", exclude={"amm"})
    if method.name in ("amm", "wudi"):
        settings["amm"] = method.amm.model_dump(mode="json")
    settings["scale"] = method.factor
    counts = Counter(dict.fromkeys(("merged", "averaged", "copied"), 0))
    counts.update(record["action"] for record in records)
    counts["refused"] = len(refused)
    return {
        "format": "tinyr1v-merge/2",
        **context,
        "method": settings,
        "versions": versions(),
        "counts": dict(sorted(counts.items())),
        "warnings": [*context.get("warnings", []), *merge_warnings(records)],
        "tensors": list(records),
        "refused": list(refused),
    }


def merge_warnings(records: Sequence[dict[str, Any]]) -> list[str]:
    """Deltas lost in storage, and norms that the optimiser has blown up."""
    lines = []
    kept = [r for r in records if r.get("retention_cosine") is not None]
    lossy = [r for r in kept if r["retention_cosine"] < RETENTION_WARNING]
    if lossy:
        worst = min(lossy, key=lambda r: r["retention_cosine"])
        lines.append(
            f"{len(lossy)} of {len(kept)} tensors keep less than {RETENTION_WARNING:g} of their delta (cosine of "
            f"stored and computed) in the output dtype; worst {worst['name']} with {worst['retention_cosine']:.3f}; "
            "use output_dtype float32 or stochastic rounding"
        )
    grown = [r for r in records if (r.get("growth") or 0) > _GROWTH_WARNING and r["rule"] in ("amm", "wudi")]
    if grown:
        worst = max(grown, key=lambda r: r["growth"])
        lines.append(
            f"{len(grown)} tensors have ||m|| above {_GROWTH_WARNING:g} x ||sum tau||; worst {worst['name']} with "
            f"{worst['growth']:.1f}; the learning rate is too large for these deltas: use learning_rate_mode relative"
        )
    return lines


def unchanged_experts(records: Sequence[dict[str, Any]], experts: Sequence[str]) -> list[str]:
    """Experts that equal the base, wholly or in a whole kind of linear layers."""
    lines = []
    for index, expert in enumerate(experts):
        moved = Counter(r["kind"] for r in records if r.get("delta_norms") and r["delta_norms"][index] > 0)
        if not moved:
            lines.append(f"expert {index} ({expert}) equals the base in every tensor: it adds nothing")
            continue
        present = Counter(r["kind"] for r in records if r.get("delta_norms"))
        for kind in MATRIX_KINDS:
            if present[kind] and not moved[kind]:
                lines.append(f"expert {index} ({expert}) equals the base in all {present[kind]} {kind} matrices")
    return lines


def write_report(report: dict[str, Any], folder: Path) -> None:
    """merge.json and the card."""
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(report), encoding="utf-8")


def model_card(report: dict[str, Any]) -> str:
    """A README with a Hugging Face header, from the report alone."""
    method = report["method"]
    lines = ["---", "library_name: transformers", "tags:", "- merge", f"- {method['name']}", "---", ""]
    lines += [f"# Merged model ({method['name']})", ""]
    lines += [f"{len(report['experts'])} experts of one base, merged without data by tinyr1v-ray.", ""]
    lines += [f"- base: `{report['base']}`", *(f"- expert {i}: `{path}`" for i, path in enumerate(report["experts"]))]
    lines += [f"- tokenizer, processor and templates from: `{report['donor']}`", f"- weights: {method['output_dtype']}"]
    lines += ["", "## Settings", "", "```json", json.dumps(method, indent=1), "```", ""]
    lines += ["## Tensors", "", "| action | tensors |", "| --- | --- |"]
    lines += [f"| {action} | {count} |" for action, count in report["counts"].items()]
    lines += ["", *_summary(report["tensors"])]
    if report["warnings"] or report["conflicts"]:
        lines += ["", "## Warnings", "", *(f"- {line}" for line in [*report["warnings"], *report["conflicts"]])]
    lines += ["", "## Inputs", "", "| file | sha256 |", "| --- | --- |"]
    lines += [f"| `{entry['path']}` | `{entry['sha256']}` |" for entry in report["inputs"]]
    lines += ["", "Versions: " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()) + ".", ""]
    return "\n".join(lines)


def _summary(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    kept = [r["retention_cosine"] for r in records if r.get("retention_cosine") is not None]
    if kept:
        lines.append(f"Delta retention (cosine): median {statistics.median(kept):.4f}, lowest {min(kept):.4f}.")
    falls = [r["loss_last"] / r["loss_first"] for r in records if r.get("loss_first")]
    if falls:
        lines.append(f"Loss, last over first: median {statistics.median(falls):.3f} over {len(falls)} matrices.")
    return lines
