# The commands of the README. Each makes the environment first, if it is not there.
# EXTRAS: cpu (default) or gpu, the profile to install.
# PIP_ARGS: extra arguments for pip, such as --extra-index-url with the index of PyTorch's CPU wheels, for machines whose
# pip does not find a CPU build of torch by itself.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
EXTRAS ?= cpu
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false

.PHONY: install demo check test reference bench bench-peers bench-lipo-grpo bench-merge

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS),dev]' --constraint constraints.txt $(PIP_ARGS)
	touch $@

demo: install
	$(BIN)/tinyr1v run --config configs/recipe_miniature_cpu.yaml

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_architecture.py tests/config/test_settings.py tests/config/test_reference.py tests/algorithms/test_lipo.py tests/algorithms/test_baselines.py tests/telemetry tests/evaluation/test_statistics.py tests/evaluation/test_comparison.py tests/loop tests/data/test_batching.py tests/rewards/test_extract.py tests/rewards/test_structured.py tests/rewards/test_score.py

test: install
	$(BIN)/pytest -q --durations=15

reference: install
	$(BIN)/python -m tinyr1v_ray.config.reference > configs/REFERENCE.md

bench: install
	$(BIN)/python tests/benchmarks/bench_train.py

bench-peers: install
	$(BIN)/python tests/benchmarks/bench_peers.py

bench-lipo-grpo: install
	$(BIN)/python tests/benchmarks/bench_lipo_grpo.py

bench-merge: install
	$(BIN)/python tests/benchmarks/bench_merge_maths.py
	$(BIN)/python tests/benchmarks/bench_merge_cheap.py
	$(BIN)/python tests/benchmarks/bench_merge_plan.py
