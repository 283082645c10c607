# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test chaos check format bench fuzz lock docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1mmake %-9s\033[0m %s\n", $$1, $$2}'

$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Lightbox needs Python 3.11 or later; none was found as '$(PYTHON)'. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lightbox needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || { echo "installing uv"; $(BIN)/python -m pip install --quiet uv; }
	@echo "installing the locked packages into $(VENV)"
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --compile-bytecode --quiet -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --quiet -e .
	@touch $(READY)

install: $(READY) ## install the locked packages into .venv

lock: $(READY) ## renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --universal --all-extras --group dev --generate-hashes -o requirements.lock --quiet

demo: $(READY) ## start everything and send real studies through two clinics' edges
	@$(BIN)/lightbox demo

up: $(READY) ## start everything on this machine
	@$(BIN)/lightbox up

down: $(READY) ## stop everything; the data stay
	@$(BIN)/lightbox down

status: $(READY) ## how each part is
	@$(BIN)/lightbox status

test: $(READY) ## all tests, on real servers, DICOM peers and a browser
	@sh tests/support/peers.sh
	@$(BIN)/python -m pytest $(ARGS)

chaos: $(READY) ## RUNS=200 SEED=…: break things while two hospitals send, and judge what is lost
	@sh tests/support/peers.sh
	@$(BIN)/python -m tests.system.chaos $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(if $(DOORS),--doors $(DOORS)) $(if $(FAULT),--fault $(FAULT))

check: $(READY) ## formatter, linter, types, import rules, tenant scope, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict services libs cli deploy migrations tools tests benchmarks
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.lint.tenant_scope
	@$(BIN)/python -m libs.events.schemas --check

bench: $(READY) ## measure storing and reading beside other servers (half an hour, 35 GB of disk)
	@sh tests/support/peers.sh wrk
	@for name in store memory stow flood header read visible; do $(BIN)/python -m benchmarks.$$name || exit 1; done

fuzz: $(READY) ## fuzz the readers of what strangers send: make fuzz TARGET="header pdu" SECONDS=1200 KEEP=yes
	@$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60) $(if $(KEEP),--keep)

docs: $(READY) ## write the generated files anew: event schemas and the event catalogue
	@$(BIN)/python -m libs.events.schemas

format: $(READY) ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## remove what was built and installed here (the data folder stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
