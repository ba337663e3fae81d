# The one door for people and CI. `make help` lists the verbs.

CARGO ?= cargo
SCRIPTS := tests/scripts
FUZZ_EXECUTIONS ?= 5000000
# Another seed each time: the one of `make test` is run there.
FUZZ_SEED ?= $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test test-deploy test-skew packages reproduce bench fuzz audit build fmt lint doc deps clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: ## Show it, step by step, in namespaces on this machine (KEEP=1 leaves it running)
	@$(SCRIPTS)/deps demo
	$(CARGO) build --workspace --bins --locked
	@$(SCRIPTS)/in-lab target/debug/fleetknock-demo $(if $(filter 1,$(KEEP)),--keep)

demo-stop: ## End a demo that was left running with KEEP=1
	@target/debug/fleetknock-demo --stop

test: ## Run everything: lints, fences, units, properties, stores, kernels, promises
	@$(SCRIPTS)/deps test
	@$(SCRIPTS)/test

test-deploy: ## Run what proves deploy/ alone: images, compose, manifests, packages
	@$(SCRIPTS)/deps test
	@$(SCRIPTS)/test deploy

test-skew: ## Run the promises between two versions (PREVIOUS=a git revision, or a folder with the three programs)
	@$(SCRIPTS)/deps test
	@PREVIOUS="$(PREVIOUS)" $(SCRIPTS)/test skew

packages: ## Build the .deb and .rpm packages into target/packages
	@$(SCRIPTS)/deps test
	$(CARGO) run -p fleetknock-deploy --bin fleetknock-packages --locked

reproduce: ## Build the release's programs twice, in different places, and compare them (about 20 minutes)
	@$(SCRIPTS)/deps test
	$(CARGO) run -p fleetknock-deploy --bin fleetknock-reproduce --locked

bench: ## Measure knock-to-open against peers in the same run, and the matcher
	@$(SCRIPTS)/deps test
	$(CARGO) build --release --workspace --bins --locked
	@$(SCRIPTS)/in-lab target/release/fleetknock-bench

fuzz: ## Throw bytes at all that reads from outside, for about ten minutes (FUZZ_EXECUTIONS=, FUZZ_SEED=)
	$(CARGO) run -p fleetknock-fuzz --locked -- --executions $(FUZZ_EXECUTIONS) --seed $(FUZZ_SEED)

audit: ## Check licences, sources, bans and known vulnerabilities of all packages (needs a network and cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is not installed; install it, which takes minutes: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --all-features check

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
