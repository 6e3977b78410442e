"""Families by architecture: known ones, a user's own, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import own_family as toy
import pytest

from tinyr1v_ray.errors import ConfigError, ModelError
from tinyr1v_ray.models.family import ModelFamily
from tinyr1v_ray.models.registry import FAMILIES, find_family, own_family


class OwnQwen(toy.Llama):
    """One that goes before the package's."""

    architectures = FAMILIES[0].architectures


def test_each_family_is_found_by_its_architectures_and_named_by_one_only() -> None:
    named = [architecture for family in FAMILIES for architecture in family.architectures]
    assert len(named) == len(set(named))
    for family in FAMILIES:
        assert isinstance(family, ModelFamily)
        for architecture in family.architectures:
            assert find_family({"architectures": [architecture]}, "x") is family


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "has the architecture GemmaForCausalLM in"),
        (
            {"architectures": ["Qwen3MoeForCausalLM"]},
            "has the architecture Qwen3MoeForCausalLM, a mixture of experts, which no test has trained, in",
        ),
        ({"architectures": []}, "names no architecture in"),
        ({}, "names no architecture in"),
    ],
)
def test_a_model_of_no_known_family_is_one_line_that_names_the_known(config: dict[str, object], seen: str) -> None:
    with pytest.raises(ModelError) as raised:
        find_family(config, "my/model")
    text = str(raised.value)
    assert text.startswith(f"model my/model {seen} its config.json; known are ") and "\n" not in text
    assert all(f"{family.name} ({', '.join(family.architectures)})" in text for family in FAMILIES)


def test_a_family_of_ones_own_goes_first_and_is_named_among_the_known() -> None:
    config = {"architectures": list(FAMILIES[0].architectures)}
    assert find_family(config, "x", "test_registry:OwnQwen").name == "Llama"
    assert find_family(config, "x") is FAMILIES[0]
    with pytest.raises(ModelError, match=r"known are .*, Llama \(LlamaForCausalLM\)"):
        find_family({}, "x", "own_family:Llama")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", r"model\.family is 'nothing'; it is written package\.module:"),
        ("no_such_module:Family", r"model\.family no_such_module:Family cannot be imported"),
        ("collections:OrderedDict", r"lacks architectures, engine_arguments, .*; a family has all of ModelFamily's"),
    ],
)
def test_what_is_no_family_is_one_line(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own_family(path)


def test_a_family_is_told_without_torch() -> None:
    """Whether a folder can be trained is known before anything heavy starts."""
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'vllm', 'ray'): sys.modules[name] = None\n"
        "from tinyr1v_ray.data.model_folder import resolve_model_folder\nresolve_model_folder('miniature')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
