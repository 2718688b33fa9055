# Two commands set everything up on a fresh machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes, each with whole files, so that the fixtures of a file are made once.
PARALLEL := -n 2 --dist loadfile
# Much of what a test costs is compiling for a few small images. That takes two thirds of the time with less
# optimisation; `make test-all` compiles as users do. A compiler that has no such flags goes without.
QUICK_TO_COMPILE := --xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false

.PHONY: demo test test-all lint docs bench sweep clean

demo: $(STAMP)
	$(BIN)/jaxrelax demo --out demo_out --overwrite

test: lint docs
	flags="$(strip $(XLA_FLAGS) $(QUICK_TO_COMPILE))"; \
	XLA_FLAGS="$$flags" $(BIN)/python -c "import jax; jax.devices()" 2> /dev/null || flags="$(XLA_FLAGS)"; \
	XLA_FLAGS="$$flags" $(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-all: lint docs
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python docs/check_documented.py
	$(BIN)/mkdocs build --strict  # with --quiet warnings are not counted, and nothing fails

bench: $(STAMP)
	$(BIN)/python experiments/benchmarks/kernels.py

sweep: $(STAMP)
	$(BIN)/python experiments/register_accuracy.py --small

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("jaxrelax needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) site demo_out
