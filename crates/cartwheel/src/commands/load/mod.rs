//! `cartwheel load`: loads the records of a file into a bucket.
//!
//! A record replaces the value of its key. So a file can be loaded again, and of several records with one key the last one remains. A
//! state file beside the loaded file holds the position before which all records are stored; after a crash the same command resumes
//! there. A record that is then sent a second time replaces itself, or, in a blind load, repeats its write under the same idempotency
//! key: neither makes a sibling.

mod args;
mod export;
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

use crate::terminal::exit::{Exit, ToExit};
use crate::terminal::output::{self, formatted};
use crate::terminal::signals;
pub use args::{FileFormat, LoadArgs};
use progress::Checkpoint;
use record::{Shape, Start};
use report::LoadSummary;
use source::Source;
use state::{Identity, StateFile};
use store::{RecordFailure, Store};

/// The periods at which the progress is shown and saved.
const SHOW_EVERY: Duration = Duration::from_millis(100);
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// The reasons why a file was not loaded completely.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The client cannot be created.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// The name of the bucket is invalid.
    #[error(transparent)]
    Bucket(#[from] KeyError),
    /// The file's format is unknown.
    #[error("the name of {0} does not show its format: pass --format jsonl, csv or tsv")]
    Format(PathBuf),
    /// No field holds the key.
    #[error("pass --key FIELD, the field or column that holds the key")]
    NoKey,
    /// The file cannot be opened or read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file could not be read to its end.
    #[error("cannot read the rest of the file: {0}")]
    ReadOn(std::io::Error),
    /// The path names no regular file.
    #[error("{0} is a directory: pass a file")]
    Directory(PathBuf),
    /// The file is not a valid table.
    #[error("cannot load {0}: {1}")]
    Table(PathBuf, String),
    /// The state file cannot be used.
    #[error("cannot use the state file {0}: {1}; choose another path with --state")]
    State(PathBuf, std::io::Error),
    /// The state file belongs to another load.
    #[error(
        "{0} is the state of another load, or the loaded file has changed: remove it to start over, or choose another path with --state"
    )]
    OtherLoad(PathBuf),
    /// Another process runs this load.
    #[error("another load is using the state file {0}: wait until it ends, or choose another path with --state")]
    StateLocked(PathBuf),
    /// A record could not be loaded.
    #[error("line {line}: {why}. {after}")]
    Record {
        /// The first line of the record.
        line: u64,
        /// The reason.
        why: String,
        /// The exit code for this reason.
        exit: Exit,
        /// A sentence about the progress and how to resume.
        after: String,
    },
    /// The user stopped it.
    #[error("interrupted. {0}")]
    Stopped(String),
    /// The operating system provides no random bytes.
    #[error("cannot read random bytes from the operating system: {0}")]
    NoRandomness(#[from] getrandom::Error),
    /// Signal handlers cannot be installed, or the summary cannot be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A task of the load panicked.
    #[error("a task of the load panicked: report this as a bug")]
    Panicked,
}

impl ToExit for LoadError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Record { exit, .. } => *exit,
            Self::OtherLoad(_) | Self::StateLocked(_) => Exit::Refused,
            Self::Stopped(_) => Exit::Interrupted,
            Self::Bucket(_)
            | Self::Format(_)
            | Self::NoKey
            | Self::Read(..)
            | Self::ReadOn(_)
            | Self::Directory(_)
            | Self::Table(..)
            | Self::State(..) => Exit::Usage,
            Self::NoRandomness(_) | Self::Io(..) | Self::Panicked => Exit::Negative,
        }
    }
}

