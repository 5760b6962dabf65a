# make setup   an environment in .venv with everything pinned
# make demo    Kafka, Redis, workers, server and a stream of real clicks, until interrupted
# make test    linters, types and every test, against real services
# make lint    linters and types alone
# make chaos   the table of faults: processes killed, frozen, cut off and filled up under load
# make docs    writes docs/settings.md, and the plan in docs/design.md
# make locks   resolves requirements.lock and the locks of jars in config/ anew

UV := uv==0.13.9
BIN := .venv/bin
RUN_UV := $(BIN)/python -m uv

.PHONY: setup demo test lint bench chaos docs locks browser tls-redis clean

setup: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	@python=; \
	for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Headwater needs Python 3.11 or newer; python3 here is:" \
	    "$$(python3 --version 2>&1 || true). Install a newer one and run make again." >&2; \
	  exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ] && ! "$$python" -m venv .venv; then \
	  rm -rf .venv; \
	  echo "Python cannot make an environment; on Debian: apt-get install python3-venv" >&2; \
	  exit 1; \
	fi
	@echo "installing pinned packages into .venv" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	@$(RUN_UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(RUN_UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "compiling what runs as machine code" >&2
	@$(BIN)/python -c "import processors.worker, serving.app"
	@touch $@

demo: setup
	@exec $(BIN)/headwater demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint browser tls-redis
	$(BIN)/python -m pytest

# The console's tests drive a browser; without one they are skipped and say so.
browser:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing chromium for the console's tests" >&2; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
	    >/dev/null 2>&1 || echo "chromium cannot be installed; going on without it" >&2; \
	fi

# The Redis that the packages bring speaks no TLS; without one that does, tests of it are skipped.
tls-redis: setup
	@$(BIN)/python -m tests.tls_redis

# Everything that docs/performance.md tells, on a machine that does nothing else meanwhile.
MEASURED = ingest against replay serve freshness memory growth learning spike regions rebalance
bench: setup
	@mkdir -p .headwater/bench
	@for name in $(MEASURED); do \
	  echo "bench $$name" >&2; \
	  $(BIN)/headwater bench $$name --json >.headwater/bench/new.json || exit 1; \
	  mv .headwater/bench/new.json .headwater/bench/$$name.json; \
	done
	@$(BIN)/python -m benchmarks.tables .headwater/bench docs/performance.md
	@$(BIN)/python -m planning.shipped .headwater/bench
	@$(BIN)/python -m planning.document docs/design.md
	@$(BIN)/python -m benchmarks.growth_picture .headwater/bench/growth.json docs/growth.svg
	@$(BIN)/python -m benchmarks.spike_picture .headwater/bench/spike.json docs/spike.svg

# Everything that docs/reliability.md tells; some of it with FAULTS="redis-full kafka-kill".
chaos: setup
	@mkdir -p .headwater
	@$(BIN)/python -m tests.chaos $(FAULTS) --json .headwater/chaos.json; code=$$?; \
	if [ $$code -le 1 ]; then \
	  $(BIN)/python -m tests.chaos.document .headwater/chaos.json docs/reliability.md; \
	fi; exit $$code

docs: setup
	$(BIN)/python -m commands.settings_cmd >docs/settings.md
	$(BIN)/python -m planning.document docs/design.md

locks: setup
	$(RUN_UV) pip compile --universal --python-version 3.11 --extra dev --extra traces --generate-hashes --upgrade \
	  --no-header --no-emit-find-links --no-emit-index-url -q pyproject.toml -o requirements.lock
	$(BIN)/python -m config.jars

clean:
	rm -rf .venv .headwater .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
