# Two commands on a fresh machine with Python >= 3.11, git and make: `make demo` and `make test`. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
PLOTS := $(VENV)/.plots
CHART_TOOLS := $(VENV)/.chart-tools
BUGSINK := $(VENV)/bugsink/.installed
AUDIT := $(VENV)/audit/.installed
INTEROP := $(VENV)/interop/.installed
PAGE := $(VENV)/.page
FLOWER := $(VENV)/flower/.installed
SERVICES := $(VENV)/services/.installed
LITELLM := $(VENV)/litellm/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet

.PHONY: demo help test test-generated check lint types layers docs site docs-serve format lock fuzz sbom release audit clean coverage \
	test-faults test-gateway test-sentry test-interop test-flower test-page test-services test-helm test-image chaos demo-oncall \
	bench-throughput bench-latency bench-ceiling bench-flame bench-scoreboard bench-clients bench-deltas bench-links bench-batch \
	bench-telemetry bench-autoscale

demo: $(STAMP)  ## the main job end to end: embedded Valkey, simulated gateway, a real worker
	$(BIN)/responses-worker demo

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  %-17s %s\n", $$1, $$2 }'

test: $(STAMP)  ## every test that needs nothing but this machine, in 3 min 30 s on 2 quiet cores
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 4  # most tests wait for processes

test-generated: $(STAMP)  ## every test that draws its inputs, with ten times as many
	EXAMPLES_TIMES=10 $(BIN)/pytest -n 2 --timeout 1800 $$(grep -rl --include='test_*.py' support.examples tests)

check: lint types layers site test  ## what CI runs, beside test-helm, test-interop, test-flower and test-page

coverage: $(STAMP)  ## what the tests reach, by room and by file; fails below the floor in pyproject.toml
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --timeout 600  # measuring slows the state machines
	$(BIN)/coverage combine --quiet
	@for room in api_contracts/ worker/[a-z]*/; do \
		printf '%-20s %3s %%\n' $$room $$($(BIN)/coverage report --fail-under 0 --format total --include "$$room*"); done
	$(BIN)/coverage report

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## pyright, strict
	$(BIN)/basedpyright

layers: $(STAMP)  ## which room may import which
	$(BIN)/lint-imports

docs: $(STAMP)  ## brings the generated pages up to date and builds the site into build/site
	PYTHONPATH=tests $(BIN)/python -m docgen
	$(MAKE) --no-print-directory site

site: $(DOCS)  ## builds the site from the pages as they are; a broken link is an error
	$(BIN)/zensical build --clean --strict

docs-serve: $(DOCS)  ## shows the site at http://localhost:8000 and follows changes
	$(BIN)/zensical serve

format: $(STAMP)  ## ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP)  ## after a change of dependencies in pyproject.toml
	$(COMPILE) --extra demo --extra otel --group dev --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dashboard --extra otel --output-file requirements-worker.lock pyproject.toml
	$(COMPILE) --group docs --constraints requirements.lock --output-file tests/docgen/requirements.lock
	$(COMPILE) --group page --constraints requirements.lock --output-file tests/page/requirements.lock
	$(COMPILE) --group flower --constraints requirements.lock --output-file tests/flower/requirements.lock
	$(COMPILE) --group plots --constraints requirements.lock --output-file bench/requirements.lock
	$(COMPILE) --group services --constraints requirements.lock --output-file tests/services/requirements.lock pyproject.toml

fuzz: $(STAMP)  ## 20,000 hostile envelopes and 20,000 hostile answers, against bounds of time and memory; takes minutes
	EXAMPLES_TIMES=400 $(BIN)/pytest -n 2 --timeout 7200 tests/hostile/test_fuzz.py

sbom: $(STAMP)  ## what the image is made of, as CycloneDX, from the lock: build/sbom.json
	$(BIN)/python helm/sbom.py requirements-worker.lock build/sbom.json

release: $(STAMP)  ## both distributions, the bill of materials and the SHA-256 of each, in build/release
	rm -rf build/release
	SOURCE_DATE_EPOCH=315532800 $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/release . ./api_contracts
	$(BIN)/python helm/sbom.py requirements-worker.lock build/release/sbom.json
	cd build/release && sha256sum *.whl sbom.json > SHA256SUMS

audit: $(AUDIT)  ## known weaknesses of every locked package; asks public databases, so it is no part of `check`
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

clean:  ## removes the environment, caches and what was built
	rm -rf $(VENV) build .cache .pytest_cache .ruff_cache .hypothesis

test-faults: $(STAMP)  ## what takes minutes: kills, drains, poison, junk by the thousand, Redis away; large batches cut short
	$(BIN)/pytest tests/faults

test-sentry: $(BUGSINK)  ## grouping, levels and tags as a real Sentry-compatible server, Bugsink, sees them
	$(BIN)/pytest tests/bugsink

test-interop: $(INTEROP)  ## Node asks and reads; AsyncAPI's own parser reads the contract; skipped where npm is missing
	$(BIN)/pytest tests/interop

test-flower: $(FLOWER)  ## Flower's own API shows workers and tasks
	$(BIN)/pytest tests/flower

test-services: $(SERVICES)  ## the examples of services in FastAPI and Django, against a live worker
	$(BIN)/pytest tests/services

test-page: $(PAGE)  ## the dashboard in a headless Chromium: light, dark, phone, keyboard; SCREENSHOTS=1 renews those in docs
	$(BIN)/pytest --timeout 300 tests/page

