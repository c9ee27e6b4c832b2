# kyra-etl. `make` alone tells what can be made.
#
# Everything lives in .venv, made here from the lock files; nothing of the system's Python is used but the
# interpreter. Stamps inside .venv remember what is installed, so a second run starts at once.

.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN  := $(VENV)/bin
ARGS ?=

export PYTHONNOUSERSITE := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

PIP := $(BIN)/python -m pip install --quiet --require-virtualenv

##@ Use

demo: $(VENV)/.project ## Tour on a small organization's log files: sync, alerts, status; offline, about a minute
	@$(BIN)/kyra demo $(ARGS)

##@ Develop

test: $(VENV)/.dev $(VENV)/.project ## Run the tests; `make test ARGS="-k lake -x"` passes options to pytest
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

soak: $(VENV)/.dev $(VENV)/.project ## Simulate deliveries, crashes and kills for as long as asked: docs/reliability.md
	@$(BIN)/python -m tests.simulation $(ARGS)

check: static test ## Everything that must hold before a commit: formatting, lint, types, layers, tests

static: $(VENV)/.dev $(VENV)/.project ## The part of `check` that runs nothing: formatting, lint, types, layers
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pip check

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev $(VENV)/.project ## Renew the parts of the documents that are generated from the code
	@$(BIN)/python docs/generate.py

bench: $(VENV)/.dev $(VENV)/.project ## Time `kyra load` against DuckDB, fetching against boto3, detections against loading, queries before and after compaction, searching against scanning, a year against a month, two workers against one
	@$(BIN)/python benchmarks/load.py $(or $(ARGS),--events 100000 --document 100)
	@$(BIN)/python benchmarks/fetch.py
	@$(BIN)/python benchmarks/detect.py
	@$(BIN)/python benchmarks/lake.py
	@$(BIN)/python benchmarks/search.py
	@$(BIN)/python benchmarks/flat.py
	@$(BIN)/python benchmarks/spread.py

evaluate: $(VENV)/.project ## Measure the detections: recall, noise, agreement; docs/evaluation.md
	@$(BIN)/python -m evaluation $(ARGS)

mutate: $(VENV)/.project ## Change each detection's SQL in many ways, and see whether its cases notice
	@$(BIN)/python -m evaluation.mutation $(ARGS)

image: $(VENV)/.made ## Replay the image's steps without an engine, and its health check
	@$(BIN)/python deploy/docker/replay.py

lock: $(VENV)/.made ## Resolve pyproject.toml's dependencies anew into the lock files, with hashes
	$(PIP) uv
	$(COMPILE) --group build --extra postgres pyproject.toml -o requirements.lock
	$(COMPILE) --group build --extra postgres --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

clean: ## Remove .venv, caches and built packages; never your lake or your state
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Help

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo test soak check static format docs bench evaluate mutate image lock clean help

# ── set-up, made on demand ──

# The first interpreter that is new enough and can make an environment; PYTHON=… chooses another.
$(VENV)/.made:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)" >&2; \
	    $$python -m venv --clear $(VENV) && touch $@ && exit 0; exit 1; \
	  fi; \
	done; \
	echo "No Python 3.11 or later with venv was found. Install one (Debian, Ubuntu: apt install python3.11-venv)," >&2; \
	echo "or name it: make PYTHON=/path/to/python3.11" >&2; exit 1

# The lock files are complete: nothing is left to resolve (and pip would trip over extras that are pinned elsewhere).
$(VENV)/.runtime: requirements.lock | $(VENV)/.made
	@echo "Installing what requirements.lock pins (once; some 250 MB to fetch)" >&2
	@$(PIP) --no-deps --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing what requirements-dev.lock adds (once)" >&2
	@$(PIP) --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.project: pyproject.toml $(VENV)/.runtime
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
