//! `cartwheel keys` and `export`: the keys of a bucket, and all that they hold.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_client::{Client, Error, KeysQuery, Options, encode_key};
use futures_util::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::{ExportArgs, KeysArgs};
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::{self, print, show};

/// How many keys are listed at once.
const PAGE: u32 = 1_000;
/// How long a page or a key is tried again while the cluster is unavailable.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// A bucket's keys, page by page.
struct Pages<'a> {
    client: Client,
    bucket: &'a str,
    query: KeysQuery,
    is_done: bool,
}

impl<'a> Pages<'a> {
    fn new(client: Client, bucket: &'a str, prefix: &str, r: Option<u8>) -> Self {
        let query = KeysQuery {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            limit: Some(PAGE),
            r,
            ..KeysQuery::default()
        };
        Self { client, bucket, query, is_done: false }
    }

    /// The next keys; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let page = patiently(async || self.client.keys(self.bucket, &self.query).await).await?;
        self.is_done = page.cursor.is_none();
        self.query.cursor = page.cursor;
        Ok(Some(page.keys))
    }
}

/// Tries again for a while if no node can answer: a long export survives the loss of a node.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(Error::Unavailable { .. }) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

/// A progress bar over the keys of a bucket, unless it would be in the way of `output` on the same terminal. Where a prefix selects keys, their
/// number is not known.
async fn progress(client: &Client, bucket: &str, prefix: &str, is_shown_too: bool) -> ProgressBar {
    if is_shown_too {
        return ProgressBar::hidden();
    }
    let sizes = if prefix.is_empty() { client.buckets().await.ok() } else { None };
    let name = encode_key(bucket.as_bytes());
    let known = sizes.and_then(|sizes| sizes.buckets.into_iter().find(|known| known.bucket == name)?.keys);
    let template =
        if known.is_some() { "{bar:40} {pos}/{len} keys, {per_sec}" } else { "{spinner} {pos} keys, {per_sec}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    known.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style)
}

/// Prints the keys of a bucket, in the order of their tokens. The exit status says whether there are any.
///
/// # Errors
/// If too few nodes could answer, or the bucket keeps no index.
pub async fn keys(args: &KeysArgs) -> Result<ExitCode, CommandError> {
    let client = args.request.client()?;
    let for_programs = args.request.format.is_for_programs();
    let bar = progress(&client, &args.bucket, &args.prefix, !for_programs && io::stdout().is_terminal()).await;
    let mut pages = Pages::new(client, &args.bucket, &args.prefix, args.r);
    let (mut all, mut count) = (Vec::new(), 0_u64);
    let end = if args.null { 0 } else { b'\n' };
    while let Some(mut keys) = pages.next().await? {
        let left = args.limit.map_or(u64::MAX, |limit| limit - count);
        keys.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        count += keys.len() as u64;
        bar.inc(keys.len() as u64);
        if for_programs {
            all.extend(keys.iter().map(|key| encode_key(key)));
        } else {
            let lines = keys.iter().flat_map(|key| key.iter().copied().chain([end]));
            print(&lines.collect::<Vec<u8>>())?;
        }
        if args.limit == Some(count) {
            break;
        }
    }
    bar.finish_and_clear();
    if for_programs {
        show(args.request.format, &json!({ "keys": all }), |_, _| String::new())?;
    }
    Ok(if count > 0 { Exit::Done } else { Exit::Negative }.into())
}

/// Writes all keys of a bucket with their siblings, one JSON object on each line.
///
/// # Errors
/// If too few nodes could answer, the bucket keeps no index, or the output cannot be written.
pub async fn export(args: &ExportArgs) -> Result<ExitCode, CommandError> {
    let client = args.endpoints.client()?;
    // With all members known, the export survives the loss of the given nodes. A failure here is harmless: a node may answer later.
    let _ = client.learn_members().await;
    let mut out = Output::open(args)?;
    let is_shown_too = args.output.is_none() && io::stdout().is_terminal();
    let bar = progress(&client, &args.bucket, &args.prefix, is_shown_too).await;
    let mut pages = Pages::new(client.clone(), &args.bucket, &args.prefix, None);
    let mut exported = 0_u64;
    while let Some(keys) = pages.next().await? {
        let read = async |key: Bytes| {
            let found = patiently(async || client.get_json(&args.bucket, &key, &Options::default()).await).await?;
            Ok::<_, Error>((key, found))
        };
        let mut lines = pin!(stream::iter(keys).map(read).buffered(usize::from(args.connections)));
        while let Some(line) = lines.next().await {
            let (key, found) = line?;
            bar.inc(1);
            if let Some(line) = exported_line(&key, found) {
                out.write(line.as_bytes())?;
                exported += 1;
            }
        }
    }
    bar.finish_and_clear();
    out.finish()?;
    output::note(format_args!("exported {exported} keys of {}", args.bucket));
    Ok(ExitCode::SUCCESS)
}

/// The line of a key; none if it has no value any more.
fn exported_line(key: &[u8], found: Value) -> Option<String> {
    let has_value = found["siblings"].as_array().is_some_and(|all| all.iter().any(|one| one["deleted"] == false));
    let Value::Object(found) = found else { return None };
    let mut line = serde_json::Map::from_iter([("key".to_owned(), Value::from(encode_key(key)))]);
    line.extend(found);
    has_value.then(|| Value::Object(line).to_string() + "\n")
}

/// Where an export is written: to a file, which is complete once it has its name, or to standard output.
enum Output {
    File { writer: BufWriter<File>, partial: PathBuf, path: PathBuf },
    Standard,
}

impl Output {
    fn open(args: &ExportArgs) -> Result<Self, CommandError> {
        let Some(path) = args.output.clone() else { return Ok(Self::Standard) };
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| CommandError::File(partial.clone(), error))?;
        Ok(Self::File { writer: BufWriter::new(file), partial, path })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), CommandError> {
        match self {
            Self::File { writer, partial, .. } => {
                writer.write_all(line).map_err(|error| CommandError::File(partial.clone(), error))
            }
            Self::Standard => print(line),
        }
    }

    fn finish(self) -> Result<(), CommandError> {
        let Self::File { writer, partial, path } = self else { return Ok(()) };
        let written = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        let named = written.and_then(|()| std::fs::rename(&partial, &path));
        named.map_err(|error| CommandError::File(path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_key_and_its_siblings_if_one_has_a_value() {
        let one = json!({ "context": "c", "siblings": [{ "value": "eA==", "deleted": false }, { "deleted": true }] });
        let line = exported_line(b"a b/\xff", one).unwrap();
        let read: Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&read["key"], &read["context"]), (&json!("a%20b/%FF"), &json!("c")));
        assert_eq!(read["siblings"].as_array().unwrap().len(), 2);
        assert_eq!(exported_line(b"k", json!({ "siblings": [{ "deleted": true }] })), None);
        assert_eq!(exported_line(b"k", json!({ "siblings": [] })), None);
    }
}
