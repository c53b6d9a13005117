# Verbs of the project. `demo` and `test` need nothing but make and Python 3.11 or newer: they build
# their own virtual environment, once, and again only after pyproject.toml has changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CORE := $(VENV)/.installed-core
TEST := $(VENV)/.installed-test
DOCS := $(VENV)/.installed-docs
# What runs by itself; the other files are helpers. A benchmark that lacks its data ends with 77.
BENCHMARKS = $(sort $(shell grep -l __main__ benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs clean

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

demo: $(CORE) ## ask the embedded model under a budget, then draw what accuracy costs
	@$(BIN)/python examples/demo.py

test: $(TEST) ## everything CI does: checks, all tests, then the fast blocks of README and docs
	@$(BIN)/outthink pull || echo "the embedded model cannot be had here; its tests will be skipped"
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n auto -m 'not timing' --durations=10
	$(BIN)/python -m pytest -n 0 -m timing --durations=10
	$(BIN)/python docs/marked.py --fast

lint: $(TEST) ## style, types, layers, and whether generated text is up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

bench: $(TEST) ## run every benchmark in turn; results go to benchmarks/results
	@for script in $(BENCHMARKS); do \
	  echo "== $$script"; code=0; $(BIN)/python $$script || code=$$?; \
	  if [ $$code -ne 0 ] && [ $$code -ne 77 ]; then exit $$code; fi; \
	done

docs: $(DOCS) ## refresh generated text and build the site in docs/_build/html
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html

clean: ## remove caches and builds; the virtual environment stays
	rm -rf docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "outthink needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "this Python cannot build virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# pip reads dependency groups (PEP 735) from 25.1 on.
define install
	@echo "installing into $(VENV): $(1)"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install $(1)
	@touch $@
endef

$(CORE): pyproject.toml | $(BIN)/python
	$(call install,--editable '.[local$(comma)calibrate$(comma)report]')

$(TEST): pyproject.toml | $(BIN)/python
	$(call install,--editable '.[local$(comma)datasets]' --group test --group lint)

$(DOCS): pyproject.toml | $(BIN)/python
	$(call install,--editable '.[local$(comma)datasets]' --group test --group lint --group docs)
	@touch $(TEST)

comma := ,
