//! Replays real purchases as shopping carts and proves that every add is there.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cart::progress::Progress;
use cart::proof::{self, Proof};
use cart::purchases::{self, Purchase};
use cart::replay::{self, Replayed};
use clap::Parser;

/// Replays 69,659 real purchases of 23,570 customers as "add to cart", by writers that do not wait for each other, then reads
/// all carts back and proves that every add is there.
///
/// Start a cluster first: `cargo run --release -- dev`.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// The nodes to write through and read from.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081,http://127.0.0.1:8082,http://127.0.0.1:8083"
    )]
    nodes: Vec<String>,
    /// Replay only the first so many purchases.
    #[arg(long)]
    limit: Option<usize>,
    /// Keep the carts in this bucket; without it, in a new one whose name has the time in it. Carts that are in the bucket
    /// already are added to.
    #[arg(long)]
    bucket: Option<String>,
    /// How many write, and then read, at the same time.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000))]
    writers: u16,
}

/// How many faulty carts are shown.
const FAULTS_SHOWN: usize = 10;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    match runtime.block_on(run(&args)) {
        Ok(proof) if proof.faults.is_empty() => ExitCode::SUCCESS,
        Ok(proof) => failed(&format!("{} carts are not what they should be", proof.faults.len())),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<Proof, String> {
    let mut purchases = purchases::parse(purchases::CDNOW).map_err(|error| error.to_string())?;
    purchases.truncate(args.limit.unwrap_or(usize::MAX));
    let purchases: Arc<[Purchase]> = purchases.into();
    let customers = purchases::by_customer(&purchases).len();
    let bucket = match &args.bucket {
        Some(bucket) => bucket.clone(),
        None => new_bucket()?,
    };
    let writers = usize::from(args.writers);
    println!(
        "{} purchases of {customers} customers, by {writers} writers through {} nodes, into the bucket {bucket}",
        purchases.len(),
        args.nodes.len()
    );

    let clients = replay::clients(&args.nodes, writers, 0).map_err(|error| error.to_string())?;
    let (begun, progress) = (Instant::now(), Arc::new(Progress::shown("adding", purchases.len() as u64)));
    let replayed = replay::replay(clients, &bucket, purchases.clone(), &progress).await.map_err(|e| e.to_string())?;
    progress.finish();
    print_replayed(&replayed, &progress, begun);

    // From the next node on, so that hardly a cart is read where it was written.
    let clients = replay::clients(&args.nodes, writers, 1).map_err(|error| error.to_string())?;
    let (begun, progress) = (Instant::now(), Arc::new(Progress::shown("reading", customers as u64)));
    let proof = proof::prove(clients, &bucket, &purchases, &progress).await.map_err(|error| error.to_string())?;
    progress.finish();
    print_proof(&proof, purchases.len(), &progress, begun);
    Ok(proof)
}

fn print_replayed(replayed: &Replayed, progress: &Progress, begun: Instant) {
    println!(
        "added   {} items in {:.1} s, {:.0}/s (each a get and a put); {} adds were tried anew",
        replayed.adds,
        begun.elapsed().as_secs_f64(),
        progress.per_second(),
        replayed.repeated
    );
    println!(
        "merged  siblings in {} of these gets (answered with 300), at most {} at once",
        replayed.merges, replayed.siblings_max
    );
}

fn print_proof(proof: &Proof, expected: usize, progress: &Progress, begun: Instant) {
    println!(
        "read    {} carts with r=2 in {:.1} s, {:.0}/s; {} of them still siblings",
        proof.carts,
        begun.elapsed().as_secs_f64(),
        progress.per_second(),
        proof.unmerged
    );
    for fault in proof.faults.iter().take(FAULTS_SHOWN) {
        println!("fault   customer {}: missing {:?}, surplus {:?}", fault.customer, fault.missing, fault.surplus);
    }
    let verdict =
        if proof.faults.is_empty() { "every add is there, and nothing else" } else { "NOT all as it should be" };
    println!("found   {} of {expected} adds: {verdict}", proof.found);
}

/// A bucket that no run before used, so that what other runs left cannot stand in for what this one loses.
fn new_bucket() -> Result<String, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let random = getrandom::u32().map_err(|error| format!("the operating system gave no random bytes: {error}"))?;
    Ok(format!("carts-{}-{random:08x}", now.as_secs()))
}
