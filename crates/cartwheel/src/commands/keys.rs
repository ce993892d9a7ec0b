//! `cartwheel get`, `put` and `delete`: access to keys from the shell, over HTTP.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use cartwheel_client::{Client, Consistency, Context, Options, Siblings, Value, Written};
use serde_json::json;

use crate::cli::{DeleteArgs, GetArgs, KeyArgs, PutArgs, node_timeout};
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::{self, print};

/// A command on a key. Its time limit covers all its requests.
struct Command<'a> {
    at: &'a KeyArgs,
    client: Client,
    begun: Instant,
}

impl<'a> Command<'a> {
    fn begin(at: &'a KeyArgs) -> Result<Self, CommandError> {
        Ok(Self { at, client: at.endpoints.client()?, begun: Instant::now() })
    }

    /// The options of the next request, which must end in the time that is left.
    fn options(&self) -> Options {
        let consistency = if self.at.strong { Consistency::Strong } else { Consistency::Eventual };
        let left = self.at.timeout.saturating_sub(self.begun.elapsed());
        Options { consistency, timeout: Some(node_timeout(left)), deadline: Some(left), ..Options::default() }
    }

    async fn read(&self) -> Result<Siblings, CommandError> {
        Ok(self.client.get_with(&self.at.bucket, &self.at.key, &self.options()).await?)
    }
}

/// Shows a key. The exit status says whether it has a value.
///
/// # Errors
/// If no node could answer, or a key with siblings would go to a file.
pub async fn get(args: &GetArgs) -> Result<ExitCode, CommandError> {
    let command = Command::begin(&args.at)?;
    if args.at.json {
        let found = command.client.get_json(&args.at.bucket, &args.at.key, &command.options()).await?;
        print(format!("{found}\n").as_bytes())?;
        let has_value = found["siblings"].as_array().is_some_and(|all| all.iter().any(|one| one["deleted"] == false));
        return Ok(if has_value { Exit::Done } else { Exit::Negative }.into());
    }
    let found = command.read().await?;
    match &args.output {
        Some(_) if found.values.is_empty() => {}
        Some(file) => write_to_file(file, &found)?,
        None => print(&text(&found))?,
    }
    if found.values.is_empty() {
        output::note(format_args!("{}/{} has no value", args.at.bucket, args.at.key));
        return Ok(Exit::Negative.into());
    }
    Ok(Exit::Done.into())
}

/// Writes the only value to a file, and replaces the file's contents.
fn write_to_file(file: &Path, found: &Siblings) -> Result<(), CommandError> {
    match (found.values.as_slice(), found.deleted) {
        ([value], false) => {
            std::fs::write(file, &value.bytes).map_err(|error| CommandError::File(file.to_path_buf(), error))
        }
        (values, _) => Err(CommandError::Siblings(values.len() + usize::from(found.deleted))),
    }
}

/// Writes a key. The value replaces the existing values, or becomes their sibling with `--blind`.
///
/// # Errors
/// If the value cannot be read, or too few nodes stored it. In the second case the value may still appear later.
pub async fn put(args: &PutArgs) -> Result<ExitCode, CommandError> {
    let value = Value {
        bytes: value(&args.value)?,
        content_type: args.content_type.clone(),
        content_encoding: args.content_encoding.clone().unwrap_or_default(),
        ttl: args.ttl,
    };
    let command = Command::begin(&args.at)?;
    let read = if args.blind || args.context.is_some() { None } else { Some(command.read().await?) };
    let context = args.context.as_ref().or_else(|| read.as_ref().and_then(|read| read.context.as_ref()));
    let (at, options) = (&args.at, command.options());
    let written = command.client.put_with(&at.bucket, &at.key, value, context, &options).await?;
    if let Some(replaced) = read.map(|read| read.values.len()).filter(|&replaced| replaced > 1) {
        output::note(format_args!("replaced {replaced} siblings"));
    }
    print_written(&args.at, "stored", &written)
}

/// Deletes the values of a key.
///
/// # Errors
/// If too few nodes stored the delete. It may still take effect later.
pub async fn delete(args: &DeleteArgs) -> Result<ExitCode, CommandError> {
    let command = Command::begin(&args.at)?;
    let context = match &args.context {
        Some(context) => Some(context.clone()),
        None => command.read().await?.context,
    };
    let (at, options) = (&args.at, command.options());
    let written = command.client.delete_with(&at.bucket, &at.key, context.as_ref(), &options).await?;
    print_written(&args.at, "deleted", &written)
}

fn value(given: &str) -> Result<Bytes, CommandError> {
    if given != "-" {
        return Ok(given.to_owned().into());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::Io("read the value from standard input", error))?;
    Ok(bytes.into())
}

fn print_written(at: &KeyArgs, what: &str, written: &Written) -> Result<ExitCode, CommandError> {
    let (acks, context) = (&written.acks, encoded(written.context.as_ref()));
    let line = if at.json {
        format!("{}\n", json!({ "context": context, "home": acks.home, "standin": acks.standin, "zones": acks.zones }))
    } else {
        format!("{what} on {} in {}\n", counted(acks.home + acks.standin, "node"), counted(acks.zones, "zone"))
    };
    print(line.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The text of the values. A single value is printed byte for byte if the output is a file or a pipe. Each of several siblings follows
/// a line with its number.
fn text(found: &Siblings) -> Vec<u8> {
    let mut text = Vec::new();
    if let ([value], false) = (found.values.as_slice(), found.deleted) {
        text.extend_from_slice(&value.bytes);
        if std::io::stdout().is_terminal() {
            text.push(b'\n');
        }
        return text;
    }
    for (number, value) in found.values.iter().enumerate() {
        let line = format!("--- sibling {} of {} ({})\n", number + 1, found.values.len(), value.content_type);
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(&value.bytes);
        text.push(b'\n');
    }
    if found.deleted && !found.values.is_empty() {
        text.extend_from_slice(b"--- and a concurrent delete\n");
    }
    text
}

fn encoded(context: Option<&Context>) -> Option<String> {
    context.map(Context::to_string)
}
