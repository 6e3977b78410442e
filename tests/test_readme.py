"""What the documents say exists: files, headings, tests, commands, settings. And the repository's top level."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tinyr1v_ray.cli.main import SUB_COMMANDS, build_parser
from tinyr1v_ray.config.base import Settings, known_keys, load_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "RESULTS.md", "CHANGELOG.md", "launch/README.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README, CONTRIBUTING, RESULTS = TEXTS["README.md"], TEXTS["CONTRIBUTING.md"], TEXTS["RESULTS.md"]
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SCHEMAS: dict[str, type[Settings]] = {
    "run": PipelineConfig,
    "train": TrainConfig,
    "merge": MergeConfig,
    "evaluate": EvaluateConfig,
}
KEYS = {key for schema in SCHEMAS.values() for key in known_keys(schema)}
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}
FILE_ENDINGS = (".py", ".json", ".jsonl", ".yaml", ".md", ".safetensors", ".toml", ".txt", ".sh")

MUST_BE_THERE = {"pyproject.toml", "README.md", "Makefile", "tinyr1v_ray", "configs", "launch", "docker", "tests"}
MAY_BE_THERE = MUST_BE_THERE | {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "RESULTS.md", "CITATION.cff"}
MAY_BE_THERE |= {"constraints-cpu.txt", "constraints-gpu.txt"}
NEVER_COMMITTED = {"runs", "dist", "build"}


def prose(text: str) -> str:
    return CODE_BLOCK.sub("", text)


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(text: str, program: str) -> list[list[str]]:
    """Words of every command of a program, in shell blocks and in inline code."""
    blocks = [block.replace("\\\n", " ") for language, block in CODE_BLOCK.findall(text) if language == "bash"]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += inline_code(text)
    return [shlex.split(line, comments=True) for line in lines if line.split()[:1] == [program]]


def headings(text: str) -> set[str]:
    """Anchors, as a forge makes them from headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def top_level() -> set[str]:
    """Names that git keeps; in a source archive, all that are there."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, timeout=30, check=False)
    names = {line.partition("/")[0] for line in done.stdout.splitlines()}
    names = names if done.returncode == 0 else {path.name for path in ROOT.iterdir()} - NEVER_COMMITTED
    return {name for name in names if not name.startswith(".") and not name.endswith(".egg-info")}


def test_the_top_level_is_the_fixed_one() -> None:
    assert top_level() - MAY_BE_THERE == set()
    assert MUST_BE_THERE - top_level() == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[name])):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in headings(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    """Paths in inline code that begin with a folder of the repository."""
    paths = [
        code for code in inline_code(TEXTS[name]) if re.match(r"(tinyr1v_ray|configs|tests|launch|docker|\.ci)/", code)
    ]
    assert [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []


def test_tests_that_are_named_are_in_the_file_beside_them() -> None:
    seen = 0
    for line in CONTRIBUTING.splitlines():
        file = ""
        for word in re.findall(r"\]\((tests/\S+\.py)\)|`(test_\w+)`", line):
            file = word[0] or file
            if word[1]:
                tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
                assert word[1] in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, word[1]
                seen += 1
    assert seen >= 10


@pytest.mark.parametrize("name", DOCUMENTS)
def test_targets_of_make_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(TEXTS[name], "make"):
        assert {word for word in words[1:] if "=" not in word} <= targets, words
    assert commands(README, "make")


def test_the_variables_given_to_make_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    given = {word.partition("=")[0] for words in commands(README, "make") for word in words if "=" in word}
    assert given and all(re.search(rf"^{name} \?=", makefile, re.MULTILINE) for name in given)


def test_commands_are_understood_and_their_settings_valid(capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    seen = set()
    for words in [command for text in TEXTS.values() for command in commands(text, "tinyr1v")]:
        seen.add(words[1])
        if not any(word.startswith("--") and word != "--help" for word in words):  # a mention, or a call for help
            with pytest.raises(SystemExit) as done:
                parser.parse_args([word for word in words[1:] if word != "--help"] + ["--help"])
            assert done.value.code == 0, words
            continue
        options = parser.parse_args(words[1:])
        if words[1] in SCHEMAS and options.config is not None:
            load_settings(SCHEMAS[words[1]], ROOT / options.config, options.overrides)
    names = {module.__name__.rpartition(".")[2] for module in SUB_COMMANDS}
    assert names <= seen, "a sub-command that the README does not name"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_that_are_named_exist(name: str) -> None:
    dotted = [
        code.partition("=")[0] for code in inline_code(TEXTS[name]) if re.match(r"[a-z_]+(\.[a-z_]+)+(=|$)", code)
    ]
    named = [key for key in dotted if key.partition(".")[0] in SECTIONS and not key.endswith(FILE_ENDINGS)]
    assert [key for key in named if key not in KEYS] == []
    assert named or name != "README.md"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 170


def test_the_table_of_rooms_is_complete() -> None:
    rows = re.findall(r"^\| \[(\w+(?:\.py|/))\]\(tinyr1v_ray/\w+(?:\.py)?\) \|", CONTRIBUTING, re.MULTILINE)
    package = ROOT / "tinyr1v_ray"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "cuda_wheels_on_cpu.py")}
    assert len(rows) == len(set(rows)) and set(rows) == rooms


def test_files_of_a_run_are_the_packages() -> None:
    section = CONTRIBUTING.partition("## The run's folder")[2].partition("\n## ")[0]
    files = re.findall(r"^\| `([\w.]+)/?` \|", section, re.MULTILINE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tinyr1v_ray").rglob("*.py"))
    assert len(files) >= 8
    assert [file for file in files if f'"{file}"' not in sources and f'/ "{file}' not in sources] == []


def test_the_message_of_a_misspelt_key_is_the_real_one() -> None:
    [message] = re.findall(r"^tinyr1v: (config: unknown key .+)$", README, re.MULTILINE)
    with pytest.raises(ValueError) as caught:
        load_settings(TrainConfig, ROOT / "configs" / "miniature_ocr_cpu.yaml", ["algorithm.lipo.boots=0.5"])
    assert str(caught.value) == message


def test_ci_runs_the_readmes_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make .+$", script, re.MULTILINE) == ["make check", "make test"]


def test_documents_read_well_in_a_terminal() -> None:
    """Tables apart, which cannot be wrapped, and what a program printed."""
    lines = [
        line
        for text in TEXTS.values()
        for line in re.sub(r"^```text\n.*?^```$", "", text, flags=re.S | re.M).splitlines()
    ]
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert re.search(r'^license = "Apache-2.0"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_miniatures_metrics_are_those_of_its_record() -> None:
    record = json.loads((ROOT / "tinyr1v_ray/miniature/shipped/miniature.json").read_text(encoding="utf-8"))
    for domain, measured in record["evaluation"].items():
        free, *forced = (measured[name] for name in ("sampled", "zero", "needed", "full"))
        shares = [f"{100 * way['accuracy']:.1f} %" for way in (free, *forced)]
        costs = [f"{share} at {way['mean_tokens']:.1f}" for share, way in zip(shares[1:], forced, strict=True)]
        row = [f"`{domain}`", shares[0], f"{free['mean_tokens']:.1f}", *costs]
        assert f"| {' | '.join(row)} |" in RESULTS