test-helm: $(CHART_TOOLS)  ## the chart with Helm 3 and 4, its scaling on a real Valkey, rules, dashboard, Dockerfile
	$(BIN)/pytest helm/tests/chart

test-image: $(CHART_TOOLS)  ## builds the image, runs it locked down and as the chart renders it; as root, else skipped
	$(BIN)/pytest --timeout 900 helm/tests/image

chaos: $(STAMP)  ## kills, drains, Redis restarts, cut and slow networks, full memory; then the books; ARGS="--seeds 1 --requests 300"
	PYTHONPATH=tests $(BIN)/python -m chaos.driver $(ARGS)

demo-oncall: $(STAMP)  ## a night on call: five incidents, each mended with the commands that are printed
	$(BIN)/python examples/oncall.py

bench-throughput: $(STAMP)  ## CPU, memory and added time of a request, beside Celery's own pools
	$(BIN)/python -m bench.throughput

bench-latency: $(STAMP)  ## added time, idle cost and throughput of one worker, beside the usual recipe
	$(BIN)/python -m bench.latency $(ARGS)

bench-ceiling: $(STAMP)  ## what a request costs Valkey, how many fill it, and how cost grows with work; ARGS="--quick" for less
	$(BIN)/python -m bench.ceiling $(ARGS)
	$(BIN)/python -m bench.growth $(ARGS)

bench-flame: $(STAMP)  ## where the time of a request goes, as flame graphs; ARGS="--tree PATH" draws an older checkout beside
	$(BIN)/python -m bench.flame --out build/flame $(ARGS)

bench-scoreboard: $(PLOTS)  ## 429s, lost requests and time against ideal, per scenario; hours; ARGS="--quick" for less
	$(BIN)/python -m bench.scoreboard $(ARGS)

bench-clients: $(SERVICES)  ## the time from a result or a token to a service that waits for it
	$(BIN)/python -m bench.clients
	$(BIN)/python -m bench.service

bench-deltas: $(STAMP)  ## how old a token is when a client sees it, with 100 streams at once
	$(BIN)/python -m bench.deltas

bench-links: $(STAMP)  ## throughput and bytes of one worker on slow and far links to Redis
	$(BIN)/python -m bench.links $(ARGS)

bench-batch: $(STAMP)  ## memory of the batch client over a file of 50,000 lines
	$(BIN)/python -m bench.batch_memory

bench-telemetry: $(STAMP)  ## what watching costs, and what a storm, a lost Redis and a lost Sentry do
	$(BIN)/python -m bench.telemetry

bench-autoscale: $(CHART_TOOLS) $(PLOTS)  ## pods, cost, 429s and waiting of three ways to scale, simulated
	$(BIN)/python -m bench.autoscale

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "responses-worker needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(DOCS): $(STAMP) tests/docgen/requirements.lock
	$(PIP) --no-deps --require-hashes -r tests/docgen/requirements.lock
	touch $@

$(PLOTS): $(STAMP) bench/requirements.lock
	$(PIP) --no-deps --require-hashes -r bench/requirements.lock
	touch $@

$(CHART_TOOLS): $(STAMP) helm/tests/requirements.lock helm/tests/binaries.lock $(wildcard helm/tests/chart/kinds/*)
	$(PIP) --no-deps --require-hashes -r helm/tests/requirements.lock
	$(BIN)/python helm/tests/chart/toolbox.py
	touch $@

$(BUGSINK): $(STAMP) tests/bugsink/requirements.lock
	$(BIN)/uv venv --quiet --clear $(VENV)/bugsink
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(VENV)/bugsink/bin/python \
		-r tests/bugsink/requirements.lock
	touch $@

$(PAGE): $(STAMP) tests/page/requirements.lock tests/support/browser.py
	$(PIP) --no-deps --require-hashes -r tests/page/requirements.lock
	PYTHONPATH=tests $(BIN)/python -m support.browser
	touch $@

$(FLOWER): $(STAMP) tests/flower/requirements.lock
	$(BIN)/uv venv --quiet --clear $(VENV)/flower
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(VENV)/flower/bin/python \
		-r tests/flower/requirements.lock
	touch $@

$(AUDIT): $(STAMP)
	$(BIN)/uv venv --quiet --clear $(VENV)/audit
	$(BIN)/uv pip install --quiet --python $(VENV)/audit/bin/python 'pip-audit>=2.9,<3'
	touch $@

$(SERVICES): $(STAMP) tests/services/requirements.lock
	$(BIN)/uv venv --quiet --clear $(VENV)/services
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(VENV)/services/bin/python \
		-r tests/services/requirements.lock
	touch $@

$(INTEROP): $(STAMP) tests/interop/kits.py $(wildcard examples/node/package*.json tests/interop/asyncapi/package*.json)
	$(BIN)/python tests/interop/kits.py
	touch $@

test-gateway: $(LITELLM)  ## the simulator's faults through LiteLLM's proxy: which codes survive its translation
	$(BIN)/pytest -s --timeout 600 tests/thirdparty

$(LITELLM): $(STAMP)  # neither in CI nor in our locks; never 1.107.0, whose release was compromised
	$(BIN)/uv venv --quiet --clear $(VENV)/litellm
	$(BIN)/uv pip install --quiet --python $(VENV)/litellm/bin/python 'litellm[proxy]==1.106.2'
	touch $@
