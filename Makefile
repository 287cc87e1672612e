# Two commands on a fresh clone, nothing else needed first: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# every process would compile the libraries anew if Python were told to keep no bytecode
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test docs readme clean

demo: $(VENV)/.installed
	$(BIN)/waddington demo --out runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/pytest

docs: $(VENV)/.installed-dev
	$(BIN)/python .ci/docs.py

readme: $(VENV)/.installed-dev
	$(BIN)/python .ci/readme.py

$(VENV)/.installed: settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs _docs _proc
