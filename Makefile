# The one door for people and CI. `make help` lists the verbs.

CARGO ?= cargo
SCRIPTS := tests/scripts

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test bench build fmt lint doc deps clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: ## Show it, step by step, in namespaces on this machine (KEEP=1 leaves it running)
	@$(SCRIPTS)/deps demo
	$(CARGO) build --workspace --bins --locked
	@$(SCRIPTS)/in-lab target/debug/fleetknock-demo $(if $(filter 1,$(KEEP)),--keep)

demo-stop: ## End a demo that was left running with KEEP=1
	@target/debug/fleetknock-demo --stop

test: ## Run everything: lints, fences, units, properties, stores, kernels, promises
	@$(SCRIPTS)/deps test
	@$(SCRIPTS)/test

bench: ## Measure knock-to-open against peers in the same run, and the matcher
	@$(SCRIPTS)/deps test
	$(CARGO) build --release --workspace --bins --locked
	@$(SCRIPTS)/in-lab target/release/fleetknock-bench

build: ## Build the three programs and the lab
	@$(SCRIPTS)/deps demo
	$(CARGO) build --workspace --bins --locked

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Check the format, run clippy with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings

doc: ## Build the documentation with warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deps: ## Install what the verbs above need and this machine lacks (Debian packages)
	@$(SCRIPTS)/deps test

clean: ## Remove what was built
	$(CARGO) clean
