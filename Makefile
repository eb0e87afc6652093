# Needs make and Python 3.11 or newer; everything else goes into .venv, from wheels, by hash.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SERVE := $(VENV)/.serve
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help setup serve test check fix simulate test-long test-kill test-kill-postgres bench lock clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(DEV)  ## make .venv with all that the other commands need

serve: $(SERVE)  ## set up, then run a server on localhost:2319; ARGS="--data DIR" for more
	@$(BIN)/querator serve $(ARGS)

test: $(DEV)  ## set up, then run every test but the long ones; ARGS="-k name" for some
	@$(BIN)/python -m pytest $(ARGS)

check: $(DEV)  ## format, lint, types, layers: what must hold before a change lands
	@failed=0; for step in "ruff format --check ." "ruff check ." mypy "lint-imports --no-logo"; do \
		echo "== $$step"; $(BIN)/$$step || failed=1; done; exit $$failed

fix: $(DEV)  ## format, and mend what can be mended by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-long: $(DEV)  ## the tests that take minutes, with fresh random examples
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --long --timeout=3600 $(ARGS)

simulate: $(DEV)  ## two minutes of simulated faults on all cores; ARGS="--seed 7" for a run with its trace
	@$(BIN)/python -m simulations $(or $(ARGS),--minutes 2 --profile dense)

test-kill: $(DEV)  ## a million lines through a server that is killed again and again
	QUERATOR_KILL_LINES=1000000 QUERATOR_KILLS=25 $(BIN)/python -m pytest tests/acceptance/test_kill.py --timeout=900 -s $(ARGS)

test-kill-postgres: $(DEV)  ## faults of every kind for minutes, and a ledger of them; ARGS="--minutes 60 --seed 7"
	$(BIN)/python -m tests.blackbox $(ARGS)

bench: $(DEV)  ## measure; ARGS="lifecycle --help" for what and how
	@$(BIN)/python -m benchmarks $(or $(ARGS),lifecycle)

lock: $(DEV)  ## pin the newest allowed versions of everything, by hash
	$(PIP) install uv
	$(BIN)/uv pip compile $(LOCK) --group build -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --group build --group dev --extra test -c requirements.lock \
		-o requirements-dev.lock pyproject.toml

clean:  ## remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache .coverage

LOCK := --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Querator needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }

$(SERVE): requirements.lock pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) ..."
	@$(PIP) install --only-binary :all: --require-hashes -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(DEV): requirements-dev.lock $(SERVE)
	@echo "setting up $(VENV) for development ..."
	@$(PIP) install --only-binary :all: --require-hashes -r requirements-dev.lock
	@touch $@
