//! `cartwheel bucket get`, `set` and `list`: the settings of buckets, over HTTP.

use std::process::ExitCode;

use cartwheel_client::{BucketChange, BucketSettings, Buckets};
use clap::ValueEnum;

use crate::cli::{BucketCommand, ChangeArgs};
use crate::terminal::error::CommandError;
use crate::terminal::output::{self, show};
use crate::terminal::table::table;

/// Reads or changes the settings of buckets, and shows the response.
///
/// # Errors
/// If no node could answer, or a change is invalid.
pub async fn run(command: &BucketCommand) -> Result<ExitCode, CommandError> {
    match command {
        BucketCommand::Get(args) => {
            let settings = args.request.client()?.bucket(&args.bucket).await?;
            show(args.request.format, &settings, |settings, _| settings_table(&[(args.bucket.as_str(), settings)]))?;
        }
        BucketCommand::Set(args) => {
            let settings = args.request.client()?.set_bucket(&args.bucket, &change(&args.change)).await?;
            show(args.request.format, &settings, |settings, _| settings_table(&[(args.bucket.as_str(), settings)]))?;
            settings.warnings.iter().for_each(|warning| output::note(format_args!("warning: {warning}")));
        }
        BucketCommand::List(request) => {
            let buckets = request.client()?.buckets().await?;
            show(request.format, &buckets, buckets_table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(args: &ChangeArgs) -> BucketChange {
    BucketChange {
        n: args.n,
        r: args.r,
        w: args.w,
        conflict: args.conflict.map(name),
        sloppy: args.sloppy,
        durability: args.durability.map(name),
        max_value_bytes: args.max_value_bytes,
    }
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn buckets_table(buckets: &Buckets, _wide: bool) -> String {
    let named = buckets.buckets.iter().map(|bucket| (bucket.bucket.as_str(), &bucket.settings));
    settings_table(&named.chain([("(all others)", &buckets.defaults)]).collect::<Vec<_>>())
}

fn settings_table(rows: &[(&str, &BucketSettings)]) -> String {
    let header = ["BUCKET", "N", "R", "W", "CONFLICT", "SLOPPY", "DURABILITY", "MAX VALUE"];
    let row = |(bucket, settings): &(&str, &BucketSettings)| {
        [
            (*bucket).to_owned(),
            settings.n.to_string(),
            settings.r.to_string(),
            settings.w.to_string(),
            settings.conflict.clone(),
            settings.sloppy.to_string(),
            settings.durability.clone(),
            settings.max_value_bytes.to_string(),
        ]
    };
    table(header, rows.iter().map(row))
}
