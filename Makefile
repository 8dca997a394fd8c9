# Everything sets itself up in .venv from requirements.lock; a machine needs Python >= 3.11, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHIPPING := $(VENV)/.shipping
FUZZ := $(VENV)/.fuzz
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test thorough rollout fuzz lint format docs shipping lock bench clean

help: ## Show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## Set up .venv, and nothing else

demo: $(STAMP) ## Run the story: Valkey, simulator, gateway and a day's work (ARGS=--once to end it)
	@$(BIN)/eligibility-gateway demo $(ARGS)

test: $(STAMP) ## Run the tests (ARGS="-k name" to choose)
ifeq ($(strip $(ARGS)),)
	$(call in-two-parts,-m "not long")
else
	@$(BIN)/python -m pytest $(ARGS)
endif

thorough: $(STAMP) ## Run the tests, also those that take long
	$(call in-two-parts,)

# Three files at a time, for a test mostly waits; those that give Redis a quarter of a second, or measure, have it to themselves.
define in-two-parts
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(1) --ignore tests/faults --ignore tests/bench
	@$(BIN)/python -m pytest $(1) tests/faults tests/bench
endef

rollout: $(SHIPPING) ## Roll three replicas out as the chart does, in real minutes (the tests do it ten times as fast)
	@ROLLOUT_SPEED=1 $(BIN)/python -m pytest tests/rollout -k loses_no

fuzz: $(FUZZ) ## Throw bytes at all that reads what a caller sent (ARGS="--seconds 3600")
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(STAMP) ## Check style, types and the generated docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tools/generate_docs.py --check

format: $(STAMP) ## Rewrite the code in the house's style
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .

docs: $(STAMP) ## Rewrite what is generated in docs/, policies/ and helm/
	@$(BIN)/python tools/generate_docs.py

shipping: $(SHIPPING) ## Install what the tests of chart, manifests and Dockerfile need (400 MB)

lock: $(STAMP) ## Rewrite the lock files from pyproject.toml
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet uv==0.13.9
	@$(BIN)/python tools/lock.py

bench: $(STAMP) ## Measure the gateway beside its peers (ARGS="replay --runs 5")
	@$(BIN)/python -m bench $(ARGS)

clean: ## Remove what the other targets made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# Without pip in the venv: Debian's python3 may lack ensurepip, and pip can install into another interpreter.
$(STAMP): requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv --without-pip --clear $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(SHIPPING): requirements-shipping.lock $(STAMP)
	@echo "adding what looks at chart, manifests and Dockerfile to $(VENV) (once) ..."
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(FUZZ): requirements-fuzz.lock $(STAMP)
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
