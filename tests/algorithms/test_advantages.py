"""The table of algorithms: every row on whole steps, what takes part, and functions of the user's own."""

import importlib
import sys
from typing import get_args

import numpy as np
import pytest

from tinyr1v_ray.algorithms.advantages import ALGORITHMS, build_advantages
from tinyr1v_ray.algorithms.baselines import dapo_advantages, dr_grpo_advantages, grpo_advantages
from tinyr1v_ray.algorithms.ddca import ddca_advantages
from tinyr1v_ray.algorithms.dler import dler_advantages
from tinyr1v_ray.algorithms.length_penalty import length_penalty_advantages
from tinyr1v_ray.algorithms.lipo import LipoConfig, lipo_advantages
from tinyr1v_ray.algorithms.quality_first import quality_first_advantages
from tinyr1v_ray.config.algorithm import AlgorithmName, AlgorithmSettings
from tinyr1v_ray.errors import AdvantageError, ConfigError
from tinyr1v_ray.types import Finish

REWARDS = [1.0, 0.0, 0.4, 0.9]
LENGTHS = [10, 20, 95, 96]
NAMES = tuple(ALGORITHMS)


def of(settings, max_tokens=96):
    return build_advantages(AlgorithmSettings.model_validate(settings), max_tokens)


def test_every_name_of_the_settings_is_a_row():
    assert {*NAMES, "function"} == set(get_args(AlgorithmName))


@pytest.mark.parametrize(
    ("name", "own", "want"),
    [
        ("lipo", {"boost": 0.7}, lipo_advantages(REWARDS, LENGTHS, LipoConfig(boost=0.7))),
        ("grpo", {}, grpo_advantages(REWARDS)),
        ("dr_grpo", {}, dr_grpo_advantages(REWARDS)),
        (
            "dapo",
            {"overlong_buffer": 8, "overlong_penalty": 0.5},
            dapo_advantages(REWARDS, LENGTHS, max_tokens=96, overlong_buffer=8, overlong_penalty=0.5),
        ),
        (
            "quality_first",
            {"controller": "fixed", "beta": 0.7, "min_quality": 0.3},
            quality_first_advantages(REWARDS, LENGTHS, 0.7, 0.3),
        ),
        ("ddca", {"beta": 0.4}, ddca_advantages([True, False, False, False], LENGTHS, 0.4)),
        (
            "length_penalty",
            {"alpha": 0.4},
            length_penalty_advantages(REWARDS, LENGTHS, [True, False, False, False], 0.4),
        ),
        ("dler", {"length_limit": 50}, dler_advantages([(REWARDS, LENGTHS)], 50)[0]),
        ("dler", {}, dler_advantages([(REWARDS, LENGTHS)], 95)[0]),  # one that fills max_tokens was cut
    ],
)
def test_the_settings_choose(name, own, want, group):
    advantages = of({"name": name, **({name: own} if own else {})})([group(REWARDS, LENGTHS)], {})
    np.testing.assert_array_equal(advantages.by_group_PG[0], want)


@pytest.mark.parametrize("name", NAMES)
def test_unusable_completions_take_no_part(name, group):
    """The same numbers as without them, at their places."""
    rewards_G, lengths_G = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [5, 3, 9, 7, 0, 8]
    finish_G = [Finish.STOP, Finish.STOP, Finish.ABORT, Finish.STOP, Finish.STOP, Finish.STOP]
    whole = group(rewards_G, lengths_G, finish_G=finish_G, failures_G=["", "timed out", "", "", "", ""])
    rest = group([1.0, 0.0, 1.0], [5, 7, 8])
    nobody = group([1.0], [0])
    settings = {"name": name, "quality_first": {"controller": "fixed"}}
    got = of(settings)([whole, nobody], {}).by_group_PG
    want = of(settings)([rest, nobody], {}).by_group_PG
    assert np.any(want[0]) and got[1].tolist() == [0.0]
    np.testing.assert_array_equal(got[0][[0, 3, 5]], want[0])
    assert not got[0][[1, 2, 4]].any()


