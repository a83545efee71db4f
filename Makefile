# One set-up for everything: a virtual environment with pinned packages.
#   PYTHON        the interpreter to start from (3.11 or newer)
#   WORKERS       processes that the tests are spread over, a file at a time
#   TORCH_WHEELS  a page of wheels to prefer, e.g. PyTorch's own CPU page (see README, "CPU torch")
PYTHON ?= python3
TORCH_WHEELS ?=
WORKERS ?= 2
VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt
# in the order of tests/conftest.py, not by the number of tests in a file
PYTEST := $(VENV)/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo lint quick test docs tools format clean
demo: $(STAMP)
	$(VENV)/bin/flow demo

lint: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Without compilers, notebooks and what takes long; a test that starts a program all the same fails there.
quick: lint
	FLOW_QUICK=1 $(PYTEST) -m 'not tool and not slow' tests

test: lint
	$(PYTEST)

# What the tests use beside g++, of Debian's packages: tclsh for the vendor's scripts, a real sshd that plays workstations
# and boards. Without them those tests are skipped, and say so. `make test` itself installs nothing outside .venv.
tools:
	@{ command -v tclsh && PATH="$$PATH:/usr/sbin" command -v sshd && command -v ssh; } >/dev/null || { \
	  root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$root apt-get update -q && $$root apt-get install -qy --no-install-recommends openssh-server openssh-client tcl; }

# The docs and the Python API as one site, in site/. A broken link fails (not with mkdocs --quiet: that counts no warning).
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "docs: site/index.html; with the search: python3 -m http.server -d site"

$(VENV)/.docs-installed: $(STAMP)
	$(PIP) -e '.[docs]'
	touch $@

format: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "set-up: python must be 3.11 or newer, not $$($(PYTHON) --version 2>&1); name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "set-up: python must bring venv and pip; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "set-up: installing the pinned packages into $(VENV) (once; a few minutes)"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_WHEELS),--find-links $(TORCH_WHEELS)) torch
	$(PIP) -e '.[dev,notebooks,open]'
	# --no-deps: its wheel asks for one build of torch, and the tests need its model definitions alone
	$(PIP) $(if $(TORCH_WHEELS),--find-links $(TORCH_WHEELS)) --no-deps torchvision pillow
	touch $(STAMP)

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache dist site
