# Every target starts from python3, gcc and make alone: it makes .venv and installs what it needs.
# A stamp per group of dependencies keeps the second run quick.

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps

# The tests start thousands of processes: compiled once, not in each of them, whatever the machine says.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

.PHONY: test demo bench fuzz soak lint format docs clean

# How many processes run the tests; most of them wait for others to start, work and end.
WORKERS ?= 3
test: $(STAMPS)/dev $(STAMPS)/demo lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMPS)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(STAMPS)/demo
	$(BIN)/python examples/flights.py

bench: $(STAMPS)/bench
	$(BIN)/python -m benchmarks
	$(BIN)/python benchmarks/message_queue.py

# Kills processes at random and after every few instructions, for as long as ROUNDS say.
ROUNDS ?= 200
SERVICE_ROUNDS ?= 44
fuzz: $(STAMPS)/dev
	PYTHONPATH=tests $(BIN)/python -m transport.kill_fuzz --rounds $(ROUNDS)
	PYTHONPATH=tests $(BIN)/python -m transport.single_step --stride 7
	PYTHONPATH=tests $(BIN)/python -m recovery.kill_sweep --rounds $(ROUNDS)
	PYTHONPATH=tests $(BIN)/python -m recovery.kill_sweep --rounds $(ROUNDS) --formats
	PYTHONPATH=tests $(BIN)/python -m recovery.watch_kills --rounds 5 --kills 20 --parallelism 2
	PYTHONPATH=tests $(BIN)/python -m recovery.worker_kills --kills $(ROUNDS) --records 9000000
	PYTHONPATH=tests $(BIN)/python -m recovery.worker_kills --kills $(ROUNDS) --records 9000000 --apart
	PYTHONPATH=tests $(BIN)/python -m recovery.worker_kills --kills $(ROUNDS) --loop
	PYTHONPATH=tests $(BIN)/python -m kafka.kill_exactly_once --kills 100 --restarts 10
	PYTHONPATH=tests $(BIN)/python -m kafka.kill_exactly_once --kills 20 --restarts 10 --brokers 3
	PYTHONPATH=tests $(BIN)/python -m service.storm.kill_fuzz --rounds $(SERVICE_ROUNDS) --kills 60

# Runs a job at full speed and watches that memory, open files and latency stay flat.
SOAK_SECONDS ?= 300
soak: $(STAMPS)/dev
	PYTHONPATH=tests $(BIN)/python -m recovery.soak --seconds $(SOAK_SECONDS)

docs: $(STAMPS)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site build dist

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SAGE needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/package: $(STAMPS)/venv pyproject.toml setup.py $(wildcard src/sage/kernel/transport/*.[ch])
	$(BIN)/pip install --quiet --editable .
	touch $@

$(STAMPS)/%: $(STAMPS)/package
	$(BIN)/pip install --quiet --group $*
	touch $@
