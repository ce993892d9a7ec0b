//! `cartwheel bench staleness`: how many reads see a write some time after it was acknowledged, beside what the nodes predict.
//!
//! Each trial writes a new key through its first home and reads it through its second. So the outcome of a trial is whether the read finds anything.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cartwheel_client::{Client, HomeTable, Options, Ring, Value};
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use super::BenchError;
use crate::cli::{Endpoints, FormatArgs};
use crate::terminal::output;
use crate::terminal::signals;
use crate::terminal::table::table;

/// Every so many trials, a read of all replicas has the nodes measure how long reads take: the trials' own reads may need one replica alone, which
/// is the reader's.
const MEASURE_EVERY: u64 = 4;

#[derive(Debug, Args)]
pub struct StalenessArgs {
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The bucket, preferably one that nothing else uses.
    #[arg(long, default_value = "bench-staleness")]
    pub bucket: String,
    /// Replicas that a read waits for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub r: u8,
    /// Replicas that a write waits for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub w: u8,
    /// Milliseconds from the acknowledgement to the read; several are measured in turn.
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [0.0, 0.5, 1.0, 2.0, 5.0, 20.0])]
    pub after: Vec<f64>,
    /// The number of writes and reads for each time.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub trials: u64,
    /// Trials under way at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub connections: u64,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// The nodes, and where keys are.
struct Setup {
    bucket: String,
    table: HomeTable,
    /// A client of each member alone.
    clients: Vec<Client>,
    n: u8,
    write: Options,
    read: Options,
    /// Sets the keys of this run apart.
    run: u64,
}

/// What was counted for one time.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    fresh: u64,
    stale: u64,
    failed: u64,
    /// The times from acknowledgement to read, summed, in milliseconds.
    after_ms: f64,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds from the acknowledgement, as the client saw it, to the read; the mean of what was waited.
    after_ms: f64,
    trials: u64,
    stale: u64,
    failed: u64,
    /// The share of reads that saw the write.
    observed: f64,
    /// The mean of what the nodes predict for that time.
    predicted: Option<f64>,
}

/// What was observed and predicted.
#[derive(Debug, Serialize)]
struct StalenessReport {
    bucket: String,
    n: u8,
    r: u8,
    w: u8,
    lines: Vec<Line>,
}

