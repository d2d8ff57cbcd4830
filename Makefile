# make train: set everything up, train CartPole for real, show what it learned.
# make test:  set everything up, lint, check types, run the tests.
# make gate:  train an agent for some minutes; fail where it has learned too little.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN = $(VENV)/bin

.PHONY: train test gate lint install clean

train: $(VENV)/.installed
	$(BIN)/dreamer-agent train CartPole-v1 --preset classic --run runs/cartpole

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# Fails where an agent that was trained for some minutes scores too low.
gate: $(VENV)/.installed
	rm -rf runs/gate
	$(BIN)/dreamer-agent bench gate --gate --jobs 2 --out runs/gate

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

# constraints.txt holds the exact versions that the results were measured with.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dreamer_agent needs Python 3.11 or newer: run make PYTHON=python3.11 (or newer) $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache tests/.xla_cache
