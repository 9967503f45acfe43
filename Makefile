# make demo | test | test-all | lint | api: each sets up what it needs in .venv, from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
export OMP_NUM_THREADS ?= $(CORES)

# Processes for the tests, one thread each; a process takes up to 3 GB.
JOBS ?= $(shell test $(CORES) -gt 4 && echo 4 || echo $(CORES))

.PHONY: demo test test-all lint api install lock lock-check clean

demo: $(READY)
	$(BIN)/python tools/demo.py

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# Without the tests that are marked slow.
test: lint api
	$(PYTEST) -m "not slow"

test-all: lint api
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of all modules: build/api/html/index.html. Every warning is an error.
api: $(READY)
	rm -rf build/api && mkdir -p build/api/source
	$(BIN)/python -m sphinx -c docs/api -b html -qEW --keep-going build/api/source build/api/html

install: $(READY)

$(READY): requirements.lock setup.cfg pyproject.toml $(wildcard detection/installation/*.py)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 to 3.14; use make PYTHON=python3.x" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python tools/install_detectron2.py
	@touch $@

# The versions that make installs: those of the present lock as far as setup.cfg allows, or the
# newest with UV_OPTIONS=--upgrade. torch names its own exact CUDA packages, so they stay out.
lock: $(READY)
	cp requirements.lock requirements.lock.new
	$(BIN)/uv pip compile setup.cfg --extra dev --universal --python-version 3.10 --quiet \
		--no-header --no-annotate --no-emit-index-url --output-file requirements.lock.new \
		$(UV_OPTIONS) > /dev/null
	grep -vE '^(nvidia-|cuda-|triton)' requirements.lock.new \
		| sed -E "s/( ;| and) python_full_version < '3\.15'$$//; s/python_full_version < '3\.15' and //" \
		> requirements.lock
	rm requirements.lock.new

# Whether the lock has a wheel of everything on every system and Python; asks the package index.
lock-check: $(READY)
	$(BIN)/python tools/check_lock.py

clean:
	rm -rf $(VENV) output build *.egg-info
