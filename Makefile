# Two commands matter: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := arap_diff dataset_builder segmodel editing fitting
EDITABLE := $(foreach p,$(PACKAGES),-e packages/$(p))

export OMP_WAIT_POLICY = PASSIVE
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: install demo test lint types imports tests isolated clean

install: $(VENV)/.installed

$(VENV)/.installed: constraints.txt pyproject.toml $(wildcard packages/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(EDITABLE) -e '.[dev]'
	touch $@

demo: install
	$(BIN)/neo3df demo

test: lint types imports tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

tests: install
	$(BIN)/python -m pytest -q --durations=10

# Each package's tests in an environment that holds that package alone.
isolated:
	PYTHON=$(PYTHON) tests/isolated.sh $(PACKAGES)

clean:
	rm -rf $(VENV) runs out
