//! Measures the storage engine's settings, and other engines, by the CPU time of an operation.
//!
//! Each configuration runs in a process of its own on a new directory; the configurations alternate in rounds, and the table shows medians. CPU
//! time is that of the whole process, with the engine's background work, which is waited for. `--only NAME,NAME` picks configurations by how
//! their names begin.

mod stores;
mod workload;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cartwheel_storage::{FjallOptions, FjallStore, Store};
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, HashRatioPolicy,
    PinningPolicy,
};
use fjall::{CompressionType, Database, DatabaseBuilder, KeyspaceCreateOptions, KvSeparationOptions};
use stores::{Fjall, Nothing, Redb};
use workload::{Figures, Journal, Plan};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Open = Box<dyn Fn(&Path) -> Box<dyn Store>>;

/// A configuration: its name, how its store is opened, and what is done with its journal.
struct Setup {
    name: String,
    open: Open,
    journal: Journal,
}

const MIB: u64 = 1 << 20;

fn setup(name: &str, open: impl Fn(&Path) -> Box<dyn Store> + 'static) -> Setup {
    Setup { name: name.to_owned(), open: Box::new(open), journal: Journal::AsItIs }
}

/// The store as it is, but for some of its options.
fn product(name: &str, change: impl Fn(&mut FjallOptions) + 'static) -> Setup {
    setup(name, move |dir| {
        let mut options = FjallOptions::default();
        change(&mut options);
        Box::new(FjallStore::open(dir, options).expect("the store opens"))
    })
}

fn separated(threshold: u32) -> KvSeparationOptions {
    KvSeparationOptions::default().separation_threshold(threshold)
}

/// The engine with the store's settings, but for some of them.
fn fjall_with(
    name: &str,
    database: impl Fn(DatabaseBuilder<Database>) -> DatabaseBuilder<Database> + 'static,
    records: impl Fn(KeyspaceCreateOptions) -> KeyspaceCreateOptions + 'static,
) -> Setup {
    let defaults = FjallOptions::default();
    setup(name, move |dir| {
        Box::new(Fjall::open(
            dir,
            |builder| database(builder.cache_size(defaults.cache_bytes)),
            |options| {
                let separation = Some(separated(512));
                records(options.max_memtable_size(defaults.memtable_bytes).with_kv_separation(separation))
            },
        ))
    })
}

fn database_with(
    name: &str,
    database: impl Fn(DatabaseBuilder<Database>) -> DatabaseBuilder<Database> + 'static,
) -> Setup {
    fjall_with(name, database, |records| records)
}

fn records_with(name: &str, records: impl Fn(KeyspaceCreateOptions) -> KeyspaceCreateOptions + 'static) -> Setup {
    fjall_with(name, |database| database, records)
}

fn filters(bits: f32) -> FilterPolicy {
    FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bits)))
}

/// The configurations. The first is the one that the others are compared with.
fn setups() -> Vec<Setup> {
    let mut setups = vec![
        product("default", |_| ()),
        setup("the bench itself", |_| Box::new(Nothing)),
        records_with("default, in the bench", |records| records),
    ];
    for mib in [8, 16, 32, 128] {
        setups.push(product(&format!("memtable {mib} MiB"), move |options| options.memtable_bytes = mib * MIB));
    }
    setups.push(records_with("separation off", |records| records.with_kv_separation(None)));
    for bytes in [128, 256, 1024, 4096] {
        setups.push(records_with(&format!("separation {bytes}"), move |records| {
            records.with_kv_separation(Some(separated(bytes)))
        }));
    }
    for mib in [32, 256] {
        setups.push(product(&format!("cache {mib} MiB"), move |options| options.cache_bytes = mib * MIB));
    }
    for bits in [5, 10, 20] {
        setups.push(records_with(&format!("filter {bits} bits"), move |records| {
            records.filter_policy(filters(bits as f32))
        }));
    }
    setups.push(records_with("filter not in last level", |records| records.expect_point_read_hits(true)));
    setups.push(records_with("pin all", |records| {
        records
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .index_block_pinning_policy(PinningPolicy::all(true))
    }));
    setups.push(records_with("pin none", |records| {
        records
            .filter_block_pinning_policy(PinningPolicy::all(false))
            .index_block_pinning_policy(PinningPolicy::all(false))
    }));
    for kib in [1, 2, 16] {
        setups.push(records_with(&format!("block {kib} KiB"), move |records| {
            records.data_block_size_policy(BlockSizePolicy::all(kib << 10))
        }));
    }
    for ratio in [1.33, 8.0] {
        setups.push(records_with(&format!("hash index {ratio}"), move |records| {
            records.data_block_hash_ratio_policy(HashRatioPolicy::all(ratio))
        }));
    }
    setups.push(records_with("records not compressed", |records| {
        records.with_kv_separation(Some(separated(512).compression(CompressionType::None)))
    }));
    setups.push(records_with("keys not compressed", |records| {
        records.data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
    }));
    setups
        .push(database_with("journal not compressed", |database| database.journal_compression(CompressionType::None)));
    setups.push(records_with("stale records 50%", |records| {
        records.with_kv_separation(Some(separated(512).staleness_threshold(0.5)))
    }));
    for mib in [64, 2048] {
        setups.push(database_with(&format!("journals {mib} MiB"), move |database| {
            database.max_journaling_size(mib * MIB)
        }));
    }
    for threads in [1, 2, 4] {
        setups.push(database_with(&format!("workers {threads}"), move |database| database.worker_threads(threads)));
    }
    setups.push(setup("redb", |dir| Box::new(Redb::open(dir))));
    setups
}

