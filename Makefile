# Everything a developer or a user runs. `make demo` and `make test` work on a machine that has Python 3.11 or 3.12
# and nothing else: they install into .venv first.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
BACKEND ?= torch
BIN := .venv/bin
RUN := runs/demo

.PHONY: setup demo test lint format bench clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "PCAE needs Python 3.11 or 3.12; name one with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[torch,hf,conformance,dev]"
	@touch $@

# A model this small gains little from a second thread, and loses much when another program wants the core.
demo: export OMP_NUM_THREADS := 1
demo: setup
	$(BIN)/pcae data fashion-mnist data/fashion-mnist
	$(BIN)/pcae pretrain --config examples/fashion_mnist.yaml --backend $(BACKEND) --out $(RUN)
	$(BIN)/pcae evaluate $(RUN) --data data/fashion-mnist --backend $(BACKEND)

test: lint
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: setup
	$(BIN)/python benchmarks/pretraining_step.py

clean:
	rm -rf .venv build dist runs
