# Every target sets up what it needs first; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
ARGS ?=

.PHONY: help setup demo test test-faults test-compose up docs bench lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: ## Debian tools (asks for root only if some are missing), uv, locked environment
	@$(PYTHON) scripts/setup.py

demo: setup ## the main job end to end, on real servers and a real image
	@$(BIN)/python -m demo $(ARGS)

test: setup lint ## the fast suite
	@$(BIN)/pytest -m "not faults and not compose" $(ARGS)

test-faults: setup ## kill every process in turn while jobs run
	@$(BIN)/pytest tests/faults -m faults $(ARGS)

test-compose: setup ## the main job's short form on compose.yaml (needs a Docker engine)
	@$(BIN)/pytest tests/compose -m compose $(ARGS)

up: setup ## leave the embedded stack running; prints URLs, the admin key and how to stop
	@$(BIN)/entrepot up --detach $(if $(DATA),--data $(DATA)) $(ARGS)

docs: setup ## write docs/wire.md and docs/asyncapi.json from the catalogue
	@$(BIN)/python -m entrepot_contracts.documents docs

bench: setup ## the mover against s5cmd and rclone
	@$(BIN)/python -m benchmarks.mover $(ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean: ## remove environments and caches of this tree (not the data of `make up`)
	rm -rf .venv .venv-tools .venv-swift .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
