# `make serve` and `make test` are all a fresh machine with python3 needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FLAGS ?=

.PHONY: setup serve test check format clean

setup: $(STAMP)

# A recent pip first: dependency groups (PEP 735) need 25.1 or newer.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Periscope needs Python 3.11 or newer; set PYTHON=...")'
	@echo 'Setting up $(VENV): a minute or two, once.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

serve: setup
	$(BIN)/periscope serve $(FLAGS)

test: setup
	$(BIN)/python -m pytest $(FLAGS)

check: setup
	$(BIN)/ruff format --check backend tests
	$(BIN)/ruff check backend tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format backend tests
	$(BIN)/ruff check --fix backend tests

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
