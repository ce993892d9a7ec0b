//! CPU instructions per get and put of the protocol core, beside those recorded in `instructions.txt`.
//!
//! ```sh
//! cargo bench --profile checks -p cartwheel-core --bench instructions              # prints both
//! cargo bench --profile checks -p cartwheel-core --bench instructions -- --check   # fails if a case has risen by over 5%
//! cargo bench --profile checks -p cartwheel-core --bench instructions -- --record  # records what is measured
//! ```
//!
//! Valgrind counts the instructions of two runs of each case, the second with twice the operations of the first. The difference is the cost
//! of the additional operations without the set-up. Time and randomness are arguments of the core, so the counts of one build differ by under
//! 0.1%, however busy the machine is.
//!
//! A count covers all nodes until they have nothing left to do for the operation: their steps, the encoding and decoding of the frames between
//! them, and an in-memory map in place of each store. Sockets, HTTP and disks are not part of it. It depends on the compiler, on the
//! processor's instruction set and a little on the C library, which allocates and copies memory.
//!
//! These commands build without the feature `mutations`, which makes the core compute digests twice. Do not add `--all-features`.

#[path = "../tests/it/pair/mod.rs"]
mod pair;

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs, io};

use bytes::Bytes;
use cartwheel_core::cluster::membership::{ChangeKind, Conflict, SettingsPatch, View};
use cartwheel_core::config::{Limits, NodeConfig};
use cartwheel_core::message::client::{ClientId, Consistency, Get, Got, Operation, Put, PutDone, Reply, Request};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;

use pair::{EVERY, Pair, config, history, id};

/// Operations of the shorter run. The longer one has twice as many.
const OPERATIONS: usize = 100;
const VALUE_BYTES: usize = 1_000;
const PARTITIONS: u32 = 256;
/// The change, in percent, above which a rise fails the check and a fall is reported. A smaller one may come from the layout of the compiled
/// code alone.
const CHANGE_MAX: f64 = 5.0;

const BUCKET: Bytes = Bytes::from_static(b"measured");

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const RECORD: &str = "cargo bench --profile checks -p cartwheel-core --bench instructions -- --record";
/// The line of the table that names the processor architecture.
const ARCHITECTURE: &str = "architecture";
const NO_VALGRIND: &str =
    "valgrind is not installed; install it, for example with `apt-get install valgrind` or `dnf install valgrind`";
/// The argument with which this program performs one case, under Valgrind.
const PERFORM: &str = "--perform";

const CASES: [Case; 11] = [
    get("get, 1 node, lww", 1, 1, Conflict::Lww),
    get("get, 1 node, siblings", 1, 1, Conflict::Siblings),
    Case { is_cached: false, ..get("get from the store, 1 node, lww", 1, 1, Conflict::Lww) },
    put("put, 1 node, lww", 1, 1, Conflict::Lww),
    put("put, 1 node, siblings", 1, 1, Conflict::Siblings),
    get("get R=1, 3 nodes, lww", 3, 1, Conflict::Lww),
    get("get R=1, 3 nodes, siblings", 3, 1, Conflict::Siblings),
    get("get R=2, 3 nodes, lww", 3, 2, Conflict::Lww),
    get("get R=2, 3 nodes, siblings", 3, 2, Conflict::Siblings),
    put("put W=2, 3 nodes, lww", 3, 2, Conflict::Lww),
    put("put W=2, 3 nodes, siblings", 3, 2, Conflict::Siblings),
];

/// An operation on a record of [`VALUE_BYTES`] bytes. A put replaces a value: blindly under last write wins, and with its context otherwise.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    is_put: bool,
    nodes: usize,
    /// R or W.
    quorum: u8,
    conflict: Conflict,
    /// Whether nodes keep decoded records in memory.
    is_cached: bool,
}

const fn get(name: &'static str, nodes: usize, r: u8, conflict: Conflict) -> Case {
    Case { name, is_put: false, nodes, quorum: r, conflict, is_cached: true }
}

const fn put(name: &'static str, nodes: usize, w: u8, conflict: Conflict) -> Case {
    Case { name, is_put: true, nodes, quorum: w, conflict, is_cached: true }
}

