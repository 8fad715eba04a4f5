# Every target makes the environment when it is missing: on a fresh machine `make test` or `make serve` is all.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
GOLDEN ?= tests/data/golden
export HF_HUB_OFFLINE = 1

.PHONY: serve test slow lint parity parity-official bench faults browser screenshots clean

serve: .venv/ready
	$(BIN)/python -m service serve --port $(PORT)

# One thread a test, one test file a core: torch and the tests do not fight over the cores.
test: export OMP_NUM_THREADS = 1
test: .venv/ready browser
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Chromium and axe-core for the playground's tests, where they may be installed; else it says what is skipped.
browser: .venv/ready
	@$(BIN)/python -m tests.browser

# The playground as a visitor sees it, state by state: build/screenshots/*.png.
screenshots: .venv/ready browser
	$(BIN)/python -m tests.screenshots

slow: .venv/ready
	$(BIN)/python -m pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

parity: .venv/ready
	$(BIN)/python -m tests.parity $(GOLDEN)

parity-official: .venv/ready .venv-official/ready
	rm -rf build/official && mkdir -p build/official
	.venv-official/bin/python -W ignore -m tests.official.reference build/official
	$(BIN)/python -m tests.official build/official

bench: .venv/ready
	$(BIN)/python -m tests.bench

# `make faults FAULTS=--short` for CI, `FAULTS="--only 1b --scale 0.1"` for one of them.
faults: .venv/ready
	$(BIN)/python -m tests.faults $(FAULTS)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ".[train,test]"
	touch $@

# The original packages, which need NumPy 1, transformers 4 and torchvision.
.venv-official/ready: pyproject.toml
	$(PYTHON) -m venv .venv-official
	.venv-official/bin/python -m pip install --quiet "torch==2.13.0" "numpy==1.26.4" ".[official]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
