"""A merge method of the user's own: what it is given, what it may return, and how a bad one is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import Merge, weights

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.merge import MergeConfig, MethodConfig
from tinyr1v_ray.errors import ConfigError, TinyR1VError
from tinyr1v_ray.merging.custom_method import merge_by_function
from tinyr1v_ray.merging.methods import merge_matrix
from tinyr1v_ray.merging.session import prepare_merge
from tinyr1v_ray.merging.task_vectors import LowRank

METHODS = """
import sys
import torch

calls = []

def mean(task_vectors):
    return torch.stack(task_vectors).mean(dim=0)

def mean_in_place(task_vectors):
    for other in task_vectors[1:]:
        task_vectors[0].add_(other)
    return task_vectors[0].div_(len(task_vectors))

def last(task_vectors):
    calls.append([(vector.dtype, bool(vector.any())) for vector in task_vectors])
    return task_vectors[-1].double()

def learned(task_vectors):
    merged = torch.nn.Parameter(torch.zeros_like(task_vectors[0]))
    optimiser = torch.optim.SGD([merged], lr=0.5)
    for _ in range(40):
        optimiser.zero_grad()
        sum((merged - vector).square().sum() for vector in task_vectors).backward()
        optimiser.step()
        optimiser.param_groups[0]["lr"] = 0.5 / len(task_vectors)
    return merged

def random(task_vectors):
    return task_vectors[0] * torch.rand(())

def raises(task_vectors):
    raise KeyError("no such\\nkey")

def leaves(task_vectors):
    sys.exit(3)

def transposed(task_vectors):
    return task_vectors[0].T

def a_list(task_vectors):
    return task_vectors

def infinite(task_vectors):
    return task_vectors[0] / 0

def complex_numbers(task_vectors):
    return task_vectors[0] + 1j

