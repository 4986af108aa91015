# make demo     two hosts train MNIST as one swarm, on this machine   (RUNTIME=docker: in containers;
#               ORDERER=ethereum: the ledger ordered by an Ethereum network, which npm provides)
# make test     everything that CI checks: lint, types, all tests
# make bench    the figures: commit latency, mesh, merging (JSON lines)
# make image    the image of all nodes, for the DOCKER runtime
# make wheel    the library that goes into the image of a user's program
# make clean    removes what the above made, except the virtual environment

PYTHON ?= python3
RUNTIME ?= process
ORDERER ?= embedded
VENV := .venv
BIN := $(VENV)/bin
SOURCES := swarm sentinel swop swci certs swarmlearning examples tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types pytest bench bench-ledger bench-mesh bench-merge bench-methods image wheel clean

help:
	@sed -n -e '/^# make /,/^$$/s/^# /  /p' Makefile

# pip's output goes to a log, and is shown when it fails.
NODE := -e '.[node,ethereum,tensorflow,examples]'
# Of PyTorch this release: pip finds the build for CPUs of it where others bring several GB for GPUs.
TEST := -e '.[node,ethereum,tensorflow,examples,sklearn,transformers,test]' torch==2.13.0
PIP = $(BIN)/python -m pip install --disable-pip-version-check
LOG := $(VENV)/install.log
run = { $(1) >>$(LOG) 2>&1 || { tail -n 40 $(LOG); echo "failed: see $(LOG)"; exit 1; }; }

# One stamp a set of extras, so that a changed pyproject.toml installs again and nothing else does.
$(VENV)/.node: pyproject.toml scripts/system-packages
	@scripts/system-packages $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); the first time takes a few minutes ($(LOG) tells what it does)"
	@$(call run,$(PIP) --upgrade pip)
	@$(call run,$(PIP) $(NODE))
	@touch $@

$(VENV)/.test: $(VENV)/.node
	@echo "installing what the tests need"
	@$(call run,$(PIP) $(TEST))
	@# tf_keras names the GPU build of TensorFlow as a dependency; beside the CPU build it is enough alone.
	@$(call run,$(PIP) --no-deps tf_keras)
	@touch $@

install: $(VENV)/.node

demo: $(VENV)/.node
	@$(BIN)/python examples/demo.py --runtime $(RUNTIME) --orderer $(ORDERER)

test: lint types pytest

lint: $(VENV)/.test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.test
	$(BIN)/mypy

pytest: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

bench: bench-ledger bench-mesh bench-merge bench-methods

bench-ledger bench-mesh bench-merge bench-methods: bench-%: $(VENV)/.test
	$(BIN)/python benchmarks/bench_$*.py

image: $(VENV)/.node
	image/build

wheel: $(VENV)/.node
	scripts/wheel

clean:
	rm -rf build dist lib demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
