"""Settings among flags, in every order that a shell's history leads to."""

from __future__ import annotations

from itertools import permutations

import pytest

from tinyr1v_ray.cli.main import SUB_COMMANDS, build_parser

SETTINGS = ["run.name=a", "data.train=[x.jsonl,y.jsonl]", "run.name=b"]
FLAGS = {
    "train": (["--config", "c.yaml"], ["--resume"]),
    "run": (["--config", "c.yaml"],),
    "merge": (["--base", "b"], ["--expert", "e"], ["--plan"], ["--no-resume"]),
    "evaluate": (["--model", "m"], ["--samples", "2"]),
    "doctor": (["--config", "c.yaml"],),
    "plan": (["--config", "c.yaml"], ["--json"], ["--cluster", "1xcpu16-64GB"]),
}
"""Every command that takes settings, with some of its flags."""


def test_every_command_with_settings_is_looked_at() -> None:
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    takes = {name for name, of in commands.choices.items() if any(a.dest == "overrides" for a in of._actions)}
    assert takes == FLAGS.keys()


@pytest.mark.parametrize("command", FLAGS)
def test_settings_stand_anywhere_among_the_flags(command: str) -> None:
    """All places of three settings, in their order, between the flags in every order."""
    parser, flags = build_parser(), FLAGS[command]
    expected = vars(parser.parse_args([command, *SETTINGS, *(word for flag in flags for word in flag)]))
    assert expected["overrides"] == SETTINGS
    for order in permutations(flags):
        for places in [(a, b, c) for a in range(len(flags) + 1) for b in range(a, 5) for c in range(b, 5)]:
            words = [command]
            for place in range(5):
                words += [
                    word for setting, at in zip(SETTINGS, places, strict=True) if at == place for word in [setting]
                ]
                words += order[place] if place < len(order) else []
            assert vars(parser.parse_args(words)) == expected, words


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config", "c.yaml", "a=1", "--resume", "--no-such-flag", "b=2"],
        ["train", "--config", "c.yaml", "a=1", "--resume", "-b=2"],
        ["report", "folder", "a=1"],
    ],
)
def test_what_is_no_setting_is_still_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)
    assert caught.value.code == 2 and "unrecognized arguments: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [module.__name__.rsplit(".", 1)[1] for module in SUB_COMMANDS])
def test_every_sub_command_says_what_runs_it(command: str) -> None:
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    assert callable(commands.choices[command].get_default("run"))