fn main() -> ExitCode {
    let arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    // Cargo adds `--bench`.
    let arguments: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => print(),
        ["--check"] => check(),
        ["--record"] => record(),
        [PERFORM, name, operations] => perform_named(name, operations),
        _ => Err(format!("unknown arguments {arguments:?}: pass nothing, --check or --record")),
    };
    if let Err(why) = done {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Prints what is measured and what is recorded.
fn print() -> Result<(), String> {
    if !has_valgrind() {
        skip(NO_VALGRIND);
        return Ok(());
    }
    measure(&Table::read()?).map(drop)
}

/// Fails if a case has risen.
fn check() -> Result<(), String> {
    let recorded = Table::read()?;
    if !recorded.cases.keys().eq(CASES.iter().map(|case| case.name).collect::<BTreeSet<_>>()) {
        return Err(format!("{TABLE} has other cases than the bench: run `{RECORD}` and commit the table"));
    }
    if recorded.architecture != ARCH {
        skip(&format!("the table was recorded on {}, and this machine is {ARCH}", recorded.architecture));
        return Ok(());
    }
    if !has_valgrind() {
        skip(NO_VALGRIND);
        return Ok(());
    }
    compare(&measure(&recorded)?, &recorded)
}

/// Writes what is measured to the table.
fn record() -> Result<(), String> {
    if !has_valgrind() {
        return Err(NO_VALGRIND.to_owned());
    }
    // A table that is missing or damaged is replaced.
    let measured = measure(&Table::read().unwrap_or_default())?;
    fs::write(TABLE, measured.to_string()).map_err(|error| format!("cannot write {TABLE}: {error}"))
}

/// Prints why nothing was measured: in CI as a warning on standard error.
fn skip(why: &str) {
    match env::var_os("CI") {
        Some(_) => eprintln!("warning: instructions were not counted: {why}"),
        None => println!("instructions were not counted: {why}"),
    }
}

fn has_valgrind() -> bool {
    // Whatever else is wrong with it shows when it is used.
    !matches!(Command::new("valgrind").arg("--version").output(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Counts all cases, and prints each beside the recorded value.
fn measure(recorded: &Table) -> Result<Table, String> {
    println!("{:<38} {:>12} {:>12} {:>8}", "instructions per operation", "now", "recorded", "change");
    let mut cases = BTreeMap::new();
    for case in &CASES {
        let instructions = instructions(case).map_err(|why| format!("cannot count {}: {why}", case.name))?;
        let (before, change) = match recorded.cases.get(case.name) {
            Some(&before) => (before.to_string(), format!("{:+.1}%", change(before, instructions))),
            None => ("-".to_owned(), "-".to_owned()),
        };
        println!("{:<38} {instructions:>12} {before:>12} {change:>8}", case.name);
        cases.insert(case.name.to_owned(), instructions);
    }
    Ok(Table { architecture: ARCH.to_owned(), cases })
}

/// The instructions of one operation.
fn instructions(case: &Case) -> Result<u64, String> {
    // Both at the same time: how busy the machine is does not matter.
    let (shorter, longer) = (start(case, OPERATIONS)?, start(case, 2 * OPERATIONS)?);
    let (shorter, longer) = (count(shorter)?, count(longer)?);
    let additional = longer.checked_sub(shorter).ok_or("the run with twice the operations took fewer instructions")?;
    Ok(additional / OPERATIONS as u64)
}

/// Starts this program under Valgrind, to perform so many operations.
fn start(case: &Case, operations: usize) -> Result<Child, String> {
    let program = env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    // Of Valgrind's tools that count instructions, Callgrind is the fastest.
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(program).args([PERFORM, case.name, &operations.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| format!("cannot run valgrind: {error}"))
}

/// The instructions that Valgrind has counted when the program ends.
fn count(valgrind: Child) -> Result<u64, String> {
    let output = valgrind.wait_with_output().map_err(|error| format!("cannot read what valgrind prints: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind ended with {}:\n{text}", output.status));
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind printed no count:\n{text}"))
}

/// The change in percent.
fn change(before: u64, now: u64) -> f64 {
    100.0 * (now as f64 / before as f64 - 1.0)
}

fn compare(measured: &Table, recorded: &Table) -> Result<(), String> {
    let (mut risen, mut fallen) = (String::new(), String::new());
    for (name, &now) in &measured.cases {
        let before = recorded.cases[name];
        let change = change(before, now);
        let line = format!("  {name}: from {before} to {now} instructions, {change:+.1}%\n");
        if change > CHANGE_MAX {
            risen += &line;
        } else if change < -CHANGE_MAX {
            fallen += &line;
        }
    }
    if !fallen.is_empty() {
        println!(
            "Good news, these fell by over {CHANGE_MAX}%:\n{fallen}To keep it, run `{RECORD}` and commit the table."
        );
    }
    if risen.is_empty() {
        return Ok(());
    }
    Err(format!("these rose by over {CHANGE_MAX}%:\n{risen}If it is meant, run `{RECORD}` and commit the table."))
}

/// The recorded instructions per operation.
#[derive(Default)]
struct Table {
    architecture: String,
    cases: BTreeMap<String, u64>,
}

impl Table {
    fn read() -> Result<Self, String> {
        let text =
            fs::read_to_string(TABLE).map_err(|error| format!("cannot read {TABLE}: {error}; `{RECORD}` writes it"))?;
        let mut table = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            if name.trim_end() == ARCHITECTURE {
                table.architecture = value.to_owned();
                continue;
            }
            let instructions = value.parse().map_err(|_| {
                format!("{TABLE}, line {number}: {line:?} does not end with a count; `{RECORD}` replaces the table")
            })?;
            table.cases.insert(name.trim_end().to_owned(), instructions);
        }
        Ok(table)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# CPU instructions per operation of the protocol core, on records of {VALUE_BYTES} bytes.")?;
        writeln!(f, "# Written by `{RECORD}`.\n#")?;
        writeln!(f, "# Another compiler or C library counts differently: record the table again when they change.")?;
        writeln!(f, "{ARCHITECTURE:<38} {:>12}", self.architecture)?;
        // In the order of the bench.
        for case in &CASES {
            writeln!(f, "{:<38} {:>12}", case.name, self.cases[case.name])?;
        }
        Ok(())
    }
}

/// Performs a case in the process whose instructions are counted.
fn perform_named(name: &str, operations: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| format!("no case {name:?}"))?;
    let operations = operations.parse().map_err(|error| format!("operations {operations:?}: {error}"))?;
    perform(case, operations);
    Ok(())
}

/// Performs so many operations, after a set-up that does not depend on their number.
fn perform(case: &Case, operations: usize) {
    let mut cluster = Cluster::new(case);
    let contexts: Vec<Option<Bytes>> = (0..2 * OPERATIONS).map(|number| cluster.put(number, 1, None).context).collect();
    for (number, context) in contexts.into_iter().enumerate().take(operations) {
        match (case.is_put, case.conflict) {
            (false, _) => drop(cluster.get(number)),
            (true, Conflict::Lww) => drop(cluster.put(number, 2, None)),
            (true, Conflict::Siblings) => drop(cluster.put(number, 2, context)),
        }
    }
    let siblings = cluster.get(0).siblings;
    let expected = content(if case.is_put { 2 } else { 1 });
    assert!(siblings.len() == 1 && siblings[0].content == expected, "only the last write is visible");
}

fn content(version: u8) -> Content {
    Content::untyped(vec![version; VALUE_BYTES])
}

fn key(number: usize) -> Key {
    Key::new(BUCKET, format!("key-{number:06}").into()).expect("a valid key")
}

/// Nodes that are homes of all keys, the first of which takes the requests.
struct Cluster {
    pair: Pair,
    quorum: u8,
    requests: u64,
}

impl Cluster {
    fn new(case: &Case) -> Self {
        let mut pair = Pair::on(BTreeMap::new());
        let view = view(case);
        for node in 1..=case.nodes {
            let limits = if case.is_cached { Limits::DEFAULT } else { pair::LIMITS };
            let config = NodeConfig { limits, ..config(node, 1, Some(EVERY)) };
            pair.start(Node::new(config, view.clone()), node);
        }
        // From here on puts maintain the Merkle trees, and no exchange begins.
        pair.pass(Duration::from_secs(60));
        assert!(pair.nodes.values().all(|node| node.exchange().trees().unready() == 0), "the trees are built");
        pair.reset();
        Self { pair, quorum: case.quorum, requests: 0 }
    }

    fn get(&mut self, number: usize) -> Got {
        let get = Get {
            key: key(number),
            consistency: Consistency::Eventual,
            r: Some(self.quorum),
            seen: None,
            wants_context: true,
        };
        match self.request(Operation::Get(get)) {
            Reply::Got(got) => got,
            Reply::Put(_) | Reply::Inspected(_) => panic!("a get has another reply"),
        }
    }

    fn put(&mut self, number: usize, version: u8, context: Option<Bytes>) -> PutDone {
        let put = Put { w: Some(self.quorum), context, ..Put::blind(key(number), content(version)) };
        match self.request(Operation::Put(put)) {
            Reply::Put(done) => done,
            Reply::Got(_) | Reply::Inspected(_) => panic!("a put has another reply"),
        }
    }

    /// Sends a request to the first node, and runs all nodes until they have nothing left to do.
    fn request(&mut self, operation: Operation) -> Reply {
        self.requests += 1;
        self.pair.now = self.pair.now + Duration::from_micros(100);
        let request = Request { operation, timeout: Duration::from_secs(1) };
        self.pair.input(1, Input::Client(ClientId(self.requests), request));
        let (_, outcome) = self.pair.replies.pop().expect("every request gets a reply");
        self.pair.reset();
        outcome.expect("healthy nodes refuse nothing")
    }
}

fn view(case: &Case) -> Arc<View> {
    let mut history = history(case.nodes, PARTITIONS);
    let settings = SettingsPatch { conflict: Some(case.conflict), ..SettingsPatch::default() };
    history.record(Hlc::at(WallMs(2)), id(1), ChangeKind::Bucket { name: BUCKET, settings });
    Arc::new(history.view().expect("a history with its bootstrap"))
}
