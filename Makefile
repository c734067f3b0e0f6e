# make demo   pretrain a small model on real text, full, RaPTr and stacking, and write a report
# make check  what to run while working, under 2 minutes: style, types, import contracts, the quick tests
# make test   run all tests against the installed package
# make dev    install raptr as a link to its sources, for development
# make lint   style, types
# make bench  measure the speed on the CPU, under 15 minutes, and write docs/performance.md
# make lowest run the tests of models, Trainer and resume with the lowest transformers that pyproject.toml allows
#
# All set up .venv by themselves; Python 3.11 or newer and make are all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
SOURCES := $(shell find src docs/methods -type f -not -name '*.pyc' -not -path '*/__pycache__/*')
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What the demo runs, so that a smaller one can be asked for: make demo DEMO="--seeds 2 training.max_steps=20".
DEMO ?=

# What is measured, so that less can be asked for: make bench BENCH="--only skipping".
BENCH ?=

.PHONY: demo dev check test lint bench lowest clean

demo: $(VENV)/.installed
	$(BIN)/raptr compare demo --methods full,raptr,gradual_stacking --seeds 3 --workers 0 --output runs/demo $(DEMO)

# Quick tests neither train nor start processes: see tests/conftest.py.
check: lint
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# Everything but `make dev` installs the package itself, and so replaces the link.
dev: $(VENV)/.dependencies
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/cpu.py $(BENCH)
	$(BIN)/python benchmarks/performance.py

LOWEST := $(shell sed -n 's/.*"transformers>=\(.*\)".*/\1/p' pyproject.toml)
lowest: $(VENV)/.installed
	@$(PIP) install --quiet --upgrade --target build/lowest transformers==$(LOWEST)
	PYTHONPATH=build/lowest $(BIN)/python -m pytest -n auto --dist worksteal tests/model tests/train/hf tests/train/resume

# torch comes first and by its exact version: an open range can choose a build of several gigabytes.
$(VENV)/.dependencies: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("raptr needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Give another: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), 1/3: $(TORCH) (this can take a minute or two)"
	@$(PIP) install --quiet $(TORCH)
	@echo "setting up $(VENV), 2/3: transformers and what else raptr needs"
	@$(PIP) install --quiet --constraint constraints.txt hatchling
	@$(PIP) install --quiet --constraint constraints.txt --no-build-isolation '.[dev]'
	@touch $@

# The package itself is installed again whenever its sources or the cards in it change, and not as a link to them.
$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	@echo "setting up $(VENV), 3/3: raptr"
	@$(PIP) install --quiet --no-deps --no-build-isolation --force-reinstall .
	@touch $@

clean:
	rm -rf $(VENV) build dist
