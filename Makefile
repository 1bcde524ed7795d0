# Requires python3 (3.10 to 3.13), its venv module, and make. Everything else is installed into .venv.
#
#   make demo         the main job on two simulated days; writes runs/demo/
#   make test         the quick tests, a few minutes    make test ARGS="-x tests/planning"
#   make test-slow    the other tests of a change
#   make test-all     both, with branch coverage
#   make test-nightly long trials, and all cases of the large matrices
#   make fuzz         10,000 damaged or odd examples of each file that is read
#   make lint         ruff, mypy, codespell and the word list
#   make docs         the documentation, warnings as errors
#   make constraints  pin all dependencies again, for every supported Python
#   make audit        look up the pinned dependencies in the databases of known vulnerabilities
#   make clean        remove .venv, site and runs/demo
#   make help         this list
#
# TORCH_INDEX=URL installs PyTorch from that index, for example an index of CPU builds.

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
JOBS ?= 2
PIP_AUDIT := 2.10.1

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: help demo test test-slow test-all test-nightly fuzz lint docs constraints audit clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.demo
	$(PY) examples/demo.py $(ARGS)

test: $(VENV)/.dev
	$(PY) -m pytest -n $(JOBS) --dist loadgroup -m "not slow and not distributed and not nightly" --durations 20 $(ARGS)

test-slow: $(VENV)/.dev
	$(PY) -m pytest -n $(JOBS) --dist loadgroup -m "(slow or distributed) and not nightly" --durations 20 $(ARGS)

test-all: $(VENV)/.dev
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n $(JOBS) --dist loadgroup -m "not nightly" --durations 20 $(ARGS)
	$(PY) -m coverage combine -q
	$(PY) -m coverage report --skip-covered

test-nightly: $(VENV)/.dev
	$(PY) -m pytest -n $(JOBS) --dist loadgroup -m nightly --durations 20 $(ARGS)

fuzz: $(VENV)/.dev
	LIGHTNING_GREEN_FUZZ_EXAMPLES=10000 $(PY) -m pytest -n $(JOBS) --dist loadgroup --timeout 3600 -k "test_any_" tests/test_any_files.py $(ARGS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell
	$(PY) scripts/check_words.py

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# PyTorch is installed separately: the index of its CPU builds has the pinned version, but not the other packages.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.10 to 3.13 is needed; name one with PYTHON=python3.12, for example."; exit 1; }
	@if [ -n "$(TORCH_INDEX)" ]; then echo "Downloading $(TORCH) from $(TORCH_INDEX), then up to 400 MB of other packages."; \
	elif [ "$$(uname -s)" = Linux ]; then \
	  echo "Downloading $(TORCH) and up to 400 MB of other packages into $(VENV). On Linux, PyTorch comes as its CUDA"; \
	  echo "build, 2.7 GB; for its CPU build, 0.2 GB: make demo TORCH_INDEX=<URL of PyTorch's index of CPU builds>"; \
	else echo "Downloading $(TORCH) and up to 400 MB of other packages into $(VENV)."; fi
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) install --no-deps --index-url $(TORCH_INDEX) $(TORCH))
	$(PIP) install -c constraints.txt $(TORCH)
	$(PIP) install -q -c constraints.txt hatchling editables
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install -q --no-build-isolation -c constraints.txt -e '.[demo,wandb]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) install -q --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch $@

# Pins all dependencies again, for every supported Python; run it after a change of the dependencies.
constraints: $(VENV)/.torch
	$(PIP) install -q uv
	printf '%s\n' hatchling editables '$(TORCH)' > $(VENV)/also.in
	{ echo "# What \`make demo\` and \`make test\` install, for Python 3.10 to 3.13; written by \`make constraints\`."; \
	  $(VENV)/bin/uv pip compile -q --universal --python-version 3.10 --all-extras --no-annotate --no-header \
	  pyproject.toml $(VENV)/also.in; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt
	{ echo "# The versions of constraints.txt with the hashes of their files; written by \`make constraints\`."; \
	  $(VENV)/bin/uv pip compile -q --universal --python-version 3.10 --all-extras --no-annotate --no-header \
	  --generate-hashes -c constraints.txt pyproject.toml $(VENV)/also.in; } > $(VENV)/hashes.txt
	mv $(VENV)/hashes.txt requirements-hashes.txt

# Fails if a dependency has a known vulnerability, or cannot be looked up. It is installed apart from the dependencies.
audit: $(VENV)/.torch
	@test -x $(VENV)/audit/bin/pip-audit || { $(PY) -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/python -m pip --disable-pip-version-check install -q pip-audit==$(PIP_AUDIT); }
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-hashes.txt $(ARGS)

clean:
	rm -rf $(VENV) site runs/demo
