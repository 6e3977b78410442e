# The commands of the README. Each makes the environment first, if it is not there.
# EXTRAS: cpu or gpu, the profile to install; left out, the one that is installed, else cpu.
# PYTHON: the interpreter, 3.11 or 3.12.
# TORCH_CPU_INDEX: where the CPU profile gets torch (torchvision and torchaudio too, where they are there) when pip does
# not find a CPU build where it is configured to look: an index's address, or a folder of wheels.
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= $(or $(patsubst $(VENV)/.installed-%,%,$(wildcard $(VENV)/.installed-*)),cpu)
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do $$name -c '' 2>/dev/null && echo $$name && break; done)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
LOCK := constraints-$(EXTRAS).txt
INSTALLED := $(VENV)/.installed-$(EXTRAS)
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install lock demo check test reference bench bench-peers bench-lipo-grpo bench-merge

$(if $(filter cpu gpu,$(subst $() ,+,$(EXTRAS))),,$(error EXTRAS=$(EXTRAS) is no profile; it is cpu or gpu))

install: $(INSTALLED)

define CHECK_MACHINE
import shutil, sys
profile, new = sys.argv[1:]
seen, free, needed = sys.version_info[:2], shutil.disk_usage(".").free / 1e9, {"cpu": 6, "gpu": 12}[profile]
if seen not in ((3, 11), (3, 12)):
    sys.exit("Python %d.%d is not supported; tinyr1v-ray runs on 3.11 and 3.12; name one: make install PYTHON=python3.11" % seen)
if new and free < needed:
    sys.exit("%.1f GB are free here; the %s profile takes up to %d while it is installed; free some" % (free, profile, needed))
endef
export CHECK_MACHINE

# Pages of an index are lists of links, so that pip and uv look up nothing but the one package there.
links = --find-links $(TORCH_CPU_INDEX)$(if $(filter http%,$(TORCH_CPU_INDEX)),/$(1)/)
cpu_build = $(shell sed -n 's/^$(1)==\([^+ ]*\).*/$(1)==\1+cpu/p' $(LOCK))
get = said=$$($(BIN)/pip install --quiet --no-deps $(2) $(call cpu_build,$(1)) 2>&1)
get_there = $(call get,$(1),--no-index $(call links,$(1)))
why = ($$(echo "$$said" | grep -o "ERROR.*" | tail -1))

define INSTALL_CPU_TORCH
if $(call get,torch); then $(call get,torchvision); $(call get,torchaudio); \
elif $(call get_there,torch); then $(call get_there,torchvision); $(call get_there,torchaudio); \
else echo "$(call cpu_build,torch) is not installed, neither from where pip looks nor from $(TORCH_CPU_INDEX) $(why);" \
    "name an index, or give a folder of wheels: make install TORCH_CPU_INDEX=file:///FOLDER PIP_FIND_LINKS=/FOLDER" >&2; \
    exit 1; fi; true
endef

define INSTALL_PROFILE
said=$$($(BIN)/pip install --quiet --editable '.[$(EXTRAS),dev]' --constraint $(LOCK) 2>&1) || { \
    echo "the $(EXTRAS) profile is not installed $(why); mend that and run it again; pip's whole answer is in" \
    "$(VENV)/pip.log; without a network give a folder of wheels: make install PIP_NO_INDEX=1 PIP_FIND_LINKS=/FOLDER" >&2; \
    { echo "$$said" >$(VENV)/pip.log; } 2>/dev/null; exit 1; }
endef

# An environment that is not whole, or of the other profile, is begun anew; a whole one is brought up to date.
$(INSTALLED): pyproject.toml $(LOCK)
	@$(or $(PYTHON),$(error no Python here; install Python 3.11 or 3.12)) -c "$$CHECK_MACHINE" $(EXTRAS) '$(if $(wildcard $@),,new)'
	@echo "installing the $(EXTRAS) profile into $(VENV), a few minutes" >&2
	@$(PYTHON) -m venv $(if $(wildcard $@),,--clear) $(VENV)
	@rm -f $@
	@$(if $(filter cpu,$(EXTRAS)),$(INSTALL_CPU_TORCH))
	@$(INSTALL_PROFILE)
	@$(if $(filter cpu,$(EXTRAS)),$(BIN)/python -m tinyr1v_ray.cuda_wheels_on_cpu)
	@touch $@

# Both locks hold for Python 3.11 and 3.12. What still fits stays as it is; remove a lock to get the newest of everything.
lock = uv pip compile pyproject.toml --universal --python-version 3.11 --extra $(1) --extra dev --no-annotate --quiet \
    --output-file constraints-$(1).txt
lock:
	$(call lock,cpu) $(call links,torch)
	$(call lock,gpu)
lock: export UV_CUSTOM_COMPILE_COMMAND := make lock
lock: export PATH := $(PATH):$(CURDIR)/$(BIN)

demo: install
	$(BIN)/tinyr1v run --config configs/recipe_miniature_cpu.yaml

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not slow and not gpu"

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
