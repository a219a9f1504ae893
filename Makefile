# make demo   fresh clone -> virtual environment -> the app on http://127.0.0.1:7860
# make test   fresh clone -> virtual environment -> all quick tests, linted, type-checked and with the import rules kept
# make serve  as make demo, and the app comes back by itself whenever it dies
# make audit  known weaknesses of the pinned libraries (asks PyPI)
# make slow   the tests that take minutes, the closed loop in a browser among them

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo serve test slow lint audit clean

demo: $(VENV)/.installed
	$(BIN)/python app.py

serve: $(VENV)/.installed
	$(BIN)/python -m service.keep_running

# Two processes of one thread each took 9.0 minutes on two cores where one with two threads took 15.8.
test: $(VENV)/.installed-dev lint
	$(BIN)/python -m tests.programs.needs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: $(VENV)/.installed-dev
	$(BIN)/python -m tests.programs.needs
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/.installed-dev
	$(BIN)/pip-audit --no-deps --disable-pip -r requirements.txt

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .import_linter_cache .pytest_cache .mypy_cache .ruff_cache
