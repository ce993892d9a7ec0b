use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use super::{Endpoints, FormatArgs};

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up the cluster while it serves.
    ///
    /// Each partition is read from its home replicas. What has not changed since the last backup in the same place is not copied again. After
    /// it was stopped or killed, the same command goes on where it was.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(BackupCreateArgs),
    /// Check that a backup is complete and undamaged.
    ///
    /// Every object is read and its checksum compared. The exit status is 1 if anything is missing or damaged.
    Verify(BackupVerifyArgs),
    /// List the backups in a place.
    List(BackupListArgs),
    /// Restore a backup into a cluster, new or running.
    ///
    /// Keys are merged as if a replica that was long away delivered them: nothing newer is lost, and what the cluster still remembers to be
    /// replaced or deleted stays so. To do it again is harmless. Buckets that hold keys keep their settings; others get those of the backup.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(BackupRestoreArgs),
    /// Remove old backups, and what only they need.
    Prune(BackupPruneArgs),
}

/// Where backups are kept, and how they are read.
#[derive(Debug, Args)]
pub struct BackupPlace {
    /// A directory, or s3://BUCKET/PREFIX.
    ///
    /// For S3, the keys, the region and the endpoint are read from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT.
    #[arg(value_name = "PLACE")]
    pub place: String,
    /// Encrypt and decrypt with the key in this file: 64 hexadecimal digits.
    ///
    /// `openssl rand -hex 32` makes one. Without it an encrypted backup cannot be read.
    #[arg(long, value_name = "FILE", env = "CARTWHEEL_BACKUP_KEY")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BackupCreateArgs {
    #[command(flatten)]
    pub place: BackupPlace,
    /// How many home replicas of each partition to read.
    ///
    /// What further replicas hold beside the first is added. With two, of n=3 and w=2, every write that two homes acknowledged before is in
    /// the backup.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: u8,
    /// About how large an object is.
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub object_size: ByteSize,
    /// The number of partitions to read at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Discard an unfinished backup of an earlier run.
    #[arg(long)]
    pub anew: bool,
    #[command(flatten)]
    pub endpoints: Endpoints,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct BackupVerifyArgs {
    #[command(flatten)]
    pub place: BackupPlace,
    /// The backup; the last one by default.
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub backup: Option<String>,
    /// Verify all backups.
    #[arg(long)]
    pub all: bool,
    /// The number of objects to read at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct BackupListArgs {
    #[command(flatten)]
    pub place: BackupPlace,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct BackupRestoreArgs {
    #[command(flatten)]
    pub place: BackupPlace,
    /// The backup; the last one by default.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Restore only this bucket. Repeat the flag for more.
    #[arg(long, value_name = "BUCKET")]
    pub bucket: Vec<String>,
    /// Write only keys that have no value now, each value as a new write.
    ///
    /// This brings back keys whose delete the cluster still remembers. Keys that have a value are left alone.
    #[arg(long)]
    pub only_missing: bool,
    /// Remember in this file what is restored, so that a restore that was stopped goes on from there.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// The number of objects to restore at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    #[command(flatten)]
    pub endpoints: Endpoints,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct BackupPruneArgs {
    #[command(flatten)]
    pub place: BackupPlace,
    /// How many of the last backups to keep.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: u32,
    /// Remove without a question.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

const CREATE_EXAMPLES: &str = "Examples:
  cartwheel backup create /backups/shop
  cartwheel backup create s3://backups/shop --key-file backup.key";

const RESTORE_EXAMPLES: &str = "Examples:
  cartwheel backup restore /backups/shop --node 10.0.0.1:8080
  cartwheel backup restore /backups/shop --backup 20261130T223000Z --bucket carts --only-missing";
