# `make run` and `make test` set up what they need, once, in .venv; RECIPE and ARGS go to the run.
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
run: $(VENV)/.installed
	$(VENV)/bin/kerasline run $(RECIPE) $(ARGS)

# Three processes for two cores, for many tests wait for processes of their own. A file stays together, in
# the order of their names: by the number of tests, as xdist would have it, the few long ones come last, one by one.
# A process that dies ends the run: xdist would start another one, and then wait for ever for the dead one's files.
PYTEST := $(PYTHON) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

test: $(VENV)/.installed
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.installed
	$(PYTEST) -m "" $(ARGS)

# Formatting, lint and types. mypy knows no `package_dir`, so it is given the tree that an installed kerasline has.
TYPED := build/types/kerasline
check: $(VENV)/.installed
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	@rm -rf $(TYPED) && mkdir -p $(TYPED) \
	&& ln -s $(CURDIR)/kerasline/* $(CURDIR)/components $(CURDIR)/pipeline $(CURDIR)/schemas $(TYPED)
	cd $(TYPED)/.. && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/setup.cfg --package kerasline

# The reference of the public API, from its docstrings.
docs: $(VENV)/.installed
	$(PYTHON) -m pdoc --docformat google --output-directory build/api \
		kerasline kerasline.layers kerasline.features kerasline.metrics

install: $(VENV)/.installed

# Made anew as a whole when setup.cfg changes; the mark is set last, so a broken install is redone.
$(VENV)/.installed: setup.cfg pyproject.toml
	@python=$$($(FIND_PYTHON)) && echo "setting up $(VENV) with $$python ($(DEVICE)); this happens once" \
	&& { test -x $(PYTHON) || $$python -m venv $(VENV); } \
	&& $(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade pip \
	&& $(PYTHON) -m pip install -qq --disable-pip-version-check --editable '.[$(DEVICE),penguins,serve,test]' \
	&& $(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps $(GENUINE_CLIENT) \
	&& touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis
