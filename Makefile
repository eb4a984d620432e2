# Amphora's few commands. `make demo` and `make test` do everything on a fresh machine.

.PHONY: help setup build demo test lint bench soak docker-test clean

help:            ## this list
	@grep -hE '^[a-z-]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup:           ## install what is missing; compile RocksDB once per machine
	@scripts/setup.sh

build: setup     ## the release binary, at target/release/amphora
	cargo build --release --locked -p amphora-server
	@scripts/link-binary.sh

demo: build      ## three nodes on this machine, and the hybrid story told (DEMO_ARGS=--exit to end by itself)
	target/release/amphora demo $(DEMO_ARGS)

test: setup      ## all tests
	cargo build --locked -p amphora-server
	cargo nextest run --workspace --locked --no-fail-fast

lint: setup      ## format and clippy, as CI does
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: build     ## side by side with PostgreSQL: see bench/README.md
	bench/run.sh

soak: build      ## the long fault tests, until one fails or SOAK_MINUTES (10) are over
	AMPHORA_BIN=$(CURDIR)/target/release/amphora SOAK_MINUTES=$${SOAK_MINUTES:-10} \
	  cargo nextest run --release --locked -p amphora-tests --run-ignored only

docker-test: $(if $(AMPHORA_BIN),,build) ## the image and the compose cluster, tried for real (AMPHORA_BIN=… for another binary)
	docker/test.sh

clean:           ## remove what was built here (the machine's RocksDB stays)
	cargo clean
