# `make help` lists the targets.
FANLINE := .venv/bin/fanline
PYTHON_BIN := .venv/bin/python
export PYTHON
# With ARGS, for example ARGS='-k streaks', one half of the tests may have nothing to run, which pytest ends with 5.
# Tests that use the stack run one after the other, as there is one; all others side by side.
NONE_CHOSEN = $(if $(ARGS),|| test $$? -eq 5)

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo up down status test lint bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

bootstrap: ## make .venv with the locked dependencies, once
	@sh stack/bootstrap.sh

demo: bootstrap ## start everything, load a network, compare every timeline with SQL
	@$(FANLINE) demo

up: bootstrap ## start servers, connectors, dataflows and the API, and leave them running
	@$(FANLINE) up

down: bootstrap ## stop what runs, in an order that loses nothing
	@$(FANLINE) down

status: bootstrap ## show what runs, where, with memory and logs
	@$(FANLINE) status

test: bootstrap ## unit, simulation and integration tests, these on a stack of their own
	@$(PYTHON_BIN) -m pytest -n auto -m 'not stack' $(ARGS) $(NONE_CHOSEN)
	@$(PYTHON_BIN) -m pytest -m stack $(ARGS) $(NONE_CHOSEN)

lint: bootstrap ## ruff, mypy --strict and the import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: bootstrap ## the benchmarks, each against a ceiling measured in the same run
	@$(PYTHON_BIN) -m benchmarks
