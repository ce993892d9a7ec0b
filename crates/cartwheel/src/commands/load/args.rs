//! The arguments of `cartwheel load`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{Endpoints, FormatArgs};

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LoadArgs {
    /// The file; - reads standard input, which cannot resume.
    pub file: PathBuf,
    /// The bucket to load into.
    #[arg(long)]
    pub bucket: String,
    /// The field or column that holds the key: text or a number.
    ///
    /// An export names its keys itself.
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// The field or column that holds the value.
    ///
    /// By default the value is the whole record as a JSON object; for JSON Lines, it is the line itself, unchanged.
    #[arg(long, value_name = "FIELD")]
    pub value: Option<String>,
    /// The file's format.
    ///
    /// By default it follows from the file's name: .export.jsonl, .jsonl, .ndjson, .csv or .tsv.
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// The media type of the values.
    ///
    /// By default it is application/json for JSON, and text/plain; charset=utf-8 for text.
    #[arg(long)]
    pub content_type: Option<String>,
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// Write without a read; existing values remain as siblings.
    ///
    /// Several records with one key become siblings of each other. A blind load is faster, and right for new keys that occur once.
    #[arg(long)]
    pub blind: bool,
    /// Skip and count bad records instead of stopping.
    ///
    /// A record is bad if it is invalid or too large for the bucket. The exit code is 5 if records were skipped.
    #[arg(long)]
    pub skip_bad: bool,
    /// The number of records to store at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub connections: u16,
    /// Seconds to retry a record while the cluster is unavailable.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
    /// The file that records the progress.
    ///
    /// The default is FILE.cartwheel-load. It is removed when the load is complete.
    #[arg(long, value_name = "PATH")]
    pub state: Option<PathBuf>,
    #[command(flatten)]
    pub shown: FormatArgs,
}

/// The format of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header, quoted as in RFC 4180.
    Csv,
    /// Tab-separated values with a header, quoted as in RFC 4180.
    Tsv,
    /// What `cartwheel export` wrote: keys with all their siblings, media types, encodings and lifetimes.
    Export,
}

impl LoadArgs {
    /// Whether the records come from standard input.
    pub fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// The format, from the command line or from the file's name.
    pub fn format(&self) -> Option<FileFormat> {
        let is_export = || self.file.to_str().is_some_and(|name| name.ends_with(".export.jsonl"));
        let by_name = || match self.file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" if is_export() => Some(FileFormat::Export),
            "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
            "csv" => Some(FileFormat::Csv),
            "tsv" => Some(FileFormat::Tsv),
            _ => None,
        };
        self.format.or_else(by_name)
    }

    /// The path of the state file.
    pub fn state_path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut path = self.file.clone().into_os_string();
            path.push(".cartwheel-load");
            path.into()
        })
    }
}

const EXAMPLES: &str = "Examples:
  Store each line as a value; its field id is the key:
    cartwheel load users.jsonl --bucket users --key id

  Store one column of a CSV file, through any of three nodes, into a bucket without those keys:
    cartwheel load prices.csv --bucket prices --key sku --value price --blind \\
      --node 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083

  Load what `cartwheel export carts --output carts.export.jsonl` wrote:
    cartwheel load carts.export.jsonl --bucket carts";
