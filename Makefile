# make demo: the main job, end to end.  make test: checks and tests.  Each sets up .venv when it is missing or stale.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRITON := nvidia-pytriton==0.7.0
HOST ?= http://127.0.0.1:8000
USERS ?= 20
SECONDS ?= 30

.PHONY: help setup demo test check up load bench bench-gateway clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -t -s '	'

setup: $(STAMP) ## Make or renew .venv

$(STAMP): pyproject.toml Makefile deploy/libpython.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(TRITON)
	sh deploy/libpython.sh $(BIN)/python
	touch $(STAMP)

demo: $(STAMP) ## Train, export, serve, roll out and back under live traffic (KEEP=1 leaves it running)
	$(BIN)/sluice demo $(if $(KEEP),--keep)

test: check ## Checks and tests
	$(BIN)/python -m pytest

check: $(STAMP) ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: $(STAMP) ## Run everything on this machine until Ctrl-C
	$(BIN)/sluice up

load: $(STAMP) ## Locust against a gateway: HOST=... USERS=... SECONDS=...; PAGE=1 opens Locust's own page
	$(BIN)/locust --locustfile loadtests/users.py --host $(HOST) \
	  $(if $(PAGE),--web-host 127.0.0.1,--headless --users $(USERS) --spawn-rate $(USERS) --run-time $(SECONDS)s --only-summary)

bench: bench-gateway ## All benchmarks, into build/bench/

bench-gateway: $(STAMP) ## The gateway beside its peers (QUICK=1 for fewer rounds)
	$(BIN)/python -m loadtests.bench.gateway $(if $(QUICK),--quick)

clean: ## Remove what was built, not .venv
	rm -rf build .sluice *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