@pytest.mark.parametrize("name", NAMES)
def test_groups_without_anything_to_compare_have_no_signal(name, group):
    groups = [group([1.0], [9]), group([0.0, 0.0, 0.0], [5, 5, 5]), group([1.0, 1.0], [7, 7])]
    advantages = of({"name": name, "quality_first": {"controller": "fixed"}})(groups, {})
    assert [advantages_G.any() for advantages_G in advantages.by_group_PG] == [False, False, False]


def test_what_length_does_is_the_difference_to_equally_long_answers(group):
    groups = [group([1, 1, 0, 0], [10, 30, 20, 20]), group([0.4, 0.9], [50, 20])]
    for name in ("grpo", "dr_grpo"):
        advantages = of({"name": name})(groups, {})
        for one, other in zip(advantages.by_group_PG, advantages.if_equally_long_PG, strict=True):
            np.testing.assert_array_equal(one, other)
    settings = {"name": "quality_first", "quality_first": {"controller": "fixed", "beta": 0.5}}
    advantages = of(settings)(groups, {})
    np.testing.assert_array_equal(advantages.if_equally_long_PG[0], grpo_advantages([1, 1, 0, 0]))
    s = 1 / (1 + np.exp(1))  # two lengths are one deviation away from their mean
    difference = advantages.by_group_PG[0] - advantages.if_equally_long_PG[0]
    np.testing.assert_allclose(difference, [0.25 * (0.5 - s), -0.25 * (0.5 - s), 0, 0], atol=1e-12)
    shortest = lipo_advantages([1, 1, 0, 0], [10] * 4)
    np.testing.assert_array_equal(of({})(groups, {}).if_equally_long_PG[0], shortest)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quality_first"])
def test_only_quality_first_keeps_a_state(name, group):
    assert of({"name": name})([group(REWARDS, LENGTHS)], {}).state == {}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A step under a function of the user's own, given the body of `f(group, facts)`."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def with_body(body):
        name = f"own_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n\n\ndef f(group, facts):\n    {body}\n")
        importlib.invalidate_caches()
        return of({"function": f"{name}:f"})

    yield with_body
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_of_ones_own_sees_its_group_and_the_whole_step(own, group):
    advantage = own("return group.rewards_G - sum(g.rewards_G.mean() for g in facts.groups) / facts.max_tokens")
    groups = [group([1, 0, 1], [5, 6, 7], failures_G=["", "", "timed out"]), group([1], [4]), group([1], [0])]
    got = advantage(groups, {}).by_group_PG  # the third group has no usable completion and is not shown
    assert [advantages_G.tolist() for advantages_G in got] == [[1 - 1.5 / 96, -1.5 / 96, 0.0], [1 - 1.5 / 96], [0.0]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return group.rewards_G[:1]", r"returned shape \[1\]; an advantage is one number per completion, shape \[2\]"),
        ("return group.rewards_G[None]", r"returned shape \[1, 2\]; an advantage is one number per completion"),
        ("return 1.0", r"returned shape \[\]; an advantage is one number"),
        ("return None", "returned a NoneType; an advantage is one number"),
        ("return ['a', 'b']", "returned a list; an advantage is one number"),
        ("return [[1.0], [1.0, 2.0]]", "returned a list; an advantage is one number"),
        ("return [1j, 2.0]", "returned a list; an advantage is one number"),
        ("return [1.0, float('nan')]", r"returned \[1.0, nan\]; an advantage is finite; correct it and resume"),
        ("return [float('inf'), 0]", r"returned \[inf, 0.0\]; an advantage is finite"),
        ("raise KeyError('one\\ntwo')", "raised KeyError: .*; it takes every group of scored completions"),
        ("raise SystemExit(3)", "raised SystemExit: 3; it takes every group"),
        ("group.rewards_G[0] = 2", "raised ValueError: assignment destination is read-only"),
    ],
)
def test_a_function_that_fails_stops_the_run_with_its_name_and_the_groups_id(body, says, own, group):
    with pytest.raises(
        AdvantageError, match=rf"^algorithm.function own_0:f on the group of prompt q7 {says}"
    ) as caught:
        own(body)([group([1, 0], [5, 6], prompt_id="q7")], {})
    assert "\n" not in str(caught.value) and str(caught.value).count("; ") == 2


def test_a_function_that_is_not_there_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match=r"^algorithm.function no_such_module:f cannot be imported"):
        of({"function": "no_such_module:f"})