NOT_A_FUNCTION = 3
"""


@pytest.fixture(autouse=True)
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_merges.py").write_text(METHODS)
    (tmp_path / "broken_merges.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_merges", raising=False)


def own(name: str, **more: object) -> dict[str, object]:
    return {"name": "function", "function": f"some_merges:{name}", **more}


def test_a_mean_of_ones_own_is_the_average(merge_here: Merge) -> None:
    """Also one that works in place, beside others that read the same task vectors after it."""
    methods = {"in_place": own("mean_in_place"), "own": own("mean"), "average": {"name": "average"}}
    output = merge_here(methods=methods).output
    own_mean, in_place, average = (weights(output / name) for name in ("own", "in_place", "average"))
    for name, expected in average.items():
        torch.testing.assert_close(own_mean[name], expected, rtol=0, atol=1e-7)
        torch.testing.assert_close(in_place[name], expected, rtol=0, atol=1e-7)


def test_policies_and_scale_hold_for_it_too(merge_here: Merge, tied_base: Path, experts: list[Path]) -> None:
    output = merge_here(method=own("last", scale=0.5, vision="base", others="base")).output
    out, base, last = weights(output), weights(tied_base), weights(experts[-1])
    changed = {name for name in out if not torch.equal(out[name], base[name])}
    assert changed and all(name.startswith("model.layers") for name in changed)
    for name in changed:
        torch.testing.assert_close(out[name], base[name] + 0.5 * (last[name] - base[name]))
    rules = {record["rule"] for record in json.loads((output / "merge.json").read_text())["tensors"]}
    assert rules == {"function", "base"}


def test_all_are_given_as_float32_tensors() -> None:
    """An adapter is multiplied out; what comes back in float64 is stored like everything else."""
    import some_merges

    dense, low = torch.ones(3, 2), LowRank(torch.ones(3, 1), torch.full((1, 2), 2.0))
    assert torch.equal(merge_by_function([dense, low], "some_merges:last"), torch.full((3, 2), 2.0))
    assert some_merges.calls == [[(torch.float32, True)] * 2]


def test_an_expert_that_leaves_a_layer_alone_is_a_zero_in_its_place(
    merge_here: Merge, tied_base: Path, experts: list[Path], tmp_path: Path
) -> None:
    idle = tmp_path / "adapter"
    idle.mkdir()
    rows, columns = weights(tied_base)["model.layers.0.self_attn.q_proj.weight"].shape
    (idle / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]})
    )
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{prefix}.lora_A.weight": torch.ones(2, columns), f"{prefix}.lora_B.weight": torch.ones(rows, 2) * 1e-4}
    save_file(factors, idle / "adapter_model.safetensors")
    merge_here(method=own("last"), experts=[str(experts[0]), str(idle)], output=str(tmp_path / "merged"))
    out, base = weights(tmp_path / "merged"), weights(tied_base)
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(out[name], base[name] + 2e-4)
    other = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(out[other], base[other])


def test_a_method_may_use_autograd(merge_here: Merge) -> None:
    vectors = [torch.full((4, 3), value) for value in (1.0, 2.0, 6.0)]
    merged = merge_matrix(vectors, MethodConfig.model_validate(own("learned"))).task_vector
    torch.testing.assert_close(merged, torch.full((4, 3), 3.0), rtol=0, atol=1e-4)
    assert not merged.requires_grad


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("some_merges:random", "returned other numbers when it was called again"),
        ("some_merges:raises", "raised KeyError: 'no such\\nkey'; it merges 3 task vectors"),
        ("some_merges:leaves", "raised SystemExit: 3"),
        (
            "some_merges:transposed",
            "; the merged task vector is a tensor of the shape of each, [",
        ),
        ("some_merges:a_list", "returned a list"),
        ("some_merges:infinite", "not finite"),
        ("some_merges:complex_numbers", "not finite and real"),
        ("some_merges:NOT_A_FUNCTION", "is a int; it is a function"),
        ("some_merges:missing", "cannot be imported: module 'some_merges' has no attribute 'missing'"),
        ("no_such_merges:mean", "cannot be imported: No module named 'no_such_merges'"),
        ("broken_merges:mean", "cannot be imported: ZeroDivisionError: division by zero"),
        ("some_merges", "it is written package.module:function"),
    ],
)
def test_a_bad_method_is_refused_before_anything_is_written(
    tied_base: Path, experts: list[Path], tmp_path: Path, name: str, says: str
) -> None:
    tree = {"base": str(tied_base), "experts": [str(e) for e in experts], "output": str(tmp_path / "out" / "merged")}
    config = parse_settings(MergeConfig, {**tree, "method": {"name": "function", "function": name}})
    with pytest.raises(TinyR1VError) as caught:
        prepare_merge(config, tied_base)
    text = str(caught.value)
    assert says in text and text.startswith("method.function ") and name in text and "\n" not in text
    assert caught.value.exit_code == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [{"name": "function"}, {"name": "ties", "function": "some_merges:mean"}])
def test_method_and_function_go_together(method: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"name=function and a function .* go together"):
        parse_settings(MergeConfig, {"base": "a", "output": "b", "method": method})


def test_a_method_that_fails_on_a_later_layer_leaves_nothing(merge_here: Merge, tmp_path: Path) -> None:
    """The trial on the smallest layer cannot see it; the message names the layer."""
    (tmp_path / "some_merges.py").write_text(
        METHODS + "\ndef small_only(task_vectors):\n"
        "    return task_vectors[0] if task_vectors[0].numel() < 3000 else task_vectors[0][1:]\n"
    )
    with pytest.raises(TinyR1VError, match=r"some_merges:small_only on \S+\.weight returned a tensor"):
        merge_here(method=own("small_only"))
    assert not list(tmp_path.glob("*merged")) and not list(tmp_path.glob(".*partial"))


def test_a_method_that_raises_late_leaves_what_is_merged_already(merge_here: Merge, tmp_path: Path) -> None:
    """It may have lacked memory; the same merge goes on."""
    (tmp_path / "some_merges.py").write_text(
        METHODS + "\nimport pathlib\n\ndef lacks_memory(task_vectors):\n"
        f"    if task_vectors[0].numel() > 3000 and not pathlib.Path({str(tmp_path / 'more')!r}).exists():\n"
        "        raise MemoryError('no more')\n"
        "    return task_vectors[0]\n"
    )
    with pytest.raises(TinyR1VError, match=r"some_merges:lacks_memory on \S+\.weight raised MemoryError: no more"):
        merge_here(method=own("lacks_memory"))
    assert list(tmp_path.glob(".*partial"))
    (tmp_path / "more").touch()
    assert merge_here(method=own("lacks_memory")).counts
