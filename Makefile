# Two commands matter: `make demo` and `make test`. Each prepares .venv itself, from git,
# Python >= 3.11 and make alone; nothing needs root or a model hub.
.DELETE_ON_ERROR:

BIN := .venv/bin
READY := .venv/.prepared

.PHONY: help install demo up test check lock clean

help:
	@echo "make demo     three domains, a real model, seven scenes, receipts verified offline"
	@echo "make up       the same federation, kept running; writes run/up.json"
	@echo "make test     the whole suite"
	@echo "make check    lint, format, types, import contracts, locks"
	@echo "make install  prepare .venv and nothing else"
	@echo "make lock     resolve the packages anew (asks the package index)"
	@echo "make clean    remove .venv, run/ and caches"

install: $(READY)

$(READY): requirements.lock requirements-source.lock requirements-model.lock pyproject.toml .ci/prepare.py
	@python="$$(sh .ci/python)" && "$$python" .ci/prepare.py

demo: $(READY)
	@$(BIN)/python -m examples.demo $(ARGS)

up: $(READY)
	@$(BIN)/python -m examples.up $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy conftest.py .ci/lock.py .ci/prepare.py
	$(BIN)/lint-imports
	$(BIN)/python .ci/lock.py check

lock: $(READY)
	$(BIN)/python .ci/lock.py write

clean:
	rm -rf .venv run dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