/// The configurations for synced commits.
fn synced_setups() -> Vec<Setup> {
    let journal = |name, journal| Setup { journal, ..product(name, |_| ()) };
    vec![
        journal("default", Journal::AsItIs),
        journal("journal allocated", Journal::Allocated),
        journal("journal written", Journal::Written),
        journal("journal empty", Journal::Empty),
        setup("redb", |dir| Box::new(Redb::open(dir))),
    ]
}

/// The value after `--name`.
fn flag(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg.strip_prefix("--") != Some(name));
    args.nth(1)
}

fn number(name: &str, default: u64) -> u64 {
    flag(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("--{name} takes a number")))
}

fn has(name: &str) -> bool {
    std::env::args().any(|arg| arg.strip_prefix("--") == Some(name))
}

fn main() {
    let setups = if has("synced") { synced_setups() } else { setups() };
    let plan =
        Plan { keys: number("keys", 200_000), value_size: number("value-size", 1_100) as usize, is_text: has("text") };
    if let Some(name) = flag("child") {
        let setup = setups.iter().find(|setup| setup.name == name).expect("a configuration has this name");
        for (name, figure) in measure(setup, plan) {
            println!("{name}\t{figure}");
        }
        return;
    }
    let only = flag("only");
    let is_asked = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|begin| name.starts_with(begin)));
    let names: Vec<&str> = setups.iter().map(|setup| &*setup.name).filter(|name| is_asked(name)).collect();
    let mut runs: BTreeMap<&str, Vec<Vec<(String, f64)>>> = BTreeMap::new();
    for round in 0..number("rounds", 3) {
        for &name in &names {
            let figures = run_child(name);
            let text: Vec<String> = figures.iter().map(|(title, figure)| format!("{title} {figure:.2}")).collect();
            eprintln!("round {}, {name}: {}", round + 1, text.join(", "));
            runs.entry(name).or_default().push(figures);
        }
    }
    print(&names, &runs);
}

/// Runs this program again for one configuration.
fn run_child(name: &str) -> Vec<(String, f64)> {
    let program = std::env::current_exe().expect("this program has a path");
    let args: Vec<String> = std::env::args().skip(1).collect();
    let output = Command::new(program).args(args).args(["--child", name]).output().expect("the child runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the figures are text");
    let figure = |line: &str| {
        let (name, figure) = line.split_once('\t').expect("a line is a name and a figure");
        (name.to_owned(), figure.parse().expect("a figure is a number"))
    };
    text.lines().map(figure).collect()
}

fn measure(setup: &Setup, plan: Plan) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory is made");
    // Some engines want a directory that they made themselves, and all want one of their own.
    let path = dir.path().join("store");
    std::fs::create_dir(&path).expect("a directory is made");
    let mut store = (setup.open)(&path);
    if has("synced") {
        setup.journal.prepare(&path);
        workload::run_synced(&mut *store, plan)
    } else {
        workload::run(&mut *store, plan, &path)
    }
}

/// Prints the medians, and in parentheses their ratios to the first configuration's.
fn print(names: &[&str], runs: &BTreeMap<&str, Vec<Vec<(String, f64)>>>) {
    let medians = |name: &str| {
        let runs = &runs[name];
        let figures = 0..runs[0].len();
        figures.map(|figure| median(runs.iter().map(|run| run[figure].1).collect())).collect::<Vec<f64>>()
    };
    let Some(first) = names.first() else { return };
    let titles: Vec<&str> = runs[first][0].iter().map(|(title, _)| &**title).collect();
    println!("| | {} |", titles.join(" | "));
    println!("| --- |{}", " --- |".repeat(titles.len()));
    let base = medians(first);
    for name in names {
        let cells = medians(name).into_iter().zip(&base).map(|(figure, base)| {
            let digits = if figure < 20.0 { 2 } else { 0 };
            format!("{figure:.digits$} ({:.2})", figure / base)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) { (figures[middle - 1] + figures[middle]) / 2.0 } else { figures[middle] }
}
