"""The closing text: every metric with its interval, lined up, plain."""

from pathlib import Path

from tinyr1v_ray.evaluation.statistics import bootstrap_mean, paired_bootstrap, wilson_interval
from tinyr1v_ray.telemetry.summary import Change, HeldOut, format_summary

PATHS = {"checkpoint": Path("runs/a/checkpoints/step_12"), "export": Path("runs/a/export"), "run": Path("runs/a")}


def test_two_domains_line_up():
    before = [HeldOut("ocr", 1000, (0.5, 0.45, 0.55), (40.0, 39.0, 41.0))]
    after = [
        HeldOut("ocr", 1000, (1.0, 0.996, 1.0), (8.0, 7.9, 8.1)),
        HeldOut("structure", 50, (0.1, 0.05, 0.2), (120.5, 1, 2)),
    ]
    text = format_summary(before, after, [Change("ocr", (0.5, 0.45, 0.55), (-32.0, -33.0, -31.0))], PATHS)
    lines = text.splitlines()
    assert len(lines) == 9 and len({line.index("[") for line in lines[2:6]}) <= 3
    assert lines[3].split() == ["after", "100.0", "%", "[99.6,", "100.0]", "8.0", "[7.9,", "8.1]"]
    assert lines[4].endswith("-32.0 [-33.0, -31.0] (-80 %)")
    assert lines[5].split()[:3] == ["structure", "50", "after"]
    assert lines[6:] == [
        "  checkpoint  runs/a/checkpoints/step_12",
        "  export      runs/a/export",
        "  run         runs/a",
    ]


def test_statistics_fit_in_as_they_are():
    correct_N, tokens_N = [True, False, True, True], [10.0, 20.0, 15.0, 15.0]
    metrics = HeldOut("ocr", 4, wilson_interval(3, 4), bootstrap_mean(tokens_N))
    change = Change("ocr", paired_bootstrap(correct_N, [True] * 4), paired_bootstrap(tokens_N, [5.0] * 4))
    text = format_summary([metrics], [metrics], [change], {})
    assert "75.0 % [30.1, 95.4]" in text and "+25.0 %" in text and "-10.0" in text and "(-67 %)" in text


def test_a_run_without_evaluation_still_says_where_things_are():
    assert format_summary([], [], [], {"run": Path("runs/a")}) == "  run  runs/a"
    orphan = Change("math", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert "math" not in format_summary([], [], [orphan], {"run": Path("runs/a")})


def test_empty_answers_before_have_no_percentage():
    zero = HeldOut("ocr", 4, (0.0, 0.0, 0.6), (0.0, 0.0, 0.0))
    assert "(" not in format_summary([zero], [zero], [Change("ocr", (0.0,) * 3, (0.0,) * 3)], {})
