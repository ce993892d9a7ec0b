//! `--only-missing`: keys that have no value are written anew, as a client writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cartwheel_client::{Client, Options, Value};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::state::{Content, Sibling};
use cartwheel_core::wire::CopiedRecord;

use super::BackupError;
use super::restore::patiently;

/// Writes the values of a record, unless the key has a value; true if it did. The writes have seen what the read showed, so they replace a delete
/// that it found, and nothing else.
pub(super) async fn write(client: &Client, record: &CopiedRecord) -> Result<bool, BackupError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = WallMs(now.as_millis() as u64);
    let mut live: Vec<&Sibling> = record.state.siblings().filter(|held| !held.is_deleted(wall)).collect();
    // The last one is what remains under last write wins.
    live.sort_by_key(|held| held.recency());
    let (bucket, key) = (record.key.bucket(), record.key.name());
    if live.is_empty() {
        return Ok(false);
    }
    let read = patiently(async || client.get_with(bucket, key, &Options::default()).await).await?;
    if !read.values.is_empty() {
        return Ok(false);
    }
    for value in live.into_iter().filter_map(|held| value_of(held, wall)) {
        let put =
            async || client.put_with(bucket, key, value.clone(), read.context.as_ref(), &Options::default()).await;
        patiently(put).await?;
    }
    Ok(true)
}

fn value_of(held: &Sibling, wall: WallMs) -> Option<Value> {
    let Content::Value { bytes, content_type, content_encoding } = &held.content else { return None };
    let ttl = held.expires.map(|expires| Duration::from_millis(expires.0.saturating_sub(wall.0).max(1)));
    Some(Value {
        bytes: bytes.clone(),
        content_type: content_type.clone(),
        content_encoding: content_encoding.clone(),
        ttl,
    })
}
