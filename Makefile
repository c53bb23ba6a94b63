# Needs Python 3.11+ and make. The first target that needs more installs it into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
CLIENTS := .venv-clients
LOCKED := requirements requirements-dev bench/requirements

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/installed ## see callbacks arrive, get lost and be recovered, against a stand-in for upstream
	@$(BIN)/python -m tests.demo

.PHONY: run
run: $(VENV)/installed .env ## run the whole service on this machine, with the settings in .env
	@$(BIN)/flask --app wsgi next-steps
	@exec $(BIN)/python -m receiver

.PHONY: check
check: lint ## check style and types, then run the tests that need no other processes, without simulated worlds
	$(BIN)/python -m pytest -n auto -m "not processes" --ignore=tests/simulation

.PHONY: test
test: lint $(CLIENTS)/installed ## check style and types, then run all tests
	$(BIN)/python -m pytest -n auto

.PHONY: screenshots
screenshots: $(VENV)/installed-dev ## take every page in both themes, on desktop and phone, into screenshots/; those of the documents into docs/
	$(BIN)/python -m tests.screenshots

.PHONY: chaos
chaos: $(VENV)/installed-dev ## inject faults, kills and forgeries for 10 min; ARGS="--database sqlite --tasks 2000 --minutes 2 --seed 7"
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: simulate
simulate: $(VENV)/installed-dev ## live through 1,000 worlds of faults under virtual time; ARGS="--seeds 1-100000", "--seeds 7", "--planted"
	$(BIN)/python -m tests.simulation $(ARGS)

.PHONY: powercut
powercut: $(VENV)/installed-dev ## cut the power of a machine with SQLite 200 times; ARGS="--rounds 20 --seed 7 --skip-fsync spool"
	$(BIN)/python -m tests.powercut $(ARGS)

.PHONY: restarts
restarts: $(VENV)/installed-dev ## restart 100 times under 200 callbacks a second; ARGS="--form heroku --restarts 10 --rate 100"
	$(BIN)/python -m tests.restarts $(ARGS)

.PHONY: bench
bench: $(BENCH)/installed ## compare with other systems for half an hour, into bench/results; ARGS="--only hot-path --quick"
	$(BENCH)/bin/python -m bench $(ARGS)

.PHONY: lint
lint: $(VENV)/installed-dev ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: hashes
hashes: ## pin the packages of requirements.in and its like with the hashes of all their files; it asks the package index
	@$(PYTHON) -m venv .venv-tools && .venv-tools/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	@for file in $(LOCKED); do \
		.venv-tools/bin/uv pip compile --quiet --no-deps --universal --generate-hashes --no-annotate \
			--custom-compile-command "make hashes" $$file.in --output-file $$file.txt || exit 1; \
	done

.PHONY: migrate
migrate: $(VENV)/installed .env ## bring the database's schema up to date
	@$(BIN)/flask --app wsgi migrate

# Never overwritten: its secrets are in use.
.env:
	@umask 077 && secret() { $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))'; } && \
		sed -e "s/^CALLBACK_TOKEN=/&$$(secret)/" -e "s/^API_KEY=/&$$(secret)/" .env.example > $@
	@echo "Wrote .env with a fresh CALLBACK_TOKEN and API_KEY."

# Installs a requirements file into .venv and reports its progress every 2 s.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Backstop needs Python 3.11 or newer, set PYTHON=...")'
	@$(PYTHON) tests/install.py $(VENV) $(1)
endef

$(VENV)/installed: requirements.txt
	$(call install,requirements.txt)
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt
	$(call install,requirements-dev.txt)
	@touch $@ $(VENV)/installed

# A venv of its own: upstream's published clients, which the tests run as they are.
$(CLIENTS)/installed: tests/clients/requirements.txt
	@$(PYTHON) tests/install.py $(CLIENTS) $<
	@touch $@

# A venv of its own: the systems that the benchmark compares with are not part of Backstop.
$(BENCH)/installed: requirements.txt requirements-dev.txt bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@
