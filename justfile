# Commands for development. `just` lists them.

default:
    @just --list

# Run a cluster of three nodes on this machine until Ctrl-C.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Run every check that a commit must pass.
check:
    .ci/run

# Run all tests.
test:
    cargo test --profile checks --workspace --all-features

# Build the book into target/book; installs mdBook under target if it is missing.
book *ARGS:
    test -x target/mdbook/bin/mdbook || cargo install mdbook --locked --root target/mdbook
    target/mdbook/bin/mdbook build docs {{ARGS}}

# Build the dashboard's files, which the binary serves, from their sources; needs Node.js.
dashboard:
    cd crates/cartwheel-server/dashboard && npm ci --ignore-scripts --no-audit --no-fund && npm run check && npm run build

# Take the README's picture of the dashboard again; needs Node.js and Chromium.
dashboard-picture: dashboard
    cargo build --release -p cartwheel
    node crates/cartwheel/tests/clients/dashboard_picture.mjs target/release/cartwheel docs/src/images/dashboard.png

# Draw the picture of a put again.
picture:
    cargo run -p cartwheel-sim --example put_picture

# Run the simulator on a range of seeds.
simulate SEEDS="10000" START="1":
    cargo run --release -p cartwheel-sim -- --seeds {{SEEDS}} --start {{START}}

# Run one seed of the simulator again, with its trace.
replay SEED:
    cargo run --release -p cartwheel-sim -- --seed {{SEED}}

# Search every state that reconfiguration can reach on a few nodes; takes minutes.
search *ARGS:
    cargo test --profile checks -p cartwheel-sim --all-features --test it search:: -- {{ARGS}}

# Replay the carts of 23,570 customers against a running `just dev`.
carts *ARGS:
    cargo run --release -p cart -- {{ARGS}}

# Run all or the named fault scenarios on real processes (kills, partitions, wiped disks, membership changes); counts refused and lost writes.
faults *ARGS:
    .ci/iproute2
    cargo build --release -p cartwheel
    cargo run --release -p cartwheel-faults -- {{ARGS}}

# Run faults drawn from a seed, which is printed, for an hour; `just faults random --seed S --runs 1` repeats one schedule.
faults-for DURATION="1h" *ARGS: (faults "random" "--for" DURATION ARGS)

# Measure growing from three nodes to six, shrinking back, and replacing a dead node, all under load.
elastic *ARGS: (faults "grow" "shrink" "replace-dead" ARGS)

# Measure client latency while a wiped node is synced again.
refill *ARGS:
    cargo bench -p cartwheel --bench refill -- {{ARGS}}

# Measure the latency of small requests beside reads of large values, and while a backlog of hints is handed over.
neighbours *ARGS:
    cargo bench -p cartwheel --bench neighbours -- {{ARGS}}

# Measure a cluster's goodput at three times its peak throughput.
overload *ARGS:
    cargo bench -p cartwheel --bench overload -- {{ARGS}}

# Measure throughput, memory and start with 10 million keys; `--keys N --value-size BYTES` for others.
size *ARGS:
    cargo bench -p cartwheel --bench size -- {{ARGS}}

# Measure the storage engine's settings, and redb, by CPU time; `--only NAME,NAME` for some, `--synced` for synced commits.
engine *ARGS:
    cargo bench -p cartwheel-storage --bench engine -- {{ARGS}}

# Run the core's benchmarks: ring, anti-entropy exchange and scaling.

# Print the CPU instructions of a get and a put beside the recorded ones; --check fails if some rose by over 5%, --record records them anew.
instructions *ARGS:
    cargo bench --profile checks -p cartwheel-core --bench instructions -- {{ARGS}}

# Run the core's benchmarks: ring, anti-entropy exchange, instructions and scaling.
bench:
    cargo bench -p cartwheel-core
