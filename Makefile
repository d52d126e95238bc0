# What a person does with this repository. Nothing has to be prepared by hand: a Debian machine with Rust is enough.

CARGO ?= cargo
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help build demo image test unit check fuzz bench farm-sim parts clean

help:
	@echo 'make demo   one Dockerfile becomes one index for eight platforms, here and now'
	@echo 'make image  the image that docker buildx starts as its builder (STAGE=binfmt: the installer of emulators;'
	@echo '            PLATFORMS=linux/amd64,linux/arm64: one for machines of several platforms)'
	@echo 'make test   all tests, end to end with real runtimes, a registry, emulators and docker buildx'
	@echo 'make unit   only the tests that need no root and no other programs'
	@echo 'make check  formatting, lints, rules about sources'
	@echo 'make fuzz   ten minutes of fuzzing for each of its targets (FUZZ="name …" for some), with cargo-fuzz'
	@echo 'make bench  each promise about speed beside its floor (BENCH="name …" for some of them)'
	@echo 'make farm-sim  the scheduler with 10 000 workers and a million builds (FARM="--workers 100 …" for others)'
	@echo 'make build  the program: target/release/crosskit'
	@echo 'make clean  away with everything that was built'

build:
	@tests/parts.sh build
	$(CARGO) build --release -p crosskit

parts:
	@tests/parts.sh

demo: parts
	$(CARGO) build --release -p crosskit -p crosskit-multiarch --bins
	@target/release/demo

STAGE ?= daemon
PLATFORMS ?=
image: parts
	$(CARGO) build --release -p crosskit
	@PLATFORMS=$(PLATFORMS) appliance/make-image.sh $(STAGE)

# The end-to-end tests run the built program, so it is built first. nextest where it is, else cargo's own runner;
# both close with a line that counts tests.
test: parts
	$(CARGO) build -p crosskit
	@if $(CARGO) nextest --version > /dev/null 2>&1; then \
	  echo '$(CARGO) nextest run --workspace --no-fail-fast'; $(CARGO) nextest run --workspace --no-fail-fast; \
	else \
	  echo '$(CARGO) test --workspace'; $(CARGO) test --workspace --no-fail-fast -- --test-threads 4; \
	fi

unit:
	@tests/parts.sh build
	$(CARGO) test --workspace --exclude crosskit-multiarch --lib --bins

check:
	@tests/parts.sh build
	$(CARGO) fmt --all --check
	tests/rules.sh
	$(CARGO) clippy --workspace --all-targets -- -D warnings

FUZZ ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz:
	@tests/parts.sh build
	@set -e; for name in $(FUZZ); do \
	  $(CARGO) fuzz run -s none --target-dir target/fuzz $$name -- -max_total_time=600; \
	done

bench: parts
	$(CARGO) build --release -p crosskit -p crosskit-bench --bins
	@target/release/bench $(BENCH)

# Simulated: needs nothing but a compiler, and some minutes.
farm-sim:
	@tests/parts.sh build
	$(CARGO) build --release -p crosskit-farm-sim
	@target/release/farm-sim $(FARM)

clean:
	$(CARGO) clean
