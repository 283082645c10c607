# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test check format bench lock docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1mmake %-9s\033[0m %s\n", $$1, $$2}'

$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Lightbox needs Python 3.11 or later; none was found as '$(PYTHON)'. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lightbox needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || { echo "installing uv"; $(BIN)/python -m pip install --quiet uv; }
	@echo "installing the locked packages into $(VENV)"
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --quiet -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --quiet -e .
	@touch $(READY)

install: $(READY) ## install the locked packages into .venv

lock: $(READY) ## renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --universal --all-extras --group dev --generate-hashes -o requirements.lock --quiet

format: $(READY) ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## remove what was built and installed here (the data folder stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
