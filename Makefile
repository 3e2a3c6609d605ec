# Two commands matter: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := arap_diff dataset_builder segmodel editing fitting
EDITABLE := $(foreach p,$(PACKAGES),-e packages/$(p))

export OMP_WAIT_POLICY = PASSIVE
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: install demo test lint types imports tests isolated docs wheels alone lowest coverage mutants clones clean

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

# The manual, strictly, into site/; the tests build it too.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

# The six distributions, as they would be published, into dist/.
wheels: install
	rm -rf dist
	for home in $(PACKAGES:%=packages/%) .; do $(BIN)/python -m build --no-isolation --outdir dist $$home || exit 1; done
	$(BIN)/python -m twine check --strict dist/*

# How long a stranger with torch waits for arap_diff's first example.
alone: install
	$(BIN)/python tests/packaging/wheel_alone.py

# Each package's tests with the lowest versions it allows.
lowest: install
	$(BIN)/python tests/packaging/lowest_versions.py $(PACKAGES)

# What the tests of each package do not run of it. Compiled kernels are not traced: docs/coverage.md.
coverage: install
	for package in $(PACKAGES) flows; do $(BIN)/python -m pytest -q tests/$$package --cov=$$package --cov-report=term || exit 1; done

# Would the tests notice a wrong operator? Two hours on two cores; docs/coverage.md has the figures.
MUTATE := $(BIN)/python tests/mutation.py --jobs 2
mutants: install
	$(MUTATE) packages/arap_diff/src/arap_diff/mesh.py tests/arap_diff/test_laplacian.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_bad_input.py tests/arap_diff/test_laws.py tests/arap_diff/test_random_meshes.py
	$(MUTATE) packages/arap_diff/src/arap_diff/rotations.py tests/arap_diff/test_rotations.py tests/arap_diff/test_bad_input.py
	$(MUTATE) packages/arap_diff/src/arap_diff/solver.py tests/arap_diff/test_solver.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_bad_input.py tests/arap_diff/test_laws.py tests/arap_diff/test_iterations.py tests/arap_diff/test_converged.py tests/arap_diff/test_gradients.py tests/arap_diff/test_torch_tier.py tests/arap_diff/test_saving.py
	$(MUTATE) packages/arap_diff/src/arap_diff/_numpy_kernels.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_laws.py tests/arap_diff/test_gradients.py tests/arap_diff/test_iterations.py tests/arap_diff/test_converged.py tests/arap_diff/test_rotations.py tests/arap_diff/test_solver.py
	$(MUTATE) packages/arap_diff/src/arap_diff/_numba_kernels.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_gradients.py tests/arap_diff/test_solver.py --sample 30
	$(MUTATE) packages/arap_diff/src/arap_diff/_numba_rotations.py tests/arap_diff/test_rotations.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_gradients.py --sample 30
	$(MUTATE) packages/arap_diff/src/arap_diff/_numba_supernodes.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_solver.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_numba_blocks.py tests/arap_diff/test_rotations.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_solver.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_torch_kernels.py tests/arap_diff/test_torch_tier.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_gradients.py tests/arap_diff/test_rotations.py --sample 30
	$(MUTATE) packages/arap_diff/src/arap_diff/_alternation.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_gradients.py tests/arap_diff/test_solver.py tests/arap_diff/test_converged.py tests/arap_diff/test_iterations.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_autograd.py tests/arap_diff/test_gradients.py tests/arap_diff/test_transforms.py tests/arap_diff/test_converged.py tests/arap_diff/test_rotations.py tests/arap_diff/test_solver.py tests/arap_diff/test_torch_tier.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_anderson.py tests/arap_diff/test_iterations.py tests/arap_diff/test_converged.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_gmres.py tests/arap_diff/test_iterations.py tests/arap_diff/test_converged.py --sample 25
	$(MUTATE) packages/arap_diff/src/arap_diff/_implicit.py tests/arap_diff/test_iterations.py tests/arap_diff/test_converged.py --least 0.75
	$(MUTATE) packages/arap_diff/src/arap_diff/_factor.py tests/arap_diff/test_textbook_twin.py tests/arap_diff/test_saving.py tests/arap_diff/test_solver.py tests/arap_diff/test_torch_tier.py --sample 25
	$(MUTATE) packages/fitting/src/fitting/_raster.py tests/fitting/test_raster.py tests/fitting/test_camera.py tests/fitting/test_interpolation.py --sample 100
	$(MUTATE) packages/fitting/src/fitting/_antialias.py tests/fitting/test_interpolation.py tests/fitting/test_render_chain.py tests/fitting/test_raster.py --sample 60
	$(MUTATE) packages/editing/src/editing/measurements.py tests/editing/test_measurements.py

# The README's two commands in two fresh clones of the last commit.
clones:
	tests/packaging/fresh_clones.sh $(PYTHON)

clean:
	rm -rf $(VENV) runs out site dist
