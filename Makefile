# `make serve` and `make test` are all a fresh machine with python3 needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FLAGS ?=
DIST ?= dist
# Test processes at once; each file's tests stay in one of them.
JOBS ?= 2
# On Linux MLX's own matrix products are slow: where the system has OpenBLAS, the tests with a real model use it.
OPENBLAS ?= $(firstword $(wildcard /usr/lib/*/libopenblas.so.0 /usr/lib64/libopenblas.so.0))

.PHONY: setup serve test clients fuzz fuzz-api wheel try-wheel formula real real-fence train-smoke check format clean

setup: $(STAMP)

# A recent pip first: dependency groups (PEP 735) need 25.1 or newer.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Periscope needs Python 3.11 or newer; set PYTHON=...")'
	@echo 'Setting up $(VENV): a minute or two, once.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[ocr,heif,office,video,otel,mcp]' --group dev
	@touch $@

serve: setup
	$(BIN)/periscope serve $(FLAGS)

test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --max-worker-restart 0 $(FLAGS)

# Other people's clients against a server with the demo pair: SDKs, frameworks, `llm`. Installs them into build/clients, once.
clients: setup
	$(BIN)/python -m tests.clients.run $(FLAGS)

# Broken bodies for every POST route; `make test` sends 500 of them. NUMBER=2000 for fewer.
NUMBER ?= 20000
fuzz: setup
	FUZZ_BODIES=$(NUMBER) $(BIN)/python -m pytest tests/fuzz -rP $(FLAGS)

# Every route of /openapi.json in all ways that it describes, against a server with the demo pair; some minutes.
fuzz-api: setup
	@$(BIN)/python -m pip install --quiet --group fuzz
	$(BIN)/python -m tests.fuzz.api $(FLAGS)

wheel: setup
	@rm -rf $(DIST)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) .

# The wheel as users get it: in an empty environment, with all that it depends on (some minutes and a gigabyte).
try-wheel: setup
	WHEEL_WITH_DEPENDENCIES=1 $(BIN)/python -m pytest tests/e2e/test_wheel.py --verbose $(FLAGS)

# The Homebrew formula of a release, from the archive of its sources and the address at which that is published.
formula:
	@test -n '$(HOMEPAGE)' -a -n '$(URL)' -a -f '$(ARCHIVE)' || \
	  { echo 'make formula HOMEPAGE=https://... URL=https://.../v0.1.0.tar.gz ARCHIVE=v0.1.0.tar.gz'; exit 2; }
	@mkdir -p $(DIST)
	@sum=$$($(PYTHON) -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' '$(ARCHIVE)') && \
	  sed -e 's|@HOMEPAGE@|$(HOMEPAGE)|' -e 's|@URL@|$(URL)|' -e "s|@SHA256@|$$sum|" launchd/periscope.rb.in > $(DIST)/periscope.rb
	@echo 'Wrote $(DIST)/periscope.rb: put it into Formula/ of the tap.'

# A real, trained text model, built once into the user's cache (some 550 MB); not part of `make test`.
real: setup
	@$(BIN)/python -m pip install --quiet --group real
	REAL_MODEL_TESTS=1 LD_PRELOAD=$(OPENBLAS) $(BIN)/python -m pytest tests/real --verbose -rP $(FLAGS)

# Which wording of the vision fence that model repeats, and how many of its answers are right.
real-fence: setup
	@$(BIN)/python -m pip install --quiet --group real
	PYTHONPATH=. LD_PRELOAD=$(OPENBLAS) $(BIN)/python -m tests.real.fence_echo

# A few steps of the recipes that trained the demo pair; PyTorch is some gigabytes, so this is no part of `make test`.
train-smoke: setup
	@$(BIN)/python -m pip install --quiet --group train
	$(BIN)/python -m pytest tests/training --verbose $(FLAGS)

check: setup
	$(BIN)/ruff format --check backend tests examples
	$(BIN)/ruff check backend tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format backend tests examples
	$(BIN)/ruff check --fix backend tests examples

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
