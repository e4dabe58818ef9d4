# Everything a contributor does more than once. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9696
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
UV := uv==0.13.8

# A stamp says which lock the environment was filled from. One that is older than its lock makes the
# environment anew; an environment without a stamp (a broken download, one made by hand) is filled.
RUN := $(VENV)/.filled-run
PACKAGE := $(VENV)/.filled-package
TEST := $(VENV)/.filled-test

.PHONY: help demo serve install test coverage soak benchmark bench format lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(PACKAGE) ## train, build, serve and ask the iris model of examples/iris
	@$(BIN)/python examples/iris/demo.py --port $(PORT)

serve: $(PACKAGE) ## the same, and keep the service running until Ctrl-C
	@$(BIN)/python examples/iris/demo.py --port $(PORT) --stay

install: $(TEST) $(PACKAGE) ## make .venv with the locked versions, fairlead itself, and the tools of `make test`

test: $(TEST) $(PACKAGE) ## everything that has to pass: style, types, layers, tests
	@scripts/system-packages
	@scripts/node-packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadgroup

coverage: $(TEST) $(PACKAGE) ## the tests once more, half as long again, and which lines and branches they reach: at least 90 %
	$(BIN)/pytest -n 2 --dist loadgroup --cov --cov-report=term

benchmark: $(TEST) $(PACKAGE) ## measure one row, start, memory, build, batch, stream, Lambda, dashboard, swap and many models against targets, into benchmarks/RESULTS.md
	@for one in predictor start build many_models batch stream lambda_handler dashboard; do $(BIN)/python benchmarks/$$one.py; done
	@if command -v wrk > /dev/null; then $(BIN)/python benchmarks/swap.py; \
	else echo "benchmarks/swap.py is left out: no wrk on PATH, sudo apt-get install wrk"; fi

bench: $(PACKAGE) ## measure the web service against its peers, into docs/benchmarks.md (needs wrk, a quiet machine, half an hour)
	@$(BIN)/python benchmarks/service/run.py $(BENCH)

soak: $(TEST) $(PACKAGE) ## kill, overload and drain real servers for minutes
	@$(BIN)/python benchmarks/soak.py $(SOAK)

format: $(TEST) ## let ruff write the code its way
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## choose versions again after pyproject.toml changed (UPGRADE=1: the newest of everything)
	@scripts/lock $(PYTHON) $(UV) $(if $(UPGRADE),--upgrade)

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) src/fairlead/predict/*.so tests/kinesalite/node_modules demo build dist examples/*/build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f .coverage .coverage.*
	find src tests examples scripts -name __pycache__ -prune -exec rm -rf {} +

# A lock is its own constraint too: else pip takes the newest of what a package asks for with an extra, for which there
# is no digest. Python compiles what it imports; to compile all of it now takes as long as the rest of the installation.
$(RUN): requirements/run.txt
	@scripts/environment $(PYTHON) $(VENV) $@
	@echo "installing $$(grep -c '==' $<) locked packages into $(VENV), once …"
	@$(PIP) install --no-compile --require-hashes --only-binary :all: -r $< -c $<
	@touch $@

$(PACKAGE): pyproject.toml hatch_build.py src/fairlead/predict/_trees.c $(RUN)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import fairlead.predict._trees' 2>/dev/null || echo "no C extension (no C compiler, or no Python.h): trees run in onnxruntime"
	@touch $@

$(TEST): requirements/test.txt $(RUN) | $(PACKAGE)
	@echo "installing the tools that tests need into $(VENV), once …"
	@$(PIP) install --no-compile --require-hashes --only-binary :all: -r $< -c $<
	@touch $@