/// Loads a file, and prints a summary. The exit status says whether this run or an earlier one skipped a record.
///
/// # Errors
/// If the file cannot be loaded completely. The error says before which line all records are stored.
pub async fn run(args: &LoadArgs) -> Result<ExitCode, LoadError> {
    check_bucket(args.bucket.as_bytes())?;
    let stopped =
        signals::stop(signals::Parent::Unwatched).map_err(|error| LoadError::Io("install signal handlers", error))?;
    let Opened { source, identity, state, checkpoint, bytes } = open(args)?;
    let store = Arc::new(Store::new(args, identity, checkpoint)?);
    if let Some(state) = &state {
        // Written at the start, so that a state file that cannot be written fails the load before it stores anything.
        state.write(checkpoint)?;
        if checkpoint.stored + checkpoint.skipped > 0 {
            output::note(format_args!(
                "resuming at line {}: all records before it are stored or skipped",
                checkpoint.line
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
        // From here on the progress bar is cleared, so the summary starts on a line of its own.
        (ended, interrupted)
    };
    let failure = store.failure();
    let complete = ended.is_ok() && failure.is_none() && !interrupted;
    if let Some(state) = &state {
        if complete { state.remove()? } else { state.write(store.checkpoint())? }
    }
    print(args, &LoadSummary::new(args, &store, checkpoint, begun.elapsed(), complete))?;
    ended?;
    match failure {
        Some(RecordFailure { line, why, exit }) => {
            Err(LoadError::Record { line, why, exit, after: after(args, store.checkpoint(), exit) })
        }
        None if interrupted => Err(LoadError::Stopped(after(args, store.checkpoint(), Exit::Interrupted))),
        None if store.checkpoint().skipped > 0 => Ok(Exit::Refused.into()),
        None => Ok(Exit::Done.into()),
    }
}

/// The inputs of a load.
struct Opened {
    source: Source,
    identity: Identity,
    /// None for standard input, which cannot be read again.
    state: Option<StateFile>,
    checkpoint: Checkpoint,
    /// The size of the file; none for standard input.
    bytes: Option<u64>,
}

fn open(args: &LoadArgs) -> Result<Opened, LoadError> {
    let format = args.format().ok_or_else(|| LoadError::Format(args.file.clone()))?;
    if args.key.is_none() && format != FileFormat::Export {
        return Err(LoadError::NoKey);
    }
    let shape = Shape::new(args);
    let checkpoint = Checkpoint::before(Start::FILE);
    if args.is_stdin() {
        let source = Source::stdin(format, shape)?;
        return Ok(Opened { source, identity: Identity::of_stream()?, state: None, checkpoint, bytes: None });
    }
    let cannot_read = |error| LoadError::Read(args.file.clone(), error);
    let metadata = fs::metadata(&args.file).map_err(cannot_read)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory(args.file.clone()));
    }
    if !metadata.is_file() {
        return Err(cannot_read(std::io::Error::other(
            "not a regular file: pipe it to standard input, and pass - as the file",
        )));
    }
    let identity = Identity::of_file(args, format).map_err(cannot_read)?;
    let state = StateFile::new(&args.state_path(), identity.clone())?;
    let known = state.read()?.filter(|checkpoint| checkpoint.offset > 0);
    let source = Source::open(&args.file, format, shape, known.map(Checkpoint::start))?;
    Ok(Opened {
        source,
        identity,
        state: Some(state),
        checkpoint: known.unwrap_or(checkpoint),
        bytes: Some(metadata.len()),
    })
}

/// Shows the progress on a terminal and saves it to the state file. Returns only if the state file cannot be written.
async fn watch(store: &Store, state: Option<&StateFile>, bytes: Option<u64>) -> Result<(), LoadError> {
    let template = match bytes {
        Some(_) => "{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left",
        None => "{spinner} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
    let _clear = Clear(&bar);
    let begun = (Instant::now(), store.checkpoint());
    let mut saved = begun;
    loop {
        tokio::time::sleep(SHOW_EVERY).await;
        let checkpoint = store.checkpoint();
        let rate = (checkpoint.stored - begun.1.stored) as f64 / begun.0.elapsed().as_secs_f64();
        bar.set_position(checkpoint.offset);
        bar.set_message(format!("{} records, {rate:.0}/s", checkpoint.stored));
        if saved.0.elapsed() > SAVE_EVERY && saved.1 != checkpoint {
            if let Some(state) = state {
                // A blocking write on purpose: on another thread it could finish after the load and leave an outdated state behind.
                // The tasks that store records run on other threads.
                state.write(checkpoint)?;
            }
            saved = (Instant::now(), checkpoint);
        }
    }
}

/// Clears the bar from the terminal when dropped.
struct Clear<'a>(&'a ProgressBar);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A sentence about the stored records and how to resume after the load ended with `exit`.
fn after(args: &LoadArgs, checkpoint: Checkpoint, exit: Exit) -> String {
    let Checkpoint { line, stored, skipped, .. } = checkpoint;
    let done = format!("All records before line {line} are done: {stored} stored, {skipped} skipped");
    let skip = if exit == Exit::Refused { ", with --skip-bad to skip refused records" } else { "" };
    if args.is_stdin() {
        return format!("{done}; load the input again from its beginning{skip}");
    }
    let state: &Path = &args.state_path();
    format!(
        "{done}; run the same command to resume there{skip} (if you change the file, remove {} first)",
        state.display()
    )
}

fn print(args: &LoadArgs, summary: &LoadSummary) -> Result<(), LoadError> {
    let text = formatted(args.shown, summary, |summary, _| summary.text());
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| LoadError::Io("write the summary", error))
}
