# Two commands on a fresh machine with Python 3.11+ and pip: make demo, make test.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: demo test lint types torture test-nfs bench bench-quick docs clean

demo: $(VENV)/.runtime
	@sh examples/demo.sh $(VENV)/bin/jobdb

test: $(READY)
	$(PY) -m pytest -q -n 4 --dist loadfile $(TESTS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy --strict jobdb cli

torture: $(READY)
	$(PY) -m pytest -q -s -o timeout=0 tests/torture
	JOBDB_INTERRUPT_STRIDE=1 $(PY) -m pytest -q -o timeout=0 tests/crash/test_interrupts.py \
		tests/crash/test_interrupted_commands.py tests/postgresql/test_postgresql_interrupts.py

# A real kernel NFS client in a small virtual machine; as root on Debian. About 15 minutes without KVM.
test-nfs: $(READY)
	apt-get install -y -qq --no-install-recommends qemu-system-x86 mmdebstrap zstd >/dev/null
	JOBDB_TEST_NFS=1 $(PY) -m pytest -q -s -o timeout=0 tests/nfs

# The workers first: the report of the rest takes their results in.
bench: $(VENV)/.bench
	$(PY) -m benchmarks.workers
	$(PY) -m benchmarks

bench-quick: $(VENV)/.bench
	$(PY) -m benchmarks.workers --quick
	$(PY) -m benchmarks --quick

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/pip pyproject.toml
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(READY): $(VENV)/bin/pip pyproject.toml
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@sh tests/services.sh $(PY)
	@touch $@ $(VENV)/.runtime

$(VENV)/.bench: $(READY)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
	@[ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
		apt-get install -y -qq --no-install-recommends parallel redis-server >/dev/null 2>&1 || \
		echo "note: apt-get could not install parallel and redis-server"
	@touch $@

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

clean:
	rm -rf $(VENV) build site dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
