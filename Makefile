# `make run` and `make test` set up what they need, once, in .venv; RECIPE and ARGS go to the run. Running needs less than
# testing: what only tests import is installed before the first test.
#   make run                      the main job: Palmer penguins
#   make run RECIPE=taxi ARGS="--set ExampleGen.input=trips.csv"
#   make test                     the tests; `make test-all` with the slow ones

VENV := .venv
PYTHON := $(VENV)/bin/python
# The GPU build where there is an NVIDIA driver, else the CPU build.
DEVICE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# The newest Python that TensorFlow has wheels for and that really starts.
FIND_PYTHON = for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && { echo $$p; exit 0; }; done; \
	echo "kerasline needs Python 3.11 to 3.13 with venv; none was found on the PATH" >&2; exit 1

# TensorFlow Serving's own client, for the tests; it would bring a second TensorFlow along.
GENUINE_CLIENT := 'tensorflow-serving-api>=2.19,<2.22'

.PHONY: run test test-all check docs install clean
run: $(VENV)/.runs
	$(VENV)/bin/kerasline run $(RECIPE) $(ARGS)

# Three processes for two cores, for many tests wait for processes of their own. A file stays together, in
# the order of their names: by the number of tests, as xdist would have it, the few long ones come last, one by one.
# A process that dies ends the run: xdist would start another one, and then wait for ever for the dead one's files.
PYTEST := $(PYTHON) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

test: $(VENV)/.tests
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.tests
	$(PYTEST) -m "" $(ARGS)

# Formatting, lint and types. mypy knows no `package_dir`, so it is given the tree that an installed kerasline has.
TYPED := build/types/kerasline
check: $(VENV)/.tests
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	@rm -rf $(TYPED) && mkdir -p $(TYPED) \
	&& ln -s $(CURDIR)/kerasline/* $(CURDIR)/components $(CURDIR)/pipeline $(CURDIR)/schemas $(TYPED)
	cd $(TYPED)/.. && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/setup.cfg --package kerasline

# The reference of the public API, from its docstrings.
docs: $(VENV)/.tests
	$(PYTHON) -m pdoc --docformat google --output-directory build/api \
		kerasline kerasline.layers kerasline.features kerasline.metrics

install: $(VENV)/.tests

# Each is made anew as a whole when setup.cfg changes; its mark is set last, so a broken install is redone.
PIP_INSTALL := $(PYTHON) -m pip install -qq --disable-pip-version-check
$(VENV)/.runs: setup.cfg pyproject.toml
	@python=$$($(FIND_PYTHON)) && echo "setting up $(VENV) with $$python ($(DEVICE)); this happens once" \
	&& { test -x $(PYTHON) || $$python -m venv $(VENV); } \
	&& $(PIP_INSTALL) --upgrade pip \
	&& $(PIP_INSTALL) --editable '.[$(DEVICE),penguins,serve]' \
	&& touch $@

$(VENV)/.tests: $(VENV)/.runs
	@echo "adding what the tests need; this happens once" \
	&& $(PIP_INSTALL) --editable '.[$(DEVICE),test]' \
	&& $(PIP_INSTALL) --no-deps $(GENUINE_CLIENT) \
	&& touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis
