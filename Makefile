# Two commands on a fresh machine with Python >= 3.11, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLOTS := $(VENV)/.plots

.PHONY: demo test check lint types layers docs format lock bench-throughput bench-scoreboard clean chaos

demo: $(STAMP)  ## the main job end to end: embedded Valkey, simulated gateway, a real worker
	$(BIN)/responses-worker demo

test: $(STAMP)  ## every test that needs nothing but this machine, in under 4 minutes on 2 cores
	$(BIN)/pytest -n 2

check: lint types layers test  ## what CI runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/basedpyright

layers: $(STAMP)
	$(BIN)/lint-imports

docs: $(STAMP)  ## rewrites the README's tables from the code
	$(BIN)/python tests/support/tables.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP)  ## after a change of dependencies in pyproject.toml
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet \
		--extra demo --group dev --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet \
		--extra worker --output-file requirements-worker.lock pyproject.toml
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet \
		--group plots --constraints requirements.lock --output-file bench/requirements.lock

chaos: $(STAMP)  ## kills, drains, Redis restarts, cut networks; then the books; ARGS="--seeds 1 --requests 300" for less
	$(BIN)/python tests/chaos/driver.py $(ARGS)

bench-throughput: $(STAMP)
	$(BIN)/python bench/throughput.py

bench-scoreboard: $(PLOTS)  ## 429s, lost requests and time against ideal, per scenario; hours; ARGS="--quick" for less
	$(BIN)/python bench/scoreboard.py $(ARGS)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "responses-worker needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(PLOTS): $(STAMP) bench/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r bench/requirements.lock
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

CHART_TOOLS := $(VENV)/.chart-tools

test-helm: $(CHART_TOOLS)  ## the chart with Helm 3 and 4, its scaling on a real Valkey, rules, dashboard, Dockerfile
	$(BIN)/pytest helm/tests/chart

test-image: $(CHART_TOOLS)  ## builds the image, runs it locked down and as the chart renders it; as root, else skipped
	$(BIN)/pytest --timeout 900 helm/tests/image

bench-autoscale: $(CHART_TOOLS) $(PLOTS)  ## pods, cost, 429s and waiting of three ways to scale, simulated
	$(BIN)/python bench/autoscale.py

$(CHART_TOOLS): $(STAMP) helm/tests/requirements.lock helm/tests/binaries.lock $(wildcard helm/tests/chart/kinds/*)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r helm/tests/requirements.lock
	$(BIN)/python helm/tests/chart/toolbox.py
	touch $@

.PHONY: test-helm test-image bench-autoscale

BUGSINK := $(VENV)/bugsink/.installed

test-sentry: $(BUGSINK)  ## grouping, levels and tags as a real Sentry-compatible server, Bugsink, sees them
	$(BIN)/pytest tests/bugsink

demo-oncall: $(STAMP)  ## an outage, a revoked key and their repair: the log, the alarms, the issue list
	PYTHONPATH=tests $(BIN)/python examples/oncall.py

bench-telemetry: $(STAMP)  ## what watching costs, and what a storm, a lost Redis and a lost Sentry do
	$(BIN)/python bench/telemetry.py

$(BUGSINK): $(STAMP) tests/bugsink/requirements.lock
	$(BIN)/uv venv --quiet --clear $(VENV)/bugsink
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(VENV)/bugsink/bin/python \
		-r tests/bugsink/requirements.lock
	touch $@

.PHONY: test-sentry demo-oncall bench-telemetry

INTEROP := $(VENV)/interop/.installed

test-interop: $(INTEROP)  ## Node asks and reads; AsyncAPI's own parser reads the contract; skipped where npm is missing
	$(BIN)/pytest tests/interop

$(INTEROP): $(STAMP) tests/interop/kits.py $(wildcard examples/node/package*.json tests/interop/asyncapi/package*.json)
	$(BIN)/python tests/interop/kits.py
	touch $@

test-faults: $(STAMP)  ## what takes minutes: kills, drains, poison, junk by the thousand, Redis away; large batches cut short
	$(BIN)/pytest tests/faults

bench-deltas: $(STAMP)  ## how old a token is when a client sees it, with 100 streams at once
	$(BIN)/python bench/deltas.py

bench-batch: $(STAMP)  ## memory of the batch client over a file of 50,000 lines
	$(BIN)/python bench/batch_memory.py

.PHONY: test-interop test-faults bench-deltas bench-batch

LITELLM := $(VENV)/litellm/.installed

test-gateway: $(LITELLM)  ## the simulator's faults through LiteLLM's proxy: which codes survive its translation
	$(BIN)/pytest -s --timeout 600 tests/thirdparty

$(LITELLM): $(STAMP)  # neither in CI nor in our locks; never 1.107.0, whose release was compromised
	$(BIN)/uv venv --quiet --clear $(VENV)/litellm
	$(BIN)/uv pip install --quiet --python $(VENV)/litellm/bin/python 'litellm[proxy]==1.106.2'
	touch $@

.PHONY: test-gateway
