"""A merge from end to end, whoever runs the tasks: check everything, plan, resume, run, verify, publish.

Nothing is written before all checks have passed. Work goes on in `.<name>.partial` beside the output folder, which
appears by one rename when the bytes on disk have been held against the journal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tinyr1v_ray.config.merge import MergeConfig, MethodConfig
from tinyr1v_ray.errors import MergeError, MergeInputError, RunFolderError
from tinyr1v_ray.files.durable import replace_folder
from tinyr1v_ray.merging.accounting import LedgerEntry, build_ledger, moving_heads, open_expert
from tinyr1v_ray.merging.assets import (
    check_architectures,
    check_vocabularies,
    choose_donor,
    conflicts,
    describe_model,
    make_assets,
    other_bases,
)
from tinyr1v_ray.merging.checkpoint_folder import open_checkpoint
from tinyr1v_ray.merging.custom_method import function_hashes
from tinyr1v_ray.merging.custom_trial import try_functions
from tinyr1v_ray.merging.execute import allocate
from tinyr1v_ray.merging.journal import JOURNAL, OUTPUT, Journal, open_journal, verify_output
from tinyr1v_ray.merging.lora import is_adapter
from tinyr1v_ray.merging.names import MATRIX_KINDS
from tinyr1v_ray.merging.output_folder import check_creatable, check_room, locked_folder
from tinyr1v_ray.merging.plan import MergePlan, input_files, make_plan
from tinyr1v_ray.merging.records import TensorRecord
from tinyr1v_ray.merging.report import REPORT, make_report, unchanged_experts, write_report
from tinyr1v_ray.merging.sanity import Closeness, check_distinct, check_same_base, check_samples, take_sample
from tinyr1v_ray.merging.schedule import Bundle, make_bundles
from tinyr1v_ray.merging.tensor_values import require_unchanged


@dataclass(frozen=True)
class PreparedMerge:
    """Checked inputs and a plan; nothing has been written."""

    config: MergeConfig
    base: Path
    experts: tuple[Path, ...]
    donor: Path
    output: Path
    plan: MergePlan
    conflicts: tuple[str, ...]
    """Where models say something else than the donor, or than this merge, about what is no weight."""
    warnings: tuple[str, ...]
    """What will come of the experts as they are."""
    models: tuple[dict[str, Any], ...]
    """What the base and each expert say of themselves, to be kept in the report."""

    @property
    def working_folder(self) -> Path:
        """Beside the output, so that the final rename stays on one file system."""
        return self.output.parent / f".{self.output.name}.partial"

    @property
    def is_finished(self) -> bool:
        """Whether the output is there already and is exactly this merge's (one killed after its last rename)."""
        return all(self._is_written(name, method) for name, method in self.plan.methods.items())

    def _is_written(self, name: str, method: MethodConfig) -> bool:
        target, assets = self.output / name, self.assets(method)
        try:
            report = json.loads((target / REPORT).read_text(encoding="utf-8"))
            if not isinstance(report, dict) or report.get("fingerprint") != self.plan.fingerprint:
                return False
            return all((target / file).read_bytes() == content for file, content in assets.items())
        except (OSError, ValueError):
            return False

    def assets(self, method: MethodConfig) -> dict[str, bytes]:
        """Everything in a method's folder but weights and report: name -> content."""
        return make_assets(self.donor, [self.base, *self.experts], method.output_dtype)


@dataclass(frozen=True)
class BundleResult:
    """What a worker sends back: records, or one file's hash."""

    bundle: Bundle
    records: tuple[tuple[int, tuple[TensorRecord, ...]], ...] = ()
    sha256: str | None = None


class Listener(Protocol):
    """Told of the work ahead and of every finished bundle, for progress."""

    def begin(self, bundles: Sequence[Bundle]) -> None: ...

    def on_result(self, result: BundleResult) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, bundles: Sequence[Bundle]) -> None:
        return

    def on_result(self, result: BundleResult) -> None:
        return


Runner = Callable[[PreparedMerge, Path, Sequence[Bundle], Callable[[BundleResult], None]], None]
"""Carries out bundles of a plan on the shards in a folder and reports each; raises what a task raises."""


@dataclass(frozen=True)
class MergeSummary:
    """What a finished merge has to say."""

    output: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    resumed_tasks: int = 0


def prepare_merge(config: MergeConfig, base: Path) -> PreparedMerge:
    """All checks that need no full pass over the weights, and the plan. `base` is the folder of config.base."""
    if not config.experts:
        raise MergeError("no expert was given; a merge needs at least one; pass --expert DIR or set experts")
    output = Path(config.output).absolute()
    paths = tuple(Path(expert) for expert in config.experts)
    check_distinct(paths)
    base_folder = open_checkpoint(base)
    experts = [open_expert(path) for path in paths]
    check_architectures(base_folder, experts)
    ledger = build_ledger(base_folder, experts)
    check_vocabularies(base, paths)
    donor = choose_donor(config.donor, base, paths)
    samples = [take_sample(ledger, index) for index in range(len(paths))]
    check_same_base(config.experts, [sample.found for sample in samples], config.max_norm_ratio, config.min_cosine)
    warnings = [*check_samples(config.experts, samples), *moving_heads(base_folder, experts)]
    plan = make_plan(
        ledger,
        config.named_methods,
        shard_bytes=config.shard_mib << 20,
        functions=function_hashes(config.named_methods.values()),
        device=config.job.device,
        threads_per_task=config.job.threads_per_task,
    )
    names = [config.base, str(base.resolve()), str(base_folder.config.get("_name_or_path") or "")]
    differing = [*conflicts(donor, [base, *paths]), *other_bases(names, experts)]
    prepared = PreparedMerge(
        config, base, paths, donor, output, plan, tuple(differing), tuple(warnings),
        tuple(describe_model(model) for model in (base_folder, *experts)),
    )  # fmt: skip
    _check_output(prepared)
    try_functions(plan)
    return prepared


