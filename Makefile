# make demo  - the shipped bundle drives the simulated robot through real ROS 2 nodes
# make test  - everything that CI runs
# Each makes .venv and installs what it needs, on a machine with python3 (3.10 to 3.14), its venv
# module and make; no ROS installation.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := setup.py package.xml pyproject.toml constraints.txt

# ROS 2 stays on this computer in everything started from here.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.PHONY: demo test setup lint type imports pytest bench-tick bench-train format clean

demo: $(VENV)/.runtime
	$(BIN)/mlsh demo

test: lint type imports pytest

setup: $(VENV)/.all

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# What is judged by the clock runs alone, so that nothing else takes its time.
pytest: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not realtime'
	$(BIN)/python -m pytest -m realtime

# Alone on the machine; nothing else may run while it measures.
bench-tick: setup
	$(BIN)/python -m mlsh_ros.bench.tick
	$(BIN)/python -m mlsh_ros.bench.ros

bench-train: setup
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m mlsh_ros.bench.train

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python $(INPUTS)
	$(INSTALL) -e '.[ros,sim]'
	touch $@

$(VENV)/.all: $(VENV)/bin/python $(INPUTS)
	$(INSTALL) -e '.[ros,train,dev]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache
