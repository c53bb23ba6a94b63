# Needs Python 3.11+ and make; everything else is installed into .venv by the first target that wants it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/installed-dev ## see callbacks arrive, get lost and be recovered, against a stand-in for upstream
	@$(BIN)/python -m tests.demo

.PHONY: run
run: .env migrate ## run the receiver and the reconciler on this machine, with the settings in .env
	@echo "The status page: http://127.0.0.1:$$(sed -n 's/^PORT=\([0-9]*\).*/\1/p' .env)/ (any user name; the password is API_KEY in .env)"
	@grep -qE '^ACEDATACLOUD_API_TOKEN=[^ #]' .env || [ -n "$$ACEDATACLOUD_API_TOKEN" ] || \
		echo "To be filled in in .env: ACEDATACLOUD_API_TOKEN. Until then callbacks are kept, but nobody asks for lost ones."
	@grep -qE '^PUBLIC_URL=[^ #]' .env || [ -n "$$PUBLIC_URL" ] || \
		echo "To be filled in in .env: PUBLIC_URL, the address under which Ace Data Cloud reaches this machine."
	@$(BIN)/python -m reconcile & reconciler=$$!; trap 'kill $$reconciler 2>/dev/null; wait $$reconciler' EXIT; \
		$(BIN)/gunicorn wsgi:app

.PHONY: test
test: lint ## check style and types, then run all tests
	$(BIN)/python -m pytest

.PHONY: lint
lint: $(VENV)/installed-dev ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: migrate
migrate: $(VENV)/installed .env ## bring the database's schema up to date
	@$(BIN)/flask --app wsgi migrate

# Only where there is none: its secrets are in use.
.env:
	@umask 077 && secret() { $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))'; } && \
		sed -e "s/^CALLBACK_TOKEN=/&$$(secret)/" -e "s/^API_KEY=/&$$(secret)/" .env.example > $@
	@echo "Wrote .env with a fresh CALLBACK_TOKEN and API_KEY."

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Backstop needs Python 3.11 or newer, set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/installed
