# `make demo` runs the main job on real data, `make test` the tests; both make .venv when it is missing.
# They need Python 3.11 and PyPI, nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
CORE := .venv-core
PEERS := .venv-peers
SOURCES := $(or $(EXMEM_PEERS),.peers)

.PHONY: demo test test-core test-install peers check docs bench format

demo: $(READY)
	$(BIN)/exmem demo

test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

# What needs no torch, where none is installed.
test-core: $(CORE)/.ready
	$(CORE)/bin/python -m pytest -n logical --maxprocesses 8 --dist worksteal -m "not torch"

# The wheel in fresh environments, one after another: minutes, and what it installs comes from PyPI.
test-install: $(READY)
	$(BIN)/python -m pytest -rs --install -m install tests/packaging

# Other libraries with our memory in the place of their buffers, and their own tests where their sources can be fetched.
# Each in a process of its own: TorchRL, when it is imported, changes how all processes are started.
peers: $(PEERS)/.ready
	tests/integrations/peers/fetch.sh $(SOURCES)
	for peer in avalanche lightning mammoth methods pilot torchrl; do \
	  EXMEM_PEERS=$(abspath $(SOURCES)) $(PEERS)/bin/python -m pytest -rs tests/integrations/peers/test_$$peer.py || exit 1; \
	done
	$(PEERS)/bin/python -m pytest -p tests.integrations.peers.conftest tests/test_docstrings.py tests/test_public_api.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The site, in `site/`; a warning is an error, but not with --quiet, which hides it from --strict, too.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m pytest bench --full --benchmark-enable --benchmark-only --benchmark-columns=min,median,rounds

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first: with it in place, no other package asks for another build of it.
$(READY): requirements-dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements-dev.txt)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(CORE)/.ready: requirements-dev.txt pyproject.toml
	test -x $(CORE)/bin/python || $(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --constraint requirements-dev.txt --editable ".[test]"
	! $(CORE)/bin/python -c "import torch" 2> /dev/null
	touch $@

$(PEERS)/.ready: requirements-dev.txt tests/integrations/peers/requirements.txt pyproject.toml
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements-dev.txt)
	$(PEERS)/bin/python -m pip install --quiet --requirement requirements-dev.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps --requirement tests/integrations/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
