# The two commands of the README, and what they stand on. Each does all its set-up on a clean clone.
#
#   make demo     a virtual fleet and a head-end on this machine, live
#   make test     everything that is tested, interop with other people's code included
#   make fuzz     octets guided by coverage at one target: TARGET=dlms_meter SECONDS=150, or today's
#   make trust    the same claims with greater counts; the results go into SECURITY.md

VENV := .venv
PYTHON := $(VENV)/bin/python
# The extension is built again when any of its sources changed.
RUST_SOURCES := $(shell find protocols rust Cargo.toml Cargo.lock -name '*.rs' -o -name 'Cargo.*' -o -name '*.tsv' -o -path '*/data/profiles/*.toml' 2>/dev/null)

.PHONY: demo test setup system lint bench fuzz trust wheel clean test-rust test-python

demo: $(VENV)/built
	$(VENV)/bin/ipss-headend demo $(DEMO)

test: test-rust test-python

test-rust: system
	cargo test --locked --workspace

test-python: $(VENV)/built $(VENV)/peers
	$(PYTHON) -m pytest tests

setup: $(VENV)/built

# What the system must have: Rust, a C compiler, Python's venv. As root it is installed, otherwise listed.
system:
	@scripts/system-packages

$(VENV)/installed: requirements/lint.lock | system
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements/lint.lock
	@touch $@

$(VENV)/built: $(VENV)/installed pyproject.toml $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --release --locked --quiet
	@touch $@

# Other people's DLMS code, each in an environment of its own, run as separate processes.
$(VENV)/peers: $(wildcard tests/interop/requirements/*.lock) tests/interop/environments.py | $(VENV)/installed
	$(PYTHON) tests/interop/environments.py
	@touch $@

lint: $(VENV)/built
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/stubtest ipss_headend._core --allowlist tests/stubtest.allow
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p ipss-core --features python -- -D warnings
	scripts/check-msrv
	scripts/cargo-deny
	$(PYTHON) scripts/sbom.py build $(VENV)/sbom.cdx.json
	$(PYTHON) scripts/sbom.py check $(VENV)/sbom.cdx.json

# What each requirement of docs/threats.md is shown by; R="R9 R14" some, TRUST=release with a release's counts, MINUTES=20 the oldest first.
trust: $(VENV)/built
	$(PYTHON) -m tests.trust.run $(R)

fuzz: system
	scripts/fuzz $(or $(TARGET),today) $(or $(SECONDS),150)

bench: $(VENV)/built $(VENV)/peers
	$(PYTHON) benches/run.py $(BENCH)

# The wheel, installed into a bare environment, must work with nothing else there.
wheel: $(VENV)/installed
	rm -rf dist && $(VENV)/bin/maturin build --release --locked --quiet --out dist
	scripts/check-wheel dist

clean:
	cargo clean
	rm -rf $(VENV) .venv-* dist .pytest_cache .mypy_cache .ruff_cache