/// Runs the trials and prints what was observed beside what is predicted.
///
/// # Errors
/// If the cluster cannot be reached, or has too few nodes.
pub async fn run(args: &StalenessArgs) -> Result<ExitCode, BenchError> {
    let setup = Arc::new(Setup::new(args).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped =
        signals::stop(signals::Parent::Unwatched).map_err(|error| BenchError::Io("install signal handlers", error))?;
    let mut stopped = pin!(stopped);
    // The first writes find no connections, and give the nodes something to predict from.
    let mut measured = Vec::new();
    for (number, after_ms) in (0..).zip([0.0].iter().chain(&args.after)) {
        let trials = trials(&setup, args, *after_ms, number, &stop);
        let counts = tokio::select! {
            counts = trials => counts,
            _ = &mut stopped => {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        };
        if number > 0 {
            measured.push(counts);
        }
    }
    if measured.is_empty() {
        return Err(BenchError::Stopped);
    }
    let report = setup.report(args, &measured).await?;
    let text = output::formatted(args.format, &report, |report, _| text(report));
    output::print(text.as_bytes()).map_err(|_| BenchError::Stopped)?;
    Ok(ExitCode::SUCCESS)
}

impl Setup {
    async fn new(args: &StalenessArgs) -> Result<Self, BenchError> {
        let any = args.endpoints.client()?;
        let (ring, settings): (Ring, _) = (any.ring().await?, any.bucket(&args.bucket).await?);
        if settings.n < 2 || ring.members.len() < 2 {
            return Err(BenchError::Contradiction(
                "keys with one replica are never stale: use a bucket with n of 2 or more, and two nodes or more",
            ));
        }
        if args.r > settings.n || args.w > settings.n {
            return Err(BenchError::Contradiction("--r and --w cannot be more than the bucket's n"));
        }
        let clients = ring.members.iter().map(|member| args.endpoints.client_of([&member.http]));
        let options = |replicas: u8| Options { replicas: Some(replicas), ..Options::default() };
        Ok(Self {
            bucket: args.bucket.clone(),
            table: HomeTable::new(&ring)?,
            clients: clients.collect::<Result<_, _>>()?,
            n: settings.n,
            write: options(args.w),
            read: options(args.r),
            run: fastrand::u64(..),
        })
    }

    /// Writes a new key through one home and reads it through another after a time.
    async fn trial(&self, number: u64, after: Duration, counts: &mut Counts) {
        let key = format!("{:016x}-{number}", self.run);
        let homes = self.table.homes_of(self.bucket.as_bytes(), key.as_bytes());
        let &[writer, reader, ..] = homes else { return counts.failed += 1 };
        let (writer, reader) = (&self.clients[writer], &self.clients[reader]);
        let value = Value::new(vec![b'x'; 100], "application/octet-stream");
        if writer.put_with(&self.bucket, &key, value, None, &self.write).await.is_err() {
            return counts.failed += 1;
        }
        let acknowledged = Instant::now();
        wait_until(acknowledged + after).await;
        let begun = Instant::now();
        match reader.get_with(&self.bucket, &key, &self.read).await {
            Ok(read) if read.values.is_empty() => counts.stale += 1,
            Ok(_) => counts.fresh += 1,
            Err(_) => return counts.failed += 1,
        }
        counts.after_ms += millis(begun - acknowledged);
        if number.is_multiple_of(MEASURE_EVERY) {
            let all = Options { replicas: Some(self.n), ..Options::default() };
            let _ = writer.get_with(&self.bucket, &key, &all).await;
        }
    }

    async fn report(&self, args: &StalenessArgs, measured: &[Counts]) -> Result<StalenessReport, BenchError> {
        let mut lines = Vec::new();
        for counts in measured {
            let after_ms = counts.after_ms / counts.read_count().max(1.0);
            lines.push(Line {
                after_ms,
                trials: counts.fresh + counts.stale + counts.failed,
                stale: counts.stale,
                failed: counts.failed,
                observed: counts.fresh as f64 / counts.read_count().max(1.0),
                predicted: self.predicted(args, after_ms).await?,
            });
        }
        let (bucket, n) = (self.bucket.clone(), self.n);
        Ok(StalenessReport { bucket, n, r: args.r, w: args.w, lines })
    }

    /// The mean of the predictions of all nodes that have one.
    async fn predicted(&self, args: &StalenessArgs, after_ms: f64) -> Result<Option<f64>, BenchError> {
        let mut probabilities = Vec::new();
        for client in &self.clients {
            let predictions = client.staleness(&self.bucket, Some(after_ms)).await?.predictions;
            let of = predictions.iter().find(|one| (one.r, one.w) == (usize::from(args.r), usize::from(args.w)));
            probabilities.extend(of.and_then(|one| one.fresh.first()).map(|fresh| fresh.probability));
        }
        let sum: f64 = probabilities.iter().sum();
        Ok((!probabilities.is_empty()).then(|| sum / probabilities.len() as f64))
    }
}

impl Counts {
    fn and(self, other: &Self) -> Self {
        Self {
            fresh: self.fresh + other.fresh,
            stale: self.stale + other.stale,
            failed: self.failed + other.failed,
            after_ms: self.after_ms + other.after_ms,
        }
    }

    fn read_count(&self) -> f64 {
        (self.fresh + self.stale) as f64
    }
}

/// All trials for one time.
async fn trials(
    setup: &Arc<Setup>,
    args: &StalenessArgs,
    after_ms: f64,
    series: u64,
    stop: &Arc<AtomicBool>,
) -> Counts {
    let after = Duration::try_from_secs_f64(after_ms / 1_000.0).unwrap_or_default();
    let mut workers = JoinSet::new();
    for worker in 0..args.connections {
        let (setup, stop, connections, trials) = (setup.clone(), stop.clone(), args.connections, args.trials);
        workers.spawn(async move {
            let mut counts = Counts::default();
            for number in (worker..trials).step_by(usize::try_from(connections).unwrap_or(1)) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                setup.trial(series * trials + number, after, &mut counts).await;
            }
            counts
        });
    }
    let mut all = Counts::default();
    while let Some(counts) = workers.join_next().await {
        all = all.and(&counts.unwrap_or_default());
    }
    all
}

/// Waits until a time. The timer's steps are a millisecond, so the last of it is spent asking for the time.
async fn wait_until(at: Instant) {
    const STEP: Duration = Duration::from_millis(2);
    if let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| *left > STEP) {
        tokio::time::sleep(left - STEP).await;
    }
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn text(report: &StalenessReport) -> String {
    let StalenessReport { bucket, n, r, w, lines } = report;
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", 100.0 * share));
    let row = |line: &Line| {
        [
            format!("{:.2} ms", line.after_ms),
            line.trials.to_string(),
            line.failed.to_string(),
            line.stale.to_string(),
            percent(Some(line.observed)),
            percent(line.predicted),
        ]
    };
    let header = ["AFTER", "TRIALS", "FAILED", "STALE", "OBSERVED", "PREDICTED"];
    format!(
        "{bucket}: n={n}, r={r}, w={w}; writes through one home, reads through another\n\n{}\nPREDICTED is for a read that reaches its node this long \
         after the acknowledgement leaves the other;\nthe way to the client and back comes on top, and makes reads fresher\n",
        table(header, lines.iter().map(row))
    )
}
