# What a person or a machine types. Each target works on a fresh Debian or Ubuntu with a Rust toolchain.

CARGO ?= cargo

# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

.PHONY: test check fuzz soak bench bench-down bench-replay bench-memory bench-scale micro outages flapping blackhole demo redis peers

test: redis
	$(CARGO) test
	./tests/clients/run

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --test namespaces -- -D warnings
	$(CARGO) check --manifest-path fuzz/Cargo.toml
	command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check bans licenses sources

fuzz:
	command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	for target in requests replies; do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=512 -malloc_limit_mb=16 || exit 1; \
	done

# SEEDS, FIRST_SEED, SOAK_SECONDS and SOAK_KILLS say how much.
soak: redis
	./tests/soak/many
	./tests/soak/caught

# ROUNDS, SECONDS_PER_RUN, TARGETS and WORKLOADS say how much, LOAD_CPUS=0 where the load runs; PLOT=benches/results.svg keeps the plot.
bench: redis peers
	$(CARGO) build --release
	./benches/bench

# The same binary while Redis is away, when it comes back, in memory, and as things grow. Each says in its first lines what it takes.
bench-down bench-replay bench-memory bench-scale: bench-%: redis
	$(CARGO) build --release
	./benches/$*

# What the parts of a request's path cost. FILTER picks benchmarks by name.
micro:
	$(CARGO) bench --bench micro -- $(FILTER)

outages: redis
	$(CARGO) build --release
	./benches/outages

# Redis goes and comes every second for a minute.
flapping: redis
	FLAPS=60 FLAP_PERIOD_MS=1000 $(CARGO) test --test failing flapping

# Packets that are lost, names that change: in namespaces of its own, as root.
blackhole: redis
	$(CARGO) test --test namespaces --no-run
	NAMESPACES_OUTSIDE="$$(readlink /proc/self/ns/net /proc/self/ns/mnt)" unshare --net --mount $(CARGO) test --offline --test namespaces -- --test-threads 2

demo: redis
	$(CARGO) run --release -- demo

redis:
	./.ci/install redis-server

peers:
	for peer in haproxy nutcracker; do \
		./.ci/install $$peer || echo "going on without $$peer, which cannot be installed"; \
	done
