# Every target makes the environment when it is missing: on a fresh machine `make test` or `make serve` is all.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
GOLDEN ?= tests/data/golden
export HF_HUB_OFFLINE = 1

.PHONY: serve test slow lint parity bench faults clean

serve: .venv/ready
	$(BIN)/python -m service serve --port $(PORT)

test: .venv/ready
	$(BIN)/python -m pytest

slow: .venv/ready
	$(BIN)/python -m pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

parity: .venv/ready
	$(BIN)/python -m tests.parity $(GOLDEN)

bench: .venv/ready
	$(BIN)/python -m tests.bench

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[train,test]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
