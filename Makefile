# One environment, made once:  make setup.  Everything else makes it first if it is missing.
#   PYTHON=python3.12    the Python that makes the environment (3.11 or newer)
#   TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
#                        which torch build goes in first: on Linux the default brings CUDA, gigabytes of it
#   PYTEST='-n 2 -k packing'    more words for pytest

PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST ?=
# Two processes of one thread each: tests are many small steps.
WORKERS := -n 2 --dist loadfile

# Idle OpenMP threads sleep soon: spinning ones make everything several times slower on a busy machine.
export GOMP_SPINCOUNT ?= 1000

BIN := .venv/bin
PIP_QUIET := --quiet --no-input --disable-pip-version-check --root-user-action=ignore
FAST := -m "not slow and not data"
# What the lock file pins: everything but Ray, which few need.
COMMA := ,
LOCKED := starter,hub,search,serve,corpus,bench,dev

.DEFAULT_GOAL := setup
.PHONY: setup demo test long check bench docs fresh lock clean python

setup: .venv/ready

# The stamp is newer than both files exactly when the environment is what they say.
.venv/ready: pyproject.toml requirements.lock
	@$(MAKE) --no-print-directory python
	@test -x $(BIN)/pip || { echo "Making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear .venv; }
	@echo "Installing what requirements.lock pins into .venv (the first time takes minutes)"
	@$(BIN)/pip install $(PIP_QUIET) --constraint requirements.lock $(TORCH)
	@$(BIN)/pip install $(PIP_QUIET) --requirement requirements.lock
	@$(BIN)/pip install $(PIP_QUIET) --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: $(BIN)/penjing --help"

python:
	@command -v $(PYTHON) > /dev/null || { echo "There is no '$(PYTHON)' here. Penjing needs Python 3.11 or newer: name one with 'make setup PYTHON=/path/to/python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Penjing needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Name another with 'make setup PYTHON=python3.12'." >&2; exit 1; }

demo: setup
	@$(BIN)/penjing demo

# Everything; tests marked gpu skip themselves where there is no GPU, those marked data where ../shared is absent.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" $(WORKERS) $(PYTEST)

# Processes killed at random moments and the like: with `make test` they would take more than a quarter of an hour.
long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long $(WORKERS) $(PYTEST)

# What to run before every commit: under two minutes.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST) $(WORKERS) -x $(PYTEST)

bench: setup
	$(BIN)/python bench/tune.py

docs: setup
	$(BIN)/zensical build --config-file mkdocs.yml --clean

# The newest release of everything that pyproject.toml allows, against the fast tests: what a user gets tomorrow.
fresh: python
	@$(PYTHON) -m venv --clear .fresh
	@.fresh/bin/pip install $(PIP_QUIET) $(TORCH)
	@.fresh/bin/pip install $(PIP_QUIET) '.[$(LOCKED)]'
	@.fresh/bin/pip list --disable-pip-version-check
	OMP_NUM_THREADS=1 .fresh/bin/python -m pytest $(FAST) $(WORKERS) $(PYTEST)

# A clean resolve on the oldest Python, so that the pins go in on newer ones too. GPU packages are torch's own business:
# they are left out, and pip adds those that the torch build at hand asks for.
lock: python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "The lock is made on Python 3.11, the oldest one we promise: 'make lock PYTHON=python3.11'." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .lock
	@.lock/bin/pip install $(PIP_QUIET) $(TORCH)
	@.lock/bin/pip install $(PIP_QUIET) '.[$(LOCKED)]'
	@{ echo '# Every version Penjing is developed and tested with: core, $(subst $(COMMA),$(COMMA) ,$(LOCKED)). Made by `make lock`.'; \
	   .lock/bin/pip list --format=freeze --exclude pip --exclude penjing --disable-pip-version-check \
	   | grep --invert-match --extended-regexp '^(nvidia-|cuda-|triton==)' \
	   | sed --regexp-extended 's/\+(cpu|cu[0-9]+|rocm[0-9.]+)$$//' ; } > .lock/requirements.lock
	@mv .lock/requirements.lock requirements.lock && rm -rf .lock
	@echo "requirements.lock: $$(grep --count == requirements.lock) packages"

clean:
	rm -rf .venv .fresh .lock .cache site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
