# make demo  - the shipped bundle drives the simulated robot through real ROS 2 nodes
# make test  - everything that CI runs
# make test-slow - the tests that train or drive for long, and the tutorials: some ten minutes more
# make docs  - the documentation as a site in build/site
# Each makes .venv and installs what it needs, on a machine with python3 (3.10 to 3.14), its venv
# module and make; no ROS installation.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# pip compiles on one core.
COMPILE := $(BIN)/python -c 'import compileall, sysconfig; \
  compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)'
INPUTS := setup.py package.xml pyproject.toml constraints.txt

# ROS 2 stays on this computer in everything started from here.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.PHONY: demo test docs site setup lint type imports pytest bench-tick bench-train format clean

demo: $(VENV)/.runtime
	$(BIN)/mlsh demo --overwrite

test: setup
	$(MAKE) --jobs=3 --output-sync=target lint type imports site
	$(MAKE) pytest

# The reference pages, which are written from the code, and the site.
docs: setup
	$(BIN)/python -m tests.support.reference
	$(MAKE) site
	@echo "build/site/index.html; with a search: $(BIN)/python -m http.server -d build/site"

setup: $(VENV)/.all

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# mkdocs.yml makes every warning an error, among them a link to a page or heading that there is not.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What is judged by the clock mostly waits, so that three of its like may run at a time, but nothing
# else; and again if a core was seen to stand still meanwhile (tests/support/stalls.py).
pytest: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not realtime and not slow'
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'realtime and not slow' --reruns 2 --only-rerun MachineStallError

test-slow: setup
	$(INSTALL) -e '.[trainers]'
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Alone on the machine; nothing else may run while it measures.
bench-tick: setup
	$(BIN)/python -m tests.benchmarks.tick
	$(BIN)/python -m tests.benchmarks.ros

bench-train: setup
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.train

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A pip of 2023 takes twice as long to find out what to install.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(VENV)/.runtime: $(VENV)/bin/python $(INPUTS)
	$(INSTALL) --no-compile -e '.[ros,sim]'
	$(COMPILE)
	touch $@

$(VENV)/.all: $(VENV)/bin/python $(INPUTS)
	$(INSTALL) --no-compile -e '.[ros,train,dev]'
	$(COMPILE)
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache
