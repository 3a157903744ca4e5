# Five verbs to know the project: demo, test, lint, format, bench. Each sets up by itself; needs Python >= 3.10 and make.

VENV := .venv
BIN := $(VENV)/bin
# How tests share the cores: `make test JOBS=0` runs them in one process.
JOBS ?= auto

.PHONY: help setup demo test test-slow bench lint format lock clean

help:
	@echo "make demo       the main job on real data, end to end"
	@echo "make test       architecture, lint, types and tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make bench      the comparison on open data sets"
	@echo "make lint       architecture, lint and types alone"
	@echo "make format     repair what a tool can repair"
	@echo "make lock       write the lock files from what is installed"
	@echo "make clean      remove environment, caches and builds"

# A stamp is older than what it was made from: set up again.
$(VENV)/.stamp-run: pyproject.toml $(wildcard requirements-run*.lock) scripts/setup.sh
	@scripts/setup.sh run
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml $(wildcard requirements*.lock) scripts/setup.sh
	@scripts/setup.sh dev
	@touch $@ $(VENV)/.stamp-run  # the larger set holds the smaller

setup: $(VENV)/.stamp-dev

demo: $(VENV)/.stamp-run
	@$(BIN)/tidemill demo

test: setup lint
	@scripts/test.sh -n $(JOBS) -m "not slow and not bench"

test-slow: setup
	@scripts/test.sh -m slow

bench: setup
	@$(BIN)/python bench/tabular/run.py

lint: setup
	@scripts/lint.sh

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:
	@$(BIN)/python scripts/lock.py

clean:
	@scripts/services.sh stop
	rm -rf $(VENV) .services build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
