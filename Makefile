# Each target but gpu installs what it needs into .venv.

PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
BIN := $(VENV)/bin
RUN = runs/make/patterns-$(shell date +%Y%m%d-%H%M%S)

.PHONY: run test-fast test test-slow coverage lint docs bench gpu clean

run: $(VENV)/ready
	@out=$(RUN); while [ -e $$out ]; do sleep 1; out=runs/make/patterns-$$(date +%Y%m%d-%H%M%S); done; \
	$(BIN)/plastic train patterns --out $$out && \
	page=$$($(BIN)/plastic report $$out) && echo "report: $$page"

PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-fast: $(VENV)/ready
	$(PYTEST) -m "not slow and not gpu and not children and not thorough"

test: $(VENV)/ready
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(VENV)/ready
	$(PYTEST) -m slow

coverage: $(VENV)/ready
	$(PYTEST) -m "not slow and not gpu" --cov --cov-report term:skip-covered

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site: site/index.html"

bench: $(VENV)/ready
	$(BIN)/plastic bench

gpu:
	$(PYTHON) benchmarks/gpu.py

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

$(VENV)/docs: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache dist site
