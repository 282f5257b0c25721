# Every target does its own set-up: a fresh machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test test-lowest lint types docs bench bench-gpu clean

demo: $(VENV)/.demo
	$(BIN)/tt-conv demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

# The lowest versions that pyproject.toml names, in an environment of their own. Other packages warn of each other there.
test-lowest:
	$(PYTHON) -m venv build/lowest
	$(PYTHON) tools/lowest_versions.py > build/lowest/constraints.txt
	build/lowest/bin/python -m pip install --quiet --no-compile -c build/lowest/constraints.txt '.[applications,test]'
	build/lowest/bin/python -m pytest -o filterwarnings=ignore

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Runs with $(PYTHON) itself, which brings its own build of PyTorch. What else the machine lacks is imported from the
# wheels in WHEELS. ONLY="recurrence/training*" runs some cases.
WHEELS ?= wheels ../wheels
ONLY ?=
bench-gpu:
	$(PYTHON) -m benchmarks.run --device cuda --wheels $(WHEELS) $(if $(ONLY),--only $(ONLY))

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once; this takes a minute or two ..."
	$(INSTALL) -e '.[applications]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once; this takes a minute or two ..."
	$(INSTALL) -e '.[applications,test]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[applications,test,dev]'
	@touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[applications,docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist docs/_build docs/gallery *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
