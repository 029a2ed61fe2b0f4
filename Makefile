# make demo: the main job, end to end.  make test: checks and tests.  Each sets up .venv when it is missing or stale.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
TRITON := nvidia-pytriton==0.7.0
HOST ?= http://127.0.0.1:8000
MODEL ?= digits
USERS ?= 20
SECONDS ?= 30
INPUTS ?= 1000000
ALONE := gateway loadtests

.PHONY: help setup demo test check up load bench bench-gateway bench-reload bench-slow bench-decisions fuzz clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -t -s '	'

setup: $(STAMP) ## Make or renew .venv

$(STAMP): pyproject.toml Makefile deploy/libpython.sh
	@echo "setting up $(VENV) with $(PYTHON); the first time this takes a minute or several"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Sluice needs Python 3.11 to 3.13, this is %d.%d: give another with PYTHON=" % v)'
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) --upgrade "pip>=23"
	@echo "  torch" && $(PIP) "torch==2.13.*"
	@echo "  sluice and what it needs" && $(PIP) --editable ".[dev]"
	@echo "  Triton" && $(PIP) --no-deps $(TRITON)
	@sh deploy/libpython.sh $(BIN)/python
	@touch $(STAMP)

demo: $(STAMP) ## Train, export, serve, roll out and back under live traffic (KEEP=1 leaves it running)
	$(BIN)/sluice demo $(if $(KEEP),--keep)

test: check ## Checks and tests; those whose time counts one after the other
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ALONE:%=--ignore=tests/%)
	$(BIN)/python -m pytest $(ALONE:%=tests/%)

check: $(STAMP) ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: $(STAMP) ## Run everything on this machine until Ctrl-C
	$(BIN)/sluice up

load: $(STAMP) ## Locust against a gateway: HOST= MODEL= ROWS=file.npz USERS= SECONDS=; PAGE=1 for Locust's own page
	SLUICE_MODEL=$(MODEL) SLUICE_ROWS=$(ROWS) $(BIN)/locust --locustfile loadtests/users.py --host $(HOST) \
	  $(if $(PAGE),--web-host 127.0.0.1,--headless --users $(USERS) --spawn-rate $(USERS) --run-time $(SECONDS)s --only-summary)

bench: bench-gateway bench-reload bench-slow bench-decisions ## All benchmarks, into build/bench/

bench-gateway: $(STAMP) ## The gateway beside its peers (QUICK=1: fewer rounds; ONLY="small_json idle": some works)
	$(BIN)/python -m loadtests.bench.gateway $(if $(QUICK),--quick) $(ONLY:%=--only %)

bench-reload: $(STAMP) ## 1,000,000 numbered requests through reloads, kills and restarts (QUICK=1: 50,000)
	$(BIN)/python -m loadtests.bench.reload $(if $(QUICK),--quick)

bench-decisions: $(STAMP) ## The decision engine beside other rules, simulated (QUICK=1: hundreds; ONLY="aa errors_2pct": a part)
	$(BIN)/python -m loadtests.deciding $(if $(QUICK),--quick) $(ONLY:%=--only %)

fuzz: $(STAMP) ## Hostile clients and servers against the gateway's core, on all cores: INPUTS=, SEED=
	$(BIN)/python -m loadtests.fuzz --inputs $(INPUTS) $(SEED:%=--seed %)

bench-slow: $(STAMP) ## Thousands of slow clients, and more bytes than fit (QUICK=1: hundreds; ONLY="slow_heads": a part)
	$(BIN)/python -m loadtests.bench.slow $(if $(QUICK),--quick) $(ONLY:%=--only %)

clean: ## Remove what was built; not .venv, nor .sluice, models and runs, which hold state
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