def _check_output(prepared: PreparedMerge) -> None:
    is_finished = prepared.is_finished
    if prepared.output.exists() and not (prepared.config.resume and is_finished):
        raise RunFolderError(
            f"output {prepared.output} exists; a merge never writes into an existing folder; "
            "remove it or choose another"
        )
    check_creatable(prepared.output)
    if not is_finished:
        check_room(prepared.output, prepared.working_folder, prepared.plan.write_bytes)


def run_merge(prepared: PreparedMerge, runner: Runner, listener: Listener) -> MergeSummary:
    """Carry out a prepared merge.

    A fault of the inputs that only a full pass finds (MergeInputError: NaN, a foreign base) removes the working folder;
    any other end leaves it, and the same merge started again continues there.
    """
    if prepared.is_finished:
        shutil.rmtree(prepared.working_folder, ignore_errors=True)
        return MergeSummary(prepared.output)
    with locked_folder(prepared.working_folder, prepared.output, prepared.config.resume) as folder:
        try:
            return _run_locked(prepared, folder, runner, listener)
        except MergeInputError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _run_locked(prepared: PreparedMerge, folder: Path, runner: Runner, listener: Listener) -> MergeSummary:
    plan = prepared.plan
    resumed = (folder / JOURNAL).is_file()
    journal = open_journal(folder, plan)
    allocate(plan, folder / OUTPUT)
    num_resumed = len(journal.records) if resumed else 0

    def keep(result: BundleResult) -> None:
        for index, records in result.records:
            journal.append_task(index, records)
        if result.sha256 is not None and result.bundle.file is not None:
            journal.append_file(result.bundle.file, result.sha256)
        listener.on_result(result)

    bundles = make_bundles(plan, journal.records, journal.input_hashes)
    listener.begin(bundles)
    runner(prepared, folder / OUTPUT, bundles, keep)
    _check_full_pass(prepared, journal)
    verify_output(plan, folder / OUTPUT, journal)
    summary = _publish(prepared, folder, journal)
    return MergeSummary(summary.output, summary.counts, summary.warnings, num_resumed)


def _check_full_pass(prepared: PreparedMerge, journal: Journal) -> None:
    """The foreign-base check again, now on every linear layer; and that the inputs stayed what they were.

    Of a checkpoint the layers that it changes are looked at. An adapter holds nothing of its base, and adapts few
    layers by much: what can be said of it is how far it moves the model as a whole.
    """
    for path, stamp in input_files(prepared.plan).items():
        require_unchanged(path, stamp)
    first = next(iter(prepared.plan.methods))
    records = [r for r in journal.all_records() if r["method"] == first and r.get("norm_ratios")]
    linear = [r for r in records if r["kind"] in MATRIX_KINDS]
    found = []
    for index, expert in enumerate(prepared.experts):
        each = [Closeness(r["norm_ratios"][index], r["base_cosines"][index]) for r in linear]
        found.append(each if is_adapter(expert) else [near for near in each if near.norm_ratio > 0])
    config = prepared.config
    check_same_base(config.experts, found, config.max_norm_ratio, config.min_cosine)


def _publish(prepared: PreparedMerge, folder: Path, journal: Journal) -> MergeSummary:
    """Assets, reports, flush to disk, rename."""
    records = journal.all_records()
    counts: dict[str, dict[str, int]] = {}
    warnings: list[str] = []
    for name, method in prepared.plan.methods.items():
        target = folder / OUTPUT / name
        own = [record for record in records if record["method"] == name]
        for file, content in prepared.assets(method).items():
            (target / file).write_bytes(content)
        _write_index(prepared.plan, name, target)
        report = make_report(
            method, own, [_refused(entry) for entry in prepared.plan.refused], _context(prepared, journal, own)
        )
        if method.function:
            report["method"]["function_sha256"] = prepared.plan.functions[method.function]
        write_report(report, target)
        counts[name] = report["counts"]
        warnings += [f"{name}: {line}" if name else line for line in report["warnings"]]
    replace_folder(folder / OUTPUT, prepared.output)
    shutil.rmtree(folder, ignore_errors=True)
    return MergeSummary(prepared.output, counts, tuple(warnings))


def _context(prepared: PreparedMerge, journal: Journal, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    job = prepared.config.job
    return {
        "fingerprint": prepared.plan.fingerprint,
        "base": str(prepared.base),
        "experts": [str(path) for path in prepared.experts],
        "donor": str(prepared.donor),
        "inputs": [{"path": path, "sha256": digest} for path, digest in sorted(journal.input_hashes.items())],
        "arithmetic": {"device": job.device, "threads_per_task": job.threads_per_task},
        "conflicts": list(prepared.conflicts),
        "models": list(prepared.models),
        "warnings": [*prepared.warnings, *unchanged_experts(records, prepared.config.experts)],
    }


def _refused(entry: LedgerEntry) -> dict[str, Any]:
    return {"name": entry.name, "kind": entry.kind, "action": "refused", "reason": entry.reason}


def _write_index(plan: MergePlan, method: str, target: Path) -> None:
    """The index of a sharded output; a single file needs none."""
    weight_map, total = {}, 0
    for task in plan.tasks:
        for treatment, place in zip(task.treatments, task.places, strict=True):
            if treatment.method == method:
                weight_map[task.stored_name] = Path(place.shard).name
                total += place.nbytes
    if len(set(weight_map.values())) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
