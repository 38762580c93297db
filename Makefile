# Everything a developer or a user runs. `make demo` and `make test` work on a machine that has Python 3.11 or newer
# and nothing else: they install into .venv first.

# The first two can have MindSpore.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BACKEND ?= torch
BIN := .venv/bin
EXTRAS_NUMPY2 := torch,hf,conformance,dev,ort,serve
EXTRAS := $(EXTRAS_NUMPY2),mindspore,audit,docs
RUN := runs/demo-$(BACKEND)
# Two processes share the files; the tests of a file share what takes long to make.
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder
SPEEDS := pretraining_step step_parts updates growth two_processes loop_around data_path encoder_throughput \
	mindspore_step onnx_inference

.PHONY: setup demo peers test test-numpy2 lint format api wheel audit sbom docs bench bench-more bench-clients bench-faults \
	bench-learning fuzz clean

setup: .venv/installed

# $(call install,ENVIRONMENT,PACKAGES,CONSTRAINTS)
define install
	@test -n "$(PYTHON)" || { echo "PCAE needs Python 3.11 or newer; name one with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	$(1)/bin/pip install --quiet --constraint $(3) --editable $(2)
	@touch $(1)/installed
endef

.venv/installed: pyproject.toml constraints.txt
	$(call install,.venv,".[$(EXTRAS)]",constraints.txt)
	@$(BIN)/pip show --quiet mindspore 2>/dev/null || \
		echo "MindSpore has no wheel for this Python and system: its backend is left out, its tests are skipped"

# A model this small gains little from a second thread, and loses much when another program wants the core.
demo: export OMP_NUM_THREADS := 1
demo: setup
	$(BIN)/pcae data fashion-mnist data/fashion-mnist
	$(BIN)/pcae pretrain --config examples/fashion_mnist.yaml --backend $(BACKEND) --out $(RUN)
	$(BIN)/pcae evaluate $(RUN) --data data/fashion-mnist --backend $(BACKEND)

peers: .venv-peers/installed

# The tests' clients and tools of other people; none of them comes near the environment that PCAE runs in.
.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	.venv-peers/bin/pip install --quiet --constraint constraints.txt --group peers
	@touch $@

# MindSpore's threads wait by spinning: beside other tests, two processes of it take several times as long.
test: lint peers
	$(BIN)/$(PYTEST) --ignore tests/backends/test_msrun.py
	$(BIN)/pytest tests/backends/test_msrun.py

# MindSpore needs NumPy 1; everything else is also tested with the current NumPy 2, in an environment of its own.
test-numpy2: peers .venv-numpy2/installed
	.venv-numpy2/bin/$(PYTEST) tests/core tests/onnx/test_onnx*.py tests/onnx/test_serve*.py \
		$(addprefix tests/data/test_,sources.py crop.py loader.py transforms.py emoji.py cifar10.py) \
		$(addprefix tests/training/test_,training.py finetune.py) \
		$(addprefix tests/backends/test_,backends.py conformance.py encoder_torch.py) \
		$(addprefix tests/cli/test_,visualize.py report.py)

.venv-numpy2/installed: pyproject.toml constraints.txt
	mkdir -p .venv-numpy2
	sed -e '/^numpy==1/d' -e '/^numpy==2/s/;.*//' constraints.txt > .venv-numpy2/constraints.txt
	$(call install,.venv-numpy2,".[$(EXTRAS_NUMPY2)]" "numpy>=2",.venv-numpy2/constraints.txt)

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive .

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Writes down the public API; the difference belongs into the commit, and into CHANGELOG.md.
api: setup
	$(BIN)/python tests/helpers/public_api.py > tests/public_api.txt

# The same bytes from the same commit, wherever and whenever it is built.
wheel: setup
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/hatchling build -t wheel
	sha256sum dist/*.whl

# Known weaknesses of what is pinned. Needs the network; fails where a package cannot be looked up.
audit: lint
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# What the pinned environment consists of, as CycloneDX.
sbom: setup
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		--output-format JSON --output-file dist/pcae.cdx.json $(BIN)/python

# The site, in build/site; warnings are errors.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every speed as a ratio with an aim where there is one (docs/performance.md): the rows go to runs/bench.jsonl, the table
# is printed at the end. `make bench BENCH_FLAGS="--threads 1 --cpu-time"` is for a machine that others use.
bench: export BENCH_ROWS := runs/bench.jsonl
bench: setup
	@mkdir -p runs && rm -f $(BENCH_ROWS)
	for name in $(SPEEDS); do $(BIN)/python benchmarks/$$name.py $(BENCH_FLAGS) || exit 1; done
	$(BIN)/python benchmarks/table.py $(BENCH_ROWS)

# What else is measured (docs/benchmarks.md): export, service, quality after fine-tuning.
bench-more: setup
	$(BIN)/python benchmarks/onnx_export.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/pcae data fashion-mnist data/fashion-mnist
	$(BIN)/python benchmarks/finetuning.py
	$(BIN)/pcae data emoji data/emoji
	$(BIN)/python benchmarks/emoji.py

# The kserve client against the service, and exported models in Optimum. Both need many packages, and other versions of
# some than we.
bench-clients: setup .venv-kserve/installed .venv-optimum/installed
	$(BIN)/python benchmarks/kserve_client.py
	$(BIN)/python benchmarks/optimum_client.py

.venv-optimum/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-optimum
	grep -vE '^(huggingface_hub|tokenizers|transformers)==' constraints.txt > .venv-optimum/constraints.txt
	.venv-optimum/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	.venv-optimum/bin/pip install --quiet --constraint .venv-optimum/constraints.txt --group optimum
	@touch $@

.venv-kserve/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-kserve
	grep -vE '^(pandas|protobuf|psutil|python-dateutil)==' constraints.txt > .venv-kserve/constraints.txt
	.venv-kserve/bin/pip install --quiet --upgrade --constraint constraints.txt pip
	.venv-kserve/bin/pip install --quiet --constraint .venv-kserve/constraints.txt --group kserve
	@touch $@

# Training runs killed a hundred times; `make test` runs a short form.
bench-faults: setup
	$(BIN)/python benchmarks/faults.py

# What PCAE learns on small data next to MAE and others (docs/learning.md): many hours. Results are appended to
# LEARNING; run it again to go on. For a part of it:
# make bench-learning SETS=fashion-mnist BUDGETS=60 SEEDS="0 1 2" PARTS="trials comparison"
# PROCESSES experiments run at a time, each on one thread.
SETS ?= fashion-mnist emoji cifar10 fashion-mnist-196 cifar10-256
BUDGETS ?= 60 180 600
SEEDS ?= 0 1 2
PARTS ?= trials comparison ablations
LEARNING ?= runs/learning.jsonl
PROCESSES ?= 1
bench-learning: setup
	for set in $(SETS); do set=$${set%-[0-9]*}; $(BIN)/pcae data $$set data/$$set || exit; done
	$(BIN)/python -m benchmarks.learning --parts $(PARTS) --sets $(SETS) --budgets $(BUDGETS) --seeds $(SEEDS) \
		--results $(LEARNING) --processes $(PROCESSES)

# Hostile files by the thousand, and a service under attack; `make test` runs a short form of both.
fuzz: export OMP_NUM_THREADS := 1
fuzz: setup
	$(BIN)/python benchmarks/fuzz.py
	$(BIN)/python benchmarks/serving_faults.py

clean:
	rm -rf .venv .venv-numpy2 .venv-peers .venv-kserve .venv-optimum build dist runs
