//! The operations of a client on either store.

use std::time::Duration;

use super::{http, redis};
use crate::commands::bench::GRACE;
use crate::commands::bench::job::{CODE_CHARS_MAX, OperationError};
use crate::commands::bench::link::{RespLink, code};
use crate::commands::bench::resp::{self, Reply};
use crate::commands::bench::wire::{Parsed, Wire};

/// The number of copies that a write waits for beside the master's.
const WAIT_FOR: &[u8] = b"1";

/// A client of one store, with one operation in flight.
#[derive(Debug)]
pub(super) enum StoreClient {
    Cartwheel(CartwheelClient),
    CartwheelResp(RespLink),
    Redis(RedisClient),
}

/// A client of one node of Cartwheel.
#[derive(Debug)]
pub(super) struct CartwheelClient {
    wire: Wire,
    bucket: String,
    get_query: String,
    put_query: String,
    request: Vec<u8>,
}

/// A client of a Redis Cluster: each key goes to its master.
#[derive(Debug)]
pub(super) struct RedisClient {
    masters: Vec<Wire>,
    wait_ms: String,
    request: Vec<u8>,
}

impl StoreClient {
    /// Reads a key, which must have a value.
    pub(super) async fn get(&mut self, key: &str) -> Result<(), OperationError> {
        match self {
            Self::Cartwheel(client) => client.get(key).await,
            Self::CartwheelResp(link) => found(link.get(key).await?),
            Self::Redis(client) => client.get(key).await,
        }
    }

    /// Writes a key, and waits for two copies.
    pub(super) async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), OperationError> {
        match self {
            Self::Cartwheel(client) => client.put(key, value).await,
            Self::CartwheelResp(link) => link.put(key, value).await,
            Self::Redis(client) => client.put(key, value).await,
        }
    }
}

impl CartwheelClient {
    /// A client whose reads wait for `r` replicas, or for as many as the bucket says.
    pub(super) fn new(address: String, bucket: String, r: Option<u8>, timeout: Duration) -> Self {
        let put_query = format!("?timeout_ms={}", timeout.as_millis());
        let get_query = r.map_or_else(|| put_query.clone(), |r| format!("{put_query}&r={r}"));
        Self { wire: Wire::new(address, timeout + GRACE), bucket, get_query, put_query, request: Vec::new() }
    }

    async fn get(&mut self, key: &str) -> Result<(), OperationError> {
        http::get(&mut self.request, self.wire.address(), &self.bucket, key, &self.get_query);
        self.call(200).await
    }

    async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), OperationError> {
        http::put(&mut self.request, self.wire.address(), &self.bucket, key, &self.put_query, value);
        self.call(204).await
    }

    async fn call(&mut self, expected: u16) -> Result<(), OperationError> {
        let check = |bytes: &[u8]| -> Parsed<Result<(), OperationError>> {
            let parsed = http::response(bytes)?;
            Ok(parsed.map(|((status, body), length)| {
                let outcome = if status == expected { Ok(()) } else { Err(failure(status, body)) };
                (outcome, length)
            }))
        };
        self.wire.call(&self.request, check).await?
    }
}

impl RedisClient {
    /// A client of the masters at `addresses`, each with its part of the slots.
    pub(super) fn new(addresses: &[String], timeout: Duration) -> Self {
        let wire = |address: &String| Wire::new(address.clone(), timeout + GRACE);
        Self {
            masters: addresses.iter().map(wire).collect(),
            wait_ms: timeout.as_millis().to_string(),
            request: Vec::new(),
        }
    }

    async fn get(&mut self, key: &str) -> Result<(), OperationError> {
        self.request.clear();
        resp::command(&mut self.request, &[b"GET", key.as_bytes()]);
        let master = redis::master_of(key, self.masters.len());
        self.masters[master].call(&self.request, value).await?
    }

    /// Sends both commands at once, as Redis clients do that pipeline them, and waits for both replies.
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), OperationError> {
        self.request.clear();
        resp::command(&mut self.request, &[b"SET", key.as_bytes(), value]);
        resp::command(&mut self.request, &[b"WAIT", WAIT_FOR, self.wait_ms.as_bytes()]);
        let check = |bytes: &[u8]| -> Parsed<Result<(), OperationError>> {
            let Some((set, first)) = resp::reply(bytes)? else { return Ok(None) };
            let Some((wait, second)) = resp::reply(&bytes[first..])? else { return Ok(None) };
            let outcome = match (set, wait) {
                (Reply::Status(_), Reply::Integer(1..)) => Ok(()),
                (Reply::Status(_), Reply::Integer(_)) => {
                    Err(OperationError("WAIT found no replica in time".to_owned()))
                }
                (Reply::Status(_), reply) | (reply, _) => Err(resp::error(reply)?),
            };
            Ok(Some((outcome, first + second)))
        };
        let master = redis::master_of(key, self.masters.len());
        self.masters[master].call(&self.request, check).await?
    }
}

fn failure(status: u16, body: &[u8]) -> OperationError {
    let code: String = code(body).unwrap_or("without an error code").chars().take(CODE_CHARS_MAX).collect();
    OperationError(format!("{status} {code}"))
}

/// Checks the number of values of a key, which must have one.
fn found(values: u64) -> Result<(), OperationError> {
    if values > 0 { Ok(()) } else { Err(OperationError("not found".to_owned())) }
}

/// Parses the reply to a read of a key.
fn value(bytes: &[u8]) -> Parsed<Result<(), OperationError>> {
    let Some((reply, length)) = resp::reply(bytes)? else { return Ok(None) };
    let outcome = match reply {
        Reply::Bulk(_) => found(1),
        Reply::Nil => found(0),
        reply => Err(resp::error(reply)?),
    };
    Ok(Some((outcome, length)))
}
