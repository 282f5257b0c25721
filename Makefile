# Every target does its own set-up: a fresh machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test test-lowest test-versions lint types docs bench gpu-wheels bench-gpu bench-gpu-paths train-gpu clean

demo: $(VENV)/.demo
	$(BIN)/tt-conv demo

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8

# The lowest versions that pyproject.toml names, in an environment of their own. Other packages warn of each other there.
test-lowest:
	$(PYTHON) -m venv build/lowest
	$(PYTHON) tools/lowest_versions.py > build/lowest/constraints.txt
	build/lowest/bin/python -m pip install --quiet --no-compile -c build/lowest/constraints.txt '.[applications,test]'
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest --numprocesses=auto --maxprocesses=8 -o filterwarnings=ignore

# The oldest PyTorch, that of GPU machines, and the newest: hours and tens of GB, for releases. VERSIONS="2.8.0" for others.
VERSIONS ?=
test-versions:
	$(PYTHON) tools/test_versions.py $(VERSIONS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Wheels of what a machine with a GPU lacks that has PyTorch with Lightning, torchmetrics, opt_einsum, SciPy, Matplotlib,
# tensorboard, Pillow, safetensors, scikit-image, h5py, xarray, and what those need.
WHEELS ?= wheels
GPU_PYTHON ?= 3.12
GPU_PACKAGES := tensorly tensorly-torch jsonargparse docstring_parser typeshed_client av
MANYLINUX := $(foreach glibc,2_34 2_31 2_28 2_27 2_26 2_24 2_17,--platform manylinux_$(glibc)_x86_64) --platform manylinux2014_x86_64
gpu-wheels:
	rm -rf $(WHEELS)
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
	    --python-version $(GPU_PYTHON) $(MANYLINUX) -c constraints.txt -d $(WHEELS) $(GPU_PACKAGES)
	@size=$$(du -sm $(WHEELS) | cut -f1); echo "$$size MB in $(WHEELS)"; test $$size -lt 60

# Three runs of at most nine minutes, with $(PYTHON) itself, which brings its own build of PyTorch; what else it lacks is
# imported from WHEELS. Each writes $(OUT)/NAME.json after every case and goes on where one before it stopped.
# ONLY="recurrence/training*" runs some cases. REHEARSE=1 runs all of it on a CPU, at a size that ends.
OUT ?= build/gpu
ONLY ?=
REHEARSE ?=
BENCH_GPU = $(PYTHON) -m benchmarks.run --wheels $(WHEELS) --resume --out $(OUT)/$(1).json \
    $(if $(ONLY),--only $(ONLY),--series $(1)) $(if $(REHEARSE),--small,--device cuda)
bench-gpu:
	$(call BENCH_GPU,engine)
bench-gpu-paths:
	$(call BENCH_GPU,paths)
train-gpu:
	$(call BENCH_GPU,training)

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
