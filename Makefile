# make demo: the main job on real input.  make parity: the tests.  make example: a training that goes on in other
# frameworks.  All set up .venv first, once; with VENV= they take PYTHON and its packages as they are.
# make pairs CORPUS=FOLDER: derive() on real pairs of models, in an environment of their packages, .pairs.
PYTHON ?= python3
VENV := .venv
READY := $(if $(VENV),$(VENV)/.ready)
RUN := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))
# Python compiles what it imports; pip would compile every file of all packages, which takes half of the time.
INSTALL := $(if $(VENV),$(RUN) -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e,@echo VENV= installs nothing:)
ifeq ($(VENV),)  # nothing is installed: the project is found where it lies
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
endif
unexport PYTHONDONTWRITEBYTECODE  # else each process of the tests would compile the frameworks that it imports again
DEVICE ?= cpu
# Processes of tests. Beside a GPU there are as many as cores, up to 8; they share it, as none takes its memory ahead.
CORES = $(shell $(RUN) -c 'import os; print(min(os.cpu_count(), 8))')
WORKERS ?= $(if $(filter cpu,$(DEVICE)),2,$(CORES))
FUZZ ?= 60

.PHONY: demo parity example lint bench fuzz pairs clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[all,dev]'
	@touch $@

demo: $(READY)
	@$(RUN) -W ignore -m parity.demo parity_tests/goldens/flax_mixer

parity: $(READY)
	PARITY_DEVICE=$(DEVICE) $(RUN) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

example: $(READY)
	$(INSTALL) '.[examples]'
	$(RUN) -W ignore examples/digits.py $(if $(DATA),--data '$(DATA)')

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(READY)
	$(RUN) -W ignore -m benchmarks

fuzz: $(READY)
	$(INSTALL) '.[fuzz]'
	$(RUN) -m parity_tests.fuzz $(FUZZ)

.pairs/.ready: pyproject.toml
	@test -e '$(CORPUS)/requirements.txt' || { echo 'make pairs CORPUS=FOLDER [PAIRS="NAME ..."]: FOLDER holds the corpus' >&2; exit 2; }
	$(PYTHON) -m venv .pairs
	.pairs/bin/pip install --quiet --disable-pip-version-check -r '$(CORPUS)/requirements.txt' -e .
	.pairs/bin/pip install --quiet --disable-pip-version-check --no-deps -r '$(CORPUS)/requirements-nodeps.txt'
	@touch $@

pairs: .pairs/.ready
	@OMP_NUM_THREADS=1 JAX_PLATFORMS=cpu .pairs/bin/python benchmarks/pairs/run.py '$(CORPUS)' $(PAIRS) > .pairs/results.jsonl
	@.pairs/bin/python benchmarks/pairs/run.py --markdown .pairs/results.jsonl

clean:
	rm -rf $(VENV) .pairs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
