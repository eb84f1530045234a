# Every target works in a fresh clone: the environment is made from the locked, hash-checked requirements when it is missing.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= 2

.PHONY: combinations quick quick-all picture test slow figures papers papers-status papers-report claims lint bench clean docs paper env wheel
.DEFAULT_GOAL := quick

env: $(VENV)/.ready
$(VENV)/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gossipjax needs Python 3.11 or newer; point PYTHON at one: make PYTHON=python3.12 quick"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# One experiment of each kind; make quick-all runs the small form of every one.
MAIN := consensus_rate_vs_topology dpsgd_on_real_data heterogeneity async_beats_sync_under_stragglers \
	staleness_vs_capacity jwins_accuracy_vs_bytes plexus_round_duration plexus_sample_size plexus_churn

quick: env
	$(PY) -m experiments run $(MAIN) --quick --out results/quick
	$(PY) -m figures $(MAIN) --results results/quick

quick-all: env
	$(PY) -m experiments run all --quick --out results/quick
	$(PY) -m figures --results results/quick

figures: env
	$(PY) -m experiments run all
	$(PY) -m figures

# The runs of the papers' scale, one after another at the lowest priority; stop it at any time, it goes on where it was.
papers: env
	$(PY) -m experiments papers run

papers-status: env
	$(PY) -m experiments papers status

# Tables and figures of the finished runs in benchmarks/cells; runs nothing.
papers-report: env
	$(PY) -m experiments papers report
	for path in results/papers/*.nc; do [ ! -f $$path ] || $(PY) -m figures $$(basename $$path .nc) --results results/papers || exit 1; done

claims: env
	$(PY) -m theory check --json results/claims.json --report results/claims

# To save time, compiled without most of XLA's optimizations. The targets quick and slow compile with them, as users do,
# and slow repeats the tests that promise equality bit for bit. The slow tests of the files in tests/lib/compiling.py do
# little but compile: slow compiles them as test does.
test: env
	XLA_FLAGS="$$($(PY) tests/lib/xla_flags.py)" $(PY) -m pytest -n $(JOBS) --dist worksteal -m "not slow"

slow: env
	$(PY) -m pytest -n $(JOBS) --dist worksteal --durations 25 -m "exact or (slow and not compiling)"
	XLA_FLAGS="$$($(PY) tests/lib/xla_flags.py)" $(PY) -m pytest -n $(JOBS) --dist worksteal --durations 25 -m "slow and compiling and not exact"

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy gossipjax theory experiments figures paper

# docs/what-goes-with-what.md, from tracing every protocol with every sharing on every timeline, and a table of methods.
combinations: env
	PYTHONPATH=.:tests/lib $(PY) tests/lib/combinations.py
	PYTHONPATH=.:tests/lib $(PY) tests/lib/methods.py

# The README's picture, by the program below it.
picture: env
	cd docs && ../$(PY) ../tests/lib/readme.py ../README.md | ../$(PY) -

bench: env
	$(PY) -m benchmarks

# The site, in docs/_build/html. Its pages run when they are built, and warnings are errors.
docs: $(VENV)/.docs-ready
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
$(VENV)/.docs-ready: docs/requirements.lock $(VENV)/.ready
	$(PY) -m pip install --quiet --require-hashes -r docs/requirements.lock
	@touch $@

# The paper, in paper/build; a number that is missing or stale is an error. Without TeX it says what to install.
paper: env
	$(PY) -m paper build

wheel: env
	$(PY) -m build --no-isolation --outdir dist

clean:
	rm -rf $(VENV) dist build docs/_build docs/api paper/build results figures/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
