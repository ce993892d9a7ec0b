# The commands that people repeat. `just` lists them.

default:
    @just --list

# A cluster of three nodes on this machine, until Ctrl-C.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Everything that must hold before a commit.
check:
    .ci/run

# All tests.
test:
    cargo test --release --workspace --all-features

# The book, built into target/book. mdBook is installed under target if it is not there.
book *ARGS:
    test -x target/mdbook/bin/mdbook || cargo install mdbook --locked --root target/mdbook
    target/mdbook/bin/mdbook build docs {{ARGS}}

# The picture of a put, drawn anew.
picture:
    cargo run -p cartwheel-sim --example put_picture

# Fresh seeds through the simulator.
simulate SEEDS="10000" START="1":
    cargo run --release -p cartwheel-sim -- --seeds {{SEEDS}} --start {{START}}

# One seed again, with its trace.
replay SEED:
    cargo run --release -p cartwheel-sim -- --seed {{SEED}}

# The carts of 23,570 customers through a running `just dev`.
carts *ARGS:
    cargo run --release -p cart -- {{ARGS}}

# Faults on real processes, all or those that are named: nodes are killed, cut off, wiped and more, come and go; what was refused and lost is counted.
faults *ARGS:
    .ci/iproute2
    cargo build --release -p cartwheel
    cargo run --release -p cartwheel-faults -- {{ARGS}}

# Faults drawn from a seed, which is printed, for an hour; `just faults random --seed S --runs 1` plays one schedule again.
faults-for DURATION="1h" *ARGS: (faults "random" "--for" DURATION ARGS)

# What it takes to grow from three nodes to six, to shrink back, and to replace a dead node, under load.
elastic *ARGS: (faults "grow" "shrink" "replace-dead" ARGS)

# How much slower clients are served while a wiped node is filled again.
refill *ARGS:
    cargo bench -p cartwheel --bench refill -- {{ARGS}}

# How much longer small requests take beside reads of large values, and while a backlog of hints is handed over.
neighbours *ARGS:
    cargo bench -p cartwheel --bench neighbours -- {{ARGS}}

# What is left of a cluster's throughput at three times of what it can do.
overload *ARGS:
    cargo bench -p cartwheel --bench overload -- {{ARGS}}

# The ring's figures.
bench:
    cargo bench -p cartwheel-core
