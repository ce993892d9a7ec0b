//! `cartwheel bucket get`, `set` and `list`: the settings of buckets, over HTTP.

use std::process::ExitCode;

use cartwheel_client::{BucketChange, BucketSettings, Buckets, MeasuredTimes, Placement, Staleness, encode_key};
use clap::ValueEnum;
use serde_json::json;

use crate::cli::{BucketCommand, BucketDeleteArgs, ChangeArgs};
use crate::terminal::confirm::confirm;
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::{self, print, show};
use crate::terminal::table::table_of;

/// Reads or changes the settings of buckets, and shows the response.
///
/// # Errors
/// If no node could answer, or a change is invalid.
pub async fn run(command: &BucketCommand) -> Result<ExitCode, CommandError> {
    match command {
        BucketCommand::Get(args) => {
            let settings = args.request.client()?.bucket(&args.bucket).await?;
            show(args.request.format, &settings, |settings, wide| settings_table(&args.bucket, settings, wide))?;
        }
        BucketCommand::Set(args) => {
            let settings = args.request.client()?.set_bucket(&args.bucket, &change(&args.change)).await?;
            show(args.request.format, &settings, |settings, wide| settings_table(&args.bucket, settings, wide))?;
            settings.warnings.iter().for_each(|warning| output::note(format_args!("warning: {warning}")));
        }
        BucketCommand::Staleness(args) => {
            let staleness = args.request.client()?.staleness(&args.bucket, args.after).await?;
            show(args.request.format, &staleness, |staleness, wide| staleness_text(&args.bucket, staleness, wide))?;
        }
        BucketCommand::Delete(args) => return delete(args).await,
        BucketCommand::List(request) => {
            let buckets = request.client()?.buckets().await?;
            show(request.format, &buckets, buckets_table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Deletes all keys of a bucket, after a question.
async fn delete(args: &BucketDeleteArgs) -> Result<ExitCode, CommandError> {
    let client = args.request.client()?;
    if !args.yes {
        let name = encode_key(args.bucket.as_bytes());
        let known = client.buckets().await?.buckets.into_iter().find(|known| known.bucket == name);
        let keys = match known.map(|known| known.keys) {
            Some(Some(keys)) => format!("{keys} keys"),
            Some(None) => "an unknown number of keys".to_owned(),
            None => "no keys".to_owned(),
        };
        if !confirm(&format!("The bucket {} holds {keys}. Delete them all?", args.bucket))? {
            print(b"Nothing was deleted.\n")?;
            return Ok(Exit::Negative.into());
        }
    }
    client.delete_bucket(&args.bucket).await?;
    let done = json!({ "bucket": args.bucket, "deleted": true });
    show(args.request.format, &done, |_, _| "Deleted. The space is freed in the background.\n".to_owned())?;
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
        placement: args.placement,
        index: args.index,
    }
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn buckets_table(buckets: &Buckets, wide: bool) -> String {
    let size = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let row = |name: &str, keys: String, bytes: String, settings: &BucketSettings| {
        [vec![name.to_owned(), keys, bytes], settings_row(settings)].concat()
    };
    let listed = buckets
        .buckets
        .iter()
        .map(|bucket| row(&bucket.bucket, size(bucket.keys), size(bucket.bytes), &bucket.settings));
    let others = row("(all others)", "-".to_owned(), "-".to_owned(), &buckets.defaults);
    with_settings(&["BUCKET", "KEYS", "BYTES"], listed.chain([others]).collect(), wide)
}

fn settings_table(bucket: &str, settings: &BucketSettings, wide: bool) -> String {
    with_settings(&["BUCKET"], vec![[vec![bucket.to_owned()], settings_row(settings)].concat()], wide)
}

/// A table with the columns of settings after some others. The placement is shown where it says something.
fn with_settings(first: &[&str], mut rows: Vec<Vec<String>>, wide: bool) -> String {
    let mut header = first.to_vec();
    header.extend(["N", "R", "W", "CONFLICT", "SLOPPY", "DURABILITY", "MAX VALUE", "PLACEMENT"]);
    if !wide && rows.iter().all(|row| row.last().is_some_and(|placement| placement == "name")) {
        header.pop();
        rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    table_of(header, rows)
}

/// How soon reads see a write, for each r and w; with `wide` also what that was predicted from.
fn staleness_text(bucket: &str, staleness: &Staleness, wide: bool) -> String {
    let Staleness { node, n, r, w, trials, predictions, peers } = staleness;
    if predictions.is_empty() {
        return format!(
            "{node} has measured no writes to other nodes yet: write to the cluster, or ask another node with --node\n"
        );
    }
    let mut header = vec!["".to_owned(), "R".to_owned(), "W".to_owned()];
    header.extend(
        predictions.iter().take(1).flat_map(|one| &one.fresh).map(|fresh| format!("AFTER {} MS", fresh.after_ms)),
    );
    header.extend(["99% AFTER", "99.9% AFTER"].map(str::to_owned));
    let rows = predictions.iter().map(|one| {
        let mark = if one.current { "*" } else { "" };
        let mut row = vec![mark.to_owned(), one.r.to_string(), one.w.to_string()];
        row.extend(one.fresh.iter().map(|fresh| format!("{:.2}%", 100.0 * fresh.probability)));
        row.extend([one.p99_ms, one.p999_ms].map(|ms| format!("{ms:.2} ms")));
        row
    });
    let table = table_of(header.iter().map(String::as_str).collect(), rows.collect());
    let mut text = format!(
        "{bucket}: n={n}, r={r}, w={w} (*); how many reads through another home see a write that {node} has acknowledged\n\n{table}"
    );
    if wide {
        let times = |times: &MeasuredTimes| {
            let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
            [times.count.to_string(), ms(times.p50_ms), ms(times.p99_ms)]
        };
        let header = vec!["PEER", "READS", "P50", "P99", "WRITES", "P50", "P99"];
        let rows = peers
            .iter()
            .map(|peer| [vec![peer.node.clone()], times(&peer.reads).to_vec(), times(&peer.writes).to_vec()].concat());
        text += &format!(
            "\nmeasured by {node}, {trials} simulated writes and reads each\n\n{}",
            table_of(header, rows.collect())
        );
    }
    text
}

fn settings_row(settings: &BucketSettings) -> Vec<String> {
    let placement = match settings.placement {
        Placement::Name => "name".to_owned(),
        Placement::Slot => "slot".to_owned(),
        Placement::Prefix(bytes) => format!("prefix:{bytes}"),
    };
    let index = if settings.index { "" } else { ", no index" };
    vec![
        settings.n.to_string(),
        settings.r.to_string(),
        settings.w.to_string(),
        settings.conflict.clone(),
        settings.sloppy.to_string(),
        settings.durability.clone(),
        settings.max_value_bytes.to_string(),
        placement + index,
    ]
}
