use clap::{Args, ValueEnum};

/// How a listing is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// What matters, in columns.
    Table,
    /// All there is, in columns.
    Wide,
    /// The whole answer as one line of JSON.
    Json,
    /// The whole answer as YAML.
    Yaml,
}

/// How to show a listing.
#[derive(Clone, Copy, Debug, Args)]
pub struct FormatArgs {
    /// How to show it.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    output: Format,
    /// The same as --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl FormatArgs {
    /// How to show it.
    pub const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// Whether a program reads it: then it gets the answer and nothing beside it.
    pub const fn is_for_programs(&self) -> bool {
        matches!(self.format(), Format::Json | Format::Yaml)
    }
}
