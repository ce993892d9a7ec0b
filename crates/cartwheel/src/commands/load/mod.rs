//! `cartwheel load`: a file's records into a bucket.
//!
//! A record is stored in the place of what its key holds, so a file can be loaded again, and of lines with one key the last
//! stays. A small file beside the loaded one remembers up to where everything is stored; after a crash the same command goes on
//! from there. What is then sent a second time replaces itself, or, blind, is the same write under the same name: neither makes a sibling.

mod args;
mod jsonl;
mod progress;
mod record;
mod report;
mod source;
mod state;
mod store;
mod table;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_core::value::key::{KeyError, check_bucket};
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::exit::{Ending, Exit};
use crate::terminal::output::{self, formatted};
use crate::terminal::signals;
pub use args::{FileFormat, LoadArgs};
use progress::Place;
use record::{Shape, Start};
use report::LoadSummary;
use source::Source;
use state::{Identity, StateFile};
use store::{RecordFailure, Store};

/// How often it is shown, and how often remembered, how far the load has come.
const SHOW_EVERY: Duration = Duration::from_millis(100);
const REMEMBER_EVERY: Duration = Duration::from_millis(500);

/// Why a file was not loaded as a whole.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// The bucket has no name that a bucket can have.
    #[error(transparent)]
    Bucket(#[from] KeyError),
    /// Nobody knows what the file is.
    #[error("{0} does not tell by its name what it is: give --format jsonl, csv or tsv")]
    Format(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file could not be read to its end.
    #[error("cannot read on: {0}")]
    ReadOn(std::io::Error),
    /// It is no file.
    #[error("{0} is a directory: give a file")]
    Directory(PathBuf),
    /// It is no table.
    #[error("cannot load {0}: {1}")]
    Table(PathBuf, String),
    /// The state file cannot be used.
    #[error("cannot keep the state of the load in {0}: {1}. Give another place with --state")]
    State(PathBuf, std::io::Error),
    /// The state file is another load's.
    #[error(
        "{0} is the state of another load, or the file has changed since: remove it to begin anew, or give --state"
    )]
    OtherLoad(PathBuf),
    /// Another load is under way.
    #[error(
        "another load keeps its state in {0} and is under way: wait until it has ended, or give another place with --state"
    )]
    UnderWay(PathBuf),
    /// A record could not be loaded.
    #[error("line {line}: {why}. {after}")]
    Record {
        /// The line that it begins on.
        line: u64,
        /// What is wrong.
        why: String,
        /// The exit code that says so.
        exit: Exit,
        /// What is there by now, and how to go on.
        after: String,
    },
    /// The user stopped it.
    #[error("stopped. {0}")]
    Stopped(String),
    /// There is no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(#[from] getrandom::Error),
    /// Signals cannot be listened to, or the summary not be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A task of the load itself ended badly.
    #[error("a task of the load broke down: report this as a bug")]
    Broken,
}

impl Ending for LoadError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Record { exit, .. } => *exit,
            Self::OtherLoad(_) | Self::UnderWay(_) => Exit::Refused,
            Self::Stopped(_) => Exit::Interrupted,
            Self::Bucket(_)
            | Self::Format(_)
            | Self::Read(..)
            | Self::ReadOn(_)
            | Self::Directory(_)
            | Self::Table(..)
            | Self::State(..) => Exit::Usage,
            Self::NoRandomness(_) | Self::Io(..) | Self::Broken => Exit::NotFound,
        }
    }
}

/// Loads a file, and sums up on standard output. The exit status says whether a record was skipped, by this run or an earlier one.
///
/// # Errors
/// If it cannot be loaded as a whole; then it is said up to where everything is stored.
pub async fn run(args: &LoadArgs) -> Result<ExitCode, LoadError> {
    check_bucket(args.bucket.as_bytes())?;
    let stopped =
        signals::stop(signals::Parent::Unwatched).map_err(|error| LoadError::Io("listen to signals", error))?;
    let Opened { source, identity, state, place, bytes } = open(args)?;
    let store = Arc::new(Store::new(args, identity, place)?);
    if let Some(state) = &state {
        // At once: that it cannot be written should not come out only when it is needed.
        state.write(place)?;
        if place.stored + place.skipped > 0 {
            output::note(format_args!(
                "going on from line {}: what comes before it is stored or was skipped",
                place.line
            ));
        }
    }
    let begun = Instant::now();
    let (ended, interrupted) = {
        let mut load = pin!(store.run(source, usize::from(args.connections)));
        let mut stopped = pin!(stopped);
        let mut watch = pin!(watch(&store, state.as_ref(), bytes));
        let mut interrupted = false;
        let ended = loop {
            tokio::select! {
                ended = &mut load => break ended,
                failed = &mut watch => { store.stop(); break load.await.and(failed); }
                _ = &mut stopped, if !interrupted => { interrupted = true; store.stop(); }
            }
        };
        // The progress bar is off the terminal from here on: the summary has lines of its own.
        (ended, interrupted)
    };
    let failure = store.failure();
    let complete = ended.is_ok() && failure.is_none() && !interrupted;
    if let Some(state) = &state {
        if complete { state.remove()? } else { state.write(store.place())? }
    }
    print(args, &LoadSummary::new(args, &store, place, begun.elapsed(), complete))?;
    ended?;
    match failure {
        Some(RecordFailure { line, why, exit }) => {
            Err(LoadError::Record { line, why, exit, after: after(args, store.place(), exit) })
        }
        None if interrupted => Err(LoadError::Stopped(after(args, store.place(), Exit::Interrupted))),
        None if store.place().skipped > 0 => Ok(Exit::Refused.into()),
        None => Ok(Exit::Done.into()),
    }
}

