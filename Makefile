# One word a job. Each sets up what it needs: Python 3.11+ with its venv module, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
KERNELS := src/modelyard/inference/_kernels.abi3.so

.PHONY: help setup demo test test-all lint types docs bench clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY)  ## make the environment from the lock

$(READY): requirements-dev.lock pyproject.toml hatch_build.py $(wildcard src/kernels/*)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Modelyard needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
# pip keeps back why they were not compiled, so they are tried once more, aloud.
	@test -e $(KERNELS) || $(BIN)/python hatch_build.py
	@touch $@

demo: $(READY)  ## the main job on real data: two arrivals, a served model, a found drift
	$(BIN)/python examples/demo/demo.py

lint: $(READY)  ## format, lint, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

test: $(READY) lint types  ## everything that needs no network and no installed server
	$(BIN)/pytest --thorough

test-all: $(READY) lint types  ## and the slow stories, the kill tests, Postgres and the browser
	@command -v chromium >/dev/null || (apt-get update -q && apt-get install -y -q chromium)
	@command -v nginx >/dev/null || ls /usr/sbin/nginx >/dev/null 2>&1 || (apt-get update -q && apt-get install -y -q nginx)
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || (apt-get update -q && apt-get install -y -q postgresql)
	$(BIN)/pytest --thorough --slow --browser --cluster

docs: $(READY)  ## regenerate the reference from the code, and run the examples in the docs
	$(BIN)/python tools/reference.py
	$(BIN)/pytest --thorough tests/docs

bench: $(READY)  ## run one benchmark (NAME=steps, with ARGS) or all
	@for name in $(or $(NAME),$(basename $(notdir $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))))); do \
		$(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

clean:  ## remove what the jobs made
	rm -rf demo .mypy_cache .ruff_cache .import_linter_cache build dist
