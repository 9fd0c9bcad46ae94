# Two commands to begin with: `make demo` and `make test`. Each needs python3 and a package registry, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Real frames for the demo, streamed too where they are there.
REAL_DATA ?= ../shared/data/nuscenes_real
# One thread a worker: PyTorch's own threads and the workers would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(or $(WORKERS),2) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench proofs

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

install: $(INSTALLED) ## the environment in .venv

# Again only when the requirements or the C++ sources change.
$(INSTALLED): pyproject.toml setup.py constraints.txt requirements-oracle.txt $(wildcard src/sparsedrive/ops/native/*.cpp src/sparsedrive/ops/native/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-oracle.txt
	touch $@

# Passive: threads that wait by spinning make a busy machine twenty times slower.
demo: $(INSTALLED) ## pictures and a video of a generated drive, in demo/
	OMP_WAIT_POLICY=passive $(BIN)/sparsedrive demo --out demo $(if $(wildcard $(REAL_DATA)/v1.0-*),--real-data $(REAL_DATA))

test: lint ## style, types and all tests
	$(PYTEST)

lint: $(INSTALLED) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proofs: $(INSTALLED) ## slow proofs: a training killed ten times ends with the same weights; two real frames are learned
	OMP_NUM_THREADS=1 $(BIN)/python tests/training/kill_proof.py --kills 10
	$(if $(wildcard $(REAL_DATA)/v1.0-*),$(BIN)/python tests/training/overfit_proof.py --root $(REAL_DATA),@echo "no real frames in $(REAL_DATA)")

bench: $(INSTALLED) ## every benchmark
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done
