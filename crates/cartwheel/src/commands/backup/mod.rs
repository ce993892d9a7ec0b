//! `cartwheel backup`: backups of a cluster, and their restore.
//!
//! The nodes know nothing of backups. They give out records of partitions, and sums over them, and merge records that they are given. The rest is
//! done here: which replicas are read, what has changed, how it is kept.

mod copy;
mod create;
mod list;
mod manifest;
mod missing;
mod place;
mod restore;
mod seal;
mod settings;
mod state;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use cartwheel_client::Error as ClientError;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::BackupCommand;
use crate::terminal::error::CommandError;
use crate::terminal::exit::{Exit, ToExit};

/// Why a command on backups failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The cluster refused a request, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The output could not be written, or the user was not asked.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// The place cannot be used.
    #[error("cannot use {0} for backups: {1}")]
    Place(String, String),
    /// The place has no backups.
    #[error("there are no backups in {0}: make one with `cartwheel backup create {0}`")]
    NoPlace(String),
    /// An object could not be read, written, listed or removed.
    #[error("cannot {0} {1}: {2}")]
    Store(&'static str, String, String),
    /// The key file is not one.
    #[error("{0} is no key of backups: {1}; make one with `openssl rand -hex 32`")]
    KeyFile(PathBuf, String),
    /// The key is not that of the place.
    #[error("the backups there are encrypted with another key: pass the right one with --key-file")]
    WrongKey,
    /// The place needs a key.
    #[error("the backups there are encrypted: pass their key with --key-file")]
    NeedsKey,
    /// The place needs no key.
    #[error("the backups there are not encrypted: leave out --key-file, or choose another place")]
    NotEncrypted,
    /// An object could not be encrypted.
    #[error("cannot encrypt: the system provides no randomness")]
    Encryption,
    /// An object is not there.
    #[error("{0} is missing: the backup is damaged; use another one")]
    Missing(String),
    /// An object is there and of no use.
    #[error("{0} is of no use: {1}")]
    Unusable(String, String),
    /// There is no such backup.
    #[error("there is no backup {0}: `cartwheel backup list` shows all")]
    NoBackup(String),
    /// There is no finished backup.
    #[error("there is no finished backup: run `cartwheel backup create`")]
    NoBackups,
    /// A backup lacks partitions.
    #[error("backup {0} lacks the partitions {1:?}: use another one")]
    Incomplete(String, Vec<u32>),
    /// A backup is under way.
    #[error("backup {0} is not finished: finish it with `cartwheel backup create`, or give it up with --anew")]
    Unfinished(String),
    /// A backup of another cluster is under way.
    #[error("{0} is an unfinished backup of the cluster {1}: choose another place, or give it up with --anew")]
    UnfinishedOfOther(String, String),
    /// No home of a partition could copy it.
    #[error(
        "no home of partition {0} can copy it: {1}; see `cartwheel cluster status`, then run the command again: it goes on where it was"
    )]
    NoHome(u32, String),
    /// A node sent something else than records.
    #[error("{0} sent malformed records ({1}): is it a newer build?")]
    Records(String, String),
    /// A node belongs to another cluster.
    #[error("one of the nodes belongs to the cluster {0}: pass addresses of one cluster with --node")]
    OtherCluster(String),
    /// The state file cannot be used.
    #[error("cannot use the state file {0}: {1}")]
    StateFile(PathBuf, String),
}

impl ToExit for BackupError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Show(error) => error.exit(),
            Self::Place(..)
            | Self::NoPlace(_)
            | Self::KeyFile(..)
            | Self::WrongKey
            | Self::NeedsKey
            | Self::NotEncrypted
            | Self::StateFile(..)
            | Self::NoBackup(_)
            | Self::OtherCluster(_) => Exit::Usage,
            Self::Store(..)
            | Self::Encryption
            | Self::Missing(_)
            | Self::Unusable(..)
            | Self::NoBackups
            | Self::Incomplete(..) => Exit::Negative,
            Self::Unfinished(_) | Self::UnfinishedOfOther(..) | Self::Records(..) => Exit::Refused,
            Self::NoHome(..) => Exit::NoQuorum,
        }
    }
}

/// Carries out a command on backups.
///
/// # Errors
/// If it could not be carried out.
pub async fn run(command: &BackupCommand) -> Result<ExitCode, BackupError> {
    match command {
        BackupCommand::Create(args) => create::run(args).await,
        BackupCommand::Verify(args) => verify::run(args).await,
        BackupCommand::List(args) => list::run(args).await,
        BackupCommand::Restore(args) => restore::run(args).await,
        BackupCommand::Prune(args) => list::prune(args).await,
    }
}

fn progress(count: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{msg}}, {{eta}} left"));
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
