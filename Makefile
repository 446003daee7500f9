# Each target does everything from a fresh clone with only python3 and make there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count() or 1))")

.PHONY: help demo test test-slow lint format bench docs evidence peers clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The demo needs little; development needs it all. Two stamps keep the first minute short.
$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[plot]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

demo: $(VENV)/.demo  ## train a small network, bundle it, write a page (out/demo/report.html)
	$(BIN)/mercer bundle digits --out out/demo

test: $(VENV)/.dev  ## the fast lane
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS)

test-slow: $(VENV)/.dev  ## the slow lane
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## the benchmarks, Mercer and its peers in one run
	$(BIN)/python benchmarks/run.py

clean:  ## remove what was built
	rm -rf $(VENV) out docs/_build
