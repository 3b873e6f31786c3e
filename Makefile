# make demo, make test, make lint: each sets up what it needs in .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := .locks

.PHONY: help install demo test test-all lint lock clean

help:
	@echo "make install   set up .venv for your own photos, and nothing else"
	@echo "make demo   draw a small dataset, train on it, measure, predict (about 5 minutes on two cores)"
	@echo "make test   run the tests"
	@echo "make test-all   with the slow ones, and those of Ray"
	@echo "make lint   ruff and mypy"

install: $(VENV)/installed-imagenet

demo: $(VENV)/installed-imagenet
	$(BIN)/python demo.py

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# With the slow tests and those of a real Ray.
test-all: $(VENV)/installed-ray
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 -m "slow or not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Direct dependencies changed: resolve them again, with hashes. requirements.lock starts anew and bounds the others, which
# keep what they can. The locks change when all are resolved, or not at all.
lock: $(VENV)/installed-dev
	$(BIN)/python -m pip install -q uv
	rm -rf $(LOCKS) && mkdir $(LOCKS) && cp requirements*.txt requirements*.lock $(LOCKS) && : > $(LOCKS)/requirements.lock
	uv="$(abspath $(BIN))/uv"; cd $(LOCKS) && \
	for name in requirements requirements-imagenet requirements-ray requirements-export requirements-dev; do \
	  "$$uv" pip compile -q --no-emit-index-url --no-emit-find-links --no-header --generate-hashes \
	    --python-version 3.11 -c requirements.lock $$name.txt -o $$name.lock || exit; done
	mv $(LOCKS)/*.lock . && rm -r $(LOCKS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed; make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

$(VENV)/installed-imagenet: requirements-imagenet.lock $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-imagenet.lock
	touch $@

$(VENV)/installed-export: requirements-export.lock $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-export.lock
	touch $@

$(VENV)/installed-ray: requirements-ray.lock $(VENV)/installed-dev
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-ray.lock
	touch $@

$(VENV)/installed-dev: requirements-dev.lock | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@ $(VENV)/installed $(VENV)/installed-imagenet

clean:
	rm -rf $(VENV) $(LOCKS) .pytest_cache .mypy_cache .ruff_cache demo
