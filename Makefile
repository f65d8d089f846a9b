# What a person or a machine types. Each target works on a fresh Debian or Ubuntu with a Rust toolchain.

CARGO ?= cargo

.PHONY: test check bench demo redis peers

test: redis
	$(CARGO) test
	./tests/clients/run

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check bans licenses sources

bench: redis peers
	$(CARGO) build --release
	./benches/bench

demo: redis
	$(CARGO) run --release -- demo

redis:
	./.ci/install redis-server

peers:
	./.ci/install haproxy nutcracker || echo "going on without a peer that cannot be installed"
