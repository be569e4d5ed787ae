# Two commands: `make train` (a first run on real images) and `make test` (what CI runs). Both set up .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: train test lint bench faults setup

train: setup
	@echo "== training recipe=quickstart: photographs, 2 views, identity + manipulation (a few minutes on 2 cores)"
	$(BIN)/stec-train recipe=quickstart

# A thread for each of the two processes: two threads each would wait for one another on two cores.
test: setup lint
	@echo "== tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	@echo "== lint"
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== types"
	$(BIN)/mypy
	@echo "== import rules"
	$(BIN)/lint-imports

# The table of docs/benchmarks.md, beside its peers (about 1 GB more): 20 minutes on two cores that nobody else uses.
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,bench]'
	$(BIN)/python tools/bench --write

# docs/faults.md, from what the tests of tests/faults see (those that `make test` leaves out as well).
faults: setup
	rm -f docs/faults.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -m "slow or not slow" --write-faults

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up .venv (first time: a few minutes and about 5 GB, most of it torch)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
