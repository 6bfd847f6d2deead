# Set-up and daily work. `make` alone lists the targets.
#
# PYTHON=...  the interpreter that .venv is made with (3.11 or newer).
# pip reads its own settings: on Linux, where PyPI's torch is a CUDA build of several gigabytes, set
# PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds to get a small one.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo lab notebooks test check bench learning faults cheetah release-data docs lint audit clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(READY)  ## make .venv with everything that the other targets need

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	    echo "smac_lab needs Python 3.11 or newer, and there is no '$(PYTHON)'. Name one: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "smac_lab needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	         "Name another: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: $(READY)  ## all of SMAC on the point robot, with a report
	$(BIN)/smac-lab demo

lab: $(READY)  ## JupyterLab in notebooks/, for this machine only
	@mkdir -p notebooks
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=notebooks

notebooks: $(READY)  ## run the notebooks and store what they show; NAMES=03 for one
	$(BIN)/python scripts/run_notebooks.py $(NAMES)

test: $(READY)  ## the tests, on all cores
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations=20

check: lint  ## lint, types, layers and the fast tests, in a minute
	$(BIN)/pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile \
	    tests/test_agent.py tests/test_actor_critic.py tests/test_encoder.py tests/test_nets.py \
	    tests/test_reward_model.py tests/test_reference.py tests/test_training.py tests/test_arms.py tests/test_shift.py \
	    tests/test_readme.py tests/data/test_buffer.py tests/engine tests/methods tests/runs/test_checkpoint.py smac_lab

bench: $(READY)  ## speed, as ratios to what the machine can do
	$(BIN)/smac-lab bench

learning: $(READY)  ## the longer checks that training learns
	$(BIN)/pytest -m learning

faults: $(READY)  ## the long checks of faults: killed runs and machines, hostile files
	SMAC_LAB_KILLS=20 $(BIN)/pytest -m "learning or not learning" tests/runs/test_kill.py tests/runs/test_faults.py \
	    tests/runs/test_sweep.py
	$(BIN)/python scripts/fuzz_files.py --mutants 10000

cheetah: $(READY)  ## the cheetah experiment with three seeds
	$(BIN)/smac-lab train cheetah-vel --seed 0 1 2 --out runs/cheetah

release-data: $(READY)  ## data sets of all six domains with data cards, in build/release (hours)
	$(BIN)/python scripts/release_data.py

docs: $(READY)  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/check_links.py build/site
	@echo "wrote build/site/index.html; look at it with $(BIN)/mkdocs serve"

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(READY)  ## known vulnerabilities of the pinned packages; needs PyPI itself, mirrors lack this list
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:  ## remove caches and build products; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache MUJOCO_LOG.TXT
	find smac_lab tests notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
