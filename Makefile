# Each target does everything from a fresh clone with only python3 and make there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count() or 1)")
# neural-tangents needs old versions of Python, jax and numpy, hence an environment of its own.
PEERS := $(or $(MERCER_PEERS),.venv-peers)
OLD := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PEERS_PYTHON ?= $(shell for p in $(PYTHON) python3.12 python3.11; do \
	$$p -c "$(OLD)" 2>/dev/null && echo $$p && break; done)
WORKERS ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))

# Nothing here needs a network after the installation.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# Threads of torch that wait by spinning make a busy machine many times slower; here they sleep.
# The benchmarks keep the default, as users have it.
demo test-slow evidence docs peers: export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format bench docs evidence peers clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The demo needs little; development needs it all. The stamps keep the first minute short, and
# each is made anew when a version changes.
$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) -e '.[plot]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	$(PIP) -e '.[peers]'
	@touch $@

$(PEERS)/.neural-tangents: benchmarks/peers/neural-tangents.txt
	@test -n "$(PEERS_PYTHON)" || \
	{ echo "make peers: neural-tangents needs Python 3.11 or 3.12: set PEERS_PYTHON" >&2; exit 1; }
	$(PEERS_PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	--only-binary :all: -r $< && $(PEERS)/bin/python -W ignore -c "import neural_tangents" || \
	{ echo "make peers: the environment of $< could not be made" >&2; exit 1; }
	@touch $@

demo: $(VENV)/.demo  ## train a small network, bundle it, write a page (out/demo/report.html)
	$(BIN)/mercer bundle digits --out out/demo

# Workers share the cores, so each computes on one thread.
test: $(VENV)/.dev  ## the fast lane, in parallel, with the examples in the docstrings
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	$(BIN)/python -m pytest -m 'not slow and not peer' -n $(WORKERS)

test-slow: $(VENV)/.dev  ## the slow lane
	$(BIN)/python -m pytest -m 'slow and not peer'

lint: $(VENV)/.dev  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## the benchmarks, Mercer and its peers in one run (out/benchmarks/)
	$(BIN)/python benchmarks/run.py

evidence: $(VENV)/.dev  ## run every check of a fact sheet, write docs/evidence.{json,md}
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	$(BIN)/python -m pytest -m paper -n $(WORKERS) --evidence=out/evidence.json
	$(BIN)/python docs/render_evidence.py out/evidence.json

docs: $(VENV)/.docs  ## the documentation (docs/_build/html/index.html)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

peers: $(VENV)/.peers $(PEERS)/.neural-tangents  ## the tests that compare with peer libraries
	MERCER_PEERS=$(abspath $(PEERS)) $(BIN)/python -m pytest -m peer

clean:  ## remove what was built
	rm -rf $(VENV) .venv-peers out docs/_build docs/gallery docs/reference
