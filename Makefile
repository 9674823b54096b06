# make demo: the whole job on simulated data.  make test: lint, types, contracts, quick tests.
# make test-slow: everything else that this machine can run within minutes, a Slurm of its own included.
# make docs: the documentation site, into site/; open site/index.html.
# make test-long: what takes hours: fresh seeds, many kills, benches at their smallest size. Not part of CI.
PYTHON ?= python3
BIN := .venv/bin
TODAY := $(shell date +%Y%m%d)
EXTRAS := dev,docs,edf,fast,mne,report,search,trackers,weights

.PHONY: help setup demo test test-slow test-long lint docs clean

help:
	@sed -n 's/^# //p' Makefile

setup: .venv/ready

.venv/ready: hms_dist/core/patch_torchvision.py constraints.txt setup.py setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/pip install -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m hms_dist.core.patch_torchvision
	touch $@

demo: setup
	scripts/demo.sh

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile -m "not slow and not gpu and not slurm and not browser and not real_data and not long"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "(slow or gpu or slurm or browser or real_data) and not long"

test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --seed fresh -m long
	$(BIN)/python scripts/fresh_seeds.py --jobs 2
	$(BIN)/python scripts/mutations.py --seed $(TODAY) --number 40 --out mutations-$(TODAY).jsonl

clean:
	rm -rf demo site .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
