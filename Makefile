PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench format docs clean

# Everything that is needed, in the versions of constraints.txt: some minutes of downloading, and 3 GB or, where pip takes torch with CUDA, several more.
.venv/installed: pyproject.toml constraints.txt
	@echo 'installing into .venv: a few minutes and 3 GB, more with CUDA'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

## demo: a preview of all transforms, a contact sheet, a training loop on clips, and a tiny pre-training. Minutes on a CPU;
## the first time, installation comes before that.
demo: .venv/installed
	@echo 'demo: previews and a tiny pre-training, some minutes on a CPU'
	mkdir -p demo
	$(BIN)/pmg-preview demo/preview.mp4 --force
	$(BIN)/pmg-preview demo/sheet.png --size 112 --force
	$(BIN)/python docs/examples/training_loop.py
	rm -rf demo/pretraining
	$(BIN)/pmg-pretrain --recipe demo --out demo/pretraining
	cp demo/pretraining/loss.png demo/pretraining/reconstructions.png demo
	@echo
	@echo "demo/preview.mp4  all eight transforms in motion: open it in a browser"
	@echo "demo/sheet.png    the same as a sheet, one row per clip, one column per frame"
	@echo "demo/loss.png     a tiny VideoMAE learns to fill in hidden patches of clips of eight synthetic images"
	@echo "demo/reconstructions.png    four clips: what it was given, what it saw, and what it filled in"

## test: everything that CI runs.
test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

## bench: speed of the renderers beside other libraries; a few minutes.
bench: .venv/installed
	$(BIN)/python -m benchmarks --quick

## format: format the code and fix what the linter can.
format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## docs: build the pages into docs/_build/index.html.
docs: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build
	@echo "docs/_build/index.html"

clean:
	rm -rf .venv demo docs/_build docs/api docs/generated
