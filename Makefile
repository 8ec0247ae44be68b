# The two commands a newcomer needs: `make demo` and `make test`. `make help` lists all.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv test lint types layers unit browser database demo bench docs format clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECIPE ?= recipes/extract.toml
ROWS ?=
QUICK ?=
WORKERS ?= 3
# Extra options for installing torch, e.g. TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
# for the small CPU build on Linux where the package index offers the CUDA build.
TORCH_OPTIONS ?=
# Modules are compiled when they are first imported, which most of what is installed never is: that saves a third of the time.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet --no-input install --no-compile --constraint constraints.txt
TORCH := $(shell grep -m1 '^torch==' constraints.txt)
# Compiled modules are kept, whatever the environment says: else every process would compile its libraries again.
unexport PYTHONDONTWRITEBYTECODE
# One thread per process: on few cores, more threads than cores only wait for each other.
export TOKENIZERS_PARALLELISM := false

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

venv: $(STAMP)  ## build .venv with the pinned versions of constraints.txt (does nothing when it is up to date)

$(STAMP): pyproject.toml constraints.txt tools/find-python
	@python="$$(bash tools/find-python)"; \
	if [ ! -x $(BIN)/python ]; then echo "[1/4] creating $(VENV) with $$python"; "$$python" -m venv $(VENV); \
	else echo "[1/4] updating $(VENV)"; fi
	@echo "[2/4] installing $(TORCH) (the largest download; about a minute)"
	@$(INSTALL) --upgrade pip
	@$(INSTALL) $(TORCH_OPTIONS) "$(TORCH)"
	@echo "[3/4] installing foretaste, its dependencies and the development tools (about a minute)"
	@$(INSTALL) --editable . --group dev
	@echo "[4/4] $(VENV) is ready: source $(BIN)/activate, or call $(BIN)/foretaste"
	@touch $(STAMP)

test: venv lint types layers browser database unit  ## lint, types, layers and all default tests

lint: venv
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: venv
	@echo "== basedpyright"
	@$(BIN)/basedpyright --level error

layers: venv
	@echo "== import-linter"
	@$(BIN)/lint-imports --no-cache

browser: venv  ## install Chromium for the tests of the report, unless it is there
	@bash tools/install-chromium

database:  ## install a PostgreSQL server for the tests of the deployment's store, unless one is there
	@bash tools/install-postgresql

unit: venv
	@echo "== pytest"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

demo: venv  ## train the default recipe and write its report (RECIPE=recipes/quick.toml: another one)
	@$(BIN)/foretaste train $(RECIPE)

bench: venv  ## speed beside peers in their own environments (ROWS="short help": some rows; QUICK=1: less work)
	@$(BIN)/python -m benchmarks $(ROWS) $(if $(QUICK),--quick)

docs: venv  ## write docs/cli.md and the file tree of docs/architecture.md anew from the code
	@$(BIN)/python tools/write_docs.py

format: venv  ## format the code and repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove .venv, caches and build results (runs/ is kept)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