/// What a load begins with.
struct Opened {
    source: Source,
    identity: Identity,
    /// None for what cannot be read again.
    state: Option<StateFile>,
    place: Place,
    /// The size of the file, where it has one.
    bytes: Option<u64>,
}

fn open(args: &LoadArgs) -> Result<Opened, LoadError> {
    let format = args.format().ok_or_else(|| LoadError::Format(args.file.clone()))?;
    let shape = Shape::new(args);
    let place = Place::before(Start::FILE);
    if args.is_stdin() {
        let source = Source::stdin(format, shape)?;
        return Ok(Opened { source, identity: Identity::of_stream()?, state: None, place, bytes: None });
    }
    let cannot_read = |error| LoadError::Read(args.file.clone(), error);
    let metadata = fs::metadata(&args.file).map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory(args.file.clone()));
    }
    if !metadata.is_file() {
        return Err(cannot_read(std::io::Error::other("it is no plain file: pipe it in, and give - instead")));
    }
    let identity = Identity::of_file(args, format).map_err(cannot_read)?;
    let state = StateFile::new(&args.state_path(), identity.clone())?;
    let known = state.read()?.filter(|place| place.offset > 0);
    let source = Source::open(&args.file, format, shape, known.map(Place::start))?;
    Ok(Opened { source, identity, state: Some(state), place: known.unwrap_or(place), bytes: Some(metadata.len()) })
}

/// Shows on a terminal how far the load has come, and remembers it; ends only if it cannot be remembered.
async fn watch(store: &Store, state: Option<&StateFile>, bytes: Option<u64>) -> Result<(), LoadError> {
    let template = match bytes {
        Some(_) => "{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left",
        None => "{spinner} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
    let _clear = Clear(&bar);
    let begun = (Instant::now(), store.place());
    let mut remembered = begun;
    loop {
        tokio::time::sleep(SHOW_EVERY).await;
        let place = store.place();
        let rate = (place.stored - begun.1.stored) as f64 / begun.0.elapsed().as_secs_f64();
        bar.set_position(place.offset);
        bar.set_message(format!("{} records, {rate:.0}/s", place.stored));
        if remembered.0.elapsed() > REMEMBER_EVERY && remembered.1 != place {
            if let Some(state) = state {
                // Here, though it blocks: left to another thread, it could end after the load has, and leave an old state behind.
                // The lanes have threads of their own.
                state.write(place)?;
            }
            remembered = (Instant::now(), place);
        }
    }
}

/// Takes the bar off the terminal when it is dropped.
struct Clear<'a>(&'a ProgressBar);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What is there by now, and how to go on after the load ended with `exit`.
fn after(args: &LoadArgs, place: Place, exit: Exit) -> String {
    let Place { line, stored, skipped, .. } = place;
    let records = if stored == 1 { "record" } else { "records" };
    let but = if skipped > 0 { format!(" but {skipped} skipped ones") } else { String::new() };
    let there = format!("All before line {line} is stored{but}, {stored} {records} in all");
    let skip = if exit == Exit::Refused { ", with --skip-bad without what is refused" } else { "" };
    if args.is_stdin() {
        return format!("{there}; begin anew{skip}");
    }
    let state: &Path = &args.state_path();
    format!(
        "{there}; the same command goes on from there{skip} (if the file is changed, remove {} first)",
        state.display()
    )
}

fn print(args: &LoadArgs, summary: &LoadSummary) -> Result<(), LoadError> {
    let text = formatted(args.shown, summary, |summary, _| summary.text());
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| LoadError::Io("write the summary", error))
}
