# Two commands do everything on a fresh machine: `make quickstart` and `make test`. `make help` lists the rest.
# Overridable, e.g. `make quickstart SCENES=60 ARGS="--max_steps 4" OUT=runs/try`:
PYTHON ?= python3
VENV ?= .venv
# Requirements added to every install, e.g. EXTRA_PIP="torch==2.14.1 torchvision==0.29.1".
EXTRA_PIP ?=
SCENES ?= 300
WIDTH ?= 1600
SEED ?= 0
# Processes that draw the scenes; the same bytes for any number.
WORKERS ?= 2
OUT ?= runs/quickstart
# Added to the training command of the quickstart, to pytest, or to both.
ARGS ?=
BENCHMARKS := views augmentation feature_cache training_step lite_latency

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OFFLINE := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
# accelerate starts a CPU process with one thread unless told otherwise.
THREADS = $${OMP_NUM_THREADS:-$$($(BIN)/python -c "import os; print(os.cpu_count() or 1)")}
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow style format checks bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras, made again when pyproject.toml changes.
$(STAMP)-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[$*]" $(EXTRA_PIP)
	@touch $@

quickstart: $(STAMP)-quickstart  ## draw scenes, train on them, print the results (CPU, no Hub)
	@set -e; start=$$(date +%s); export $(OFFLINE); \
	$(BIN)/natix-roadwork scenes $(OUT)/scenes --num-rows $(SCENES) --width $(WIDTH) --seed $(SEED) --positive-share 0.55 --test-share 0 --workers $(WORKERS); \
	OMP_NUM_THREADS=$(THREADS) \
	$(BIN)/accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/pretrain.py \
	  --config recipes/pretrain/quickstart.yaml --dataset_name $(OUT)/scenes --output_dir $(OUT)/model --seed $(SEED) $(ARGS); \
	echo "quickstart: $$(($$(date +%s) - start)) s after the install; user and system time of the shell, then of the commands:"; \
	times

test: $(STAMP)-test,quickstart  ## all tests but the long ones
	@set -e; start=$$(date +%s); export $(OFFLINE); \
	$(BIN)/python -m pytest --durations=15 $(ARGS); \
	echo "test: $$(($$(date +%s) - start)) s after the install; user and system time of the shell, then of the commands:"; \
	times

test-slow: $(STAMP)-test,quickstart  ## the long tests, 20 kills among them (NATIX_KILLS=3 for fewer)
	$(OFFLINE) $(BIN)/python -m pytest -m "slow and not gpu and not network" --durations=15 $(ARGS)

style: $(STAMP)-style  ## what CI checks: ruff, formatting, imports between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP)-style  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

checks: style test  ## style and test

bench: $(STAMP)-test,quickstart  ## every ratio of the recipes' table of speed, beside the plain ways: half an hour
	@set -e; for name in $(BENCHMARKS); do \
	  $(OFFLINE) PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/$$name.py \
	    --output model_cards/results/speed_$$name.json $(ARGS); \
	done
	$(BIN)/python tests/benchmarks/speed_table.py recipes/README.md

bench-%: $(STAMP)-test,quickstart  ## one of tests/benchmarks, e.g. bench-gps, checked against its bars
	$(OFFLINE) PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/$*.py --check $(ARGS)

clean:  ## remove the environment, builds and tool caches; runs stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache
