use clap::{Args, ValueEnum};

/// The output format of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// The main fields, in columns.
    Table,
    /// All fields, in columns.
    Wide,
    /// The full response as one line of JSON.
    Json,
    /// The full response as YAML.
    Yaml,
}

/// The output format, as flags.
#[derive(Clone, Copy, Debug, Args)]
pub struct FormatArgs {
    /// The output format.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    output: Format,
    /// The same as --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl FormatArgs {
    /// The chosen format; `--json` is short for `--output json`.
    pub const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// Whether a program reads the output. A program gets the response alone, without notes.
    pub const fn is_for_programs(&self) -> bool {
        matches!(self.format(), Format::Json | Format::Yaml)
    }
}
