# make demo: the main job on real input.  make parity: the tests.  make example: a training that goes on in other
# frameworks.  All set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEVICE ?= cpu
# Processes of tests: one per core here, none beside the first where they would share an accelerator.
WORKERS ?= $(if $(filter cpu,$(DEVICE)),2,0)
FUZZ ?= 60

.PHONY: demo parity example lint bench fuzz clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python -W ignore -m parity.demo parity_tests/goldens/flax_mixer

parity: $(READY)
	PARITY_DEVICE=$(DEVICE) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST)

example: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[examples]'
	$(BIN)/python -W ignore examples/digits.py $(if $(DATA),--data '$(DATA)')

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -W ignore -m benchmarks

fuzz: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m parity_tests.fuzz $(FUZZ)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
