//! What the command line says of a load.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{Endpoints, FormatArgs};

/// What to load.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LoadArgs {
    /// The file; - reads standard input, which cannot be resumed.
    pub file: PathBuf,
    /// The bucket to load into.
    #[arg(long)]
    pub bucket: String,
    /// The field or column whose text, or number, is the key.
    #[arg(long, value_name = "FIELD")]
    pub key: String,
    /// The field or column that is the value. If not given, the value is the whole object, as JSON; of JSON Lines, the line as it
    /// is.
    #[arg(long, value_name = "FIELD")]
    pub value: Option<String>,
    /// What the file is; if not given, its name tells: .jsonl, .ndjson, .csv, .tsv.
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// The values' media type; if not given, application/json for JSON, and text/plain; charset=utf-8 for text.
    #[arg(long)]
    pub content_type: Option<String>,
    /// Where the cluster is.
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// Do not read first: each record stands beside whatever its key holds, records of the same key beside each other. It is
    /// faster, and right for fresh keys that occur once.
    #[arg(long)]
    pub blind: bool,
    /// Skip records that make no sense or are too large for the bucket, and count them, rather than stop at the first. The exit code
    /// is 5 then.
    #[arg(long)]
    pub skip_bad: bool,
    /// How many records are stored at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub connections: u16,
    /// How long to go on trying to store a record while the cluster cannot, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
    /// Where to note how far the load has come; FILE.cartwheel-load, if not given. It is gone when the load is complete.
    #[arg(long, value_name = "PATH")]
    pub state: Option<PathBuf>,
    /// How to show the outcome.
    #[command(flatten)]
    pub shown: FormatArgs,
}

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated, with a header, quoted as in RFC 4180.
    Csv,
    /// The same with tabs.
    Tsv,
}

impl LoadArgs {
    /// Whether the records come from standard input.
    pub fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// The format, as it was said or as the file's name tells.
    pub fn format(&self) -> Option<FileFormat> {
        let by_name = || match self.file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
            "csv" => Some(FileFormat::Csv),
            "tsv" => Some(FileFormat::Tsv),
            _ => None,
        };
        self.format.or_else(by_name)
    }

    /// Where to note how far the load has come.
    pub fn state_path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut path = self.file.clone().into_os_string();
            path.push(".cartwheel-load");
            path.into()
        })
    }
}

const EXAMPLES: &str = "Examples:
  Each line as it is, under the text of its field id:
    cartwheel load users.jsonl --bucket users --key id

  One column of a CSV file, through any of three nodes, into a bucket without those keys:
    cartwheel load prices.csv --bucket prices --key sku --value price --blind \\
      --node 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083";
