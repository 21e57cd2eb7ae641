# Needs Python 3.11, make and a C compiler; everything else comes into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.8

.DEFAULT_GOAL := help
.PHONY: help install demo test torture golden image serving-lock scan check clean

help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## create .venv with exactly the pinned packages

# uv reads the same places that pip does, and installs in seconds what takes pip minutes.
# Bytecode is compiled here once, or the first import of MONAI alone takes half a minute.
$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing the pinned packages into $(VENV) ..."
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --quiet \
		--python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## the whole life of a model on phantom DICOM
	$(BIN)/lightbox demo

# Three at a time, as they often wait; in the order of their files, or the longest would come last and alone.
test: install  ## the tests
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

torture: install  ## the runner's tests in their long form: thousands of kills, about an hour
	LIGHTBOX_KILLS=5000 LIGHTBOX_SEED=$${LIGHTBOX_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/pipelines/backends tests/test_lifecycle_kills.py

golden: install  ## write anew what the engines get; a review shows what changed
	$(BIN)/python tests/pipelines/golden/renew.py kubeflow
	$(BIN)/python tests/pipelines/golden/renew.py sagemaker

BASE_IMAGE ?= python:3.11-slim

image:  ## the two container images; wheels/ may hold what the index lacks, such as torch for CPUs
	for stage in serving training; do docker build --target $$stage --tag lightbox-$$stage \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg REVISION=$$(git rev-parse HEAD) . || exit 1; done

serving-lock: install  ## pin what the serving image holds, by requirements.lock
	(echo "# The part of requirements.lock that serving needs. Made of requirements-serving.in by: make serving-lock"; \
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip compile --quiet requirements-serving.in \
		--constraint requirements.lock --no-annotate --no-header | sed 's/+cpu$$//') > requirements-serving.lock.new
	mv requirements-serving.lock.new requirements-serving.lock

scan: install  ## known flaws, licences, secrets, workflows, and an SBOM
	.ci/scan_tools
	.ci/scan

check: install  ## style, types, layers, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_docs.py

clean:  ## remove all that the above made
	-@test ! -x $(BIN)/lightbox || for home in .lightbox .lightbox/demo; do \
		LIGHTBOX_HOME=$$home $(BIN)/lightbox endpoint stop >/dev/null 2>&1; done
	rm -rf $(VENV) .checkers .scanners .lightbox .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
