//! A TCP connection with one request in flight, which may be a batch of commands. `bench compare` uses it for both stores, so that the client costs
//! about the same for each.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::TransportError;
use super::dial::{Dial, Io};

/// The capacity of the receive buffer, enough for the responses to small requests.
const BUFFER_BYTES: usize = 4_096;

/// The bytes cannot be a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// The result of an attempt to parse a response: the response and its length, or nothing if bytes are missing.
pub(super) type Parsed<T> = Result<Option<(T, usize)>, Malformed>;

/// A connection to one address. It opens on demand, and closes after a failure.
#[derive(Debug)]
pub(super) struct Wire {
    address: String,
    timeout: Duration,
    /// What a new connection sends first, and the reply that it must have.
    greeting: Option<(Vec<u8>, Vec<u8>)>,
    dial: Dial,
    stream: Option<Box<dyn Io>>,
    received: Vec<u8>,
}

impl Wire {
    pub(super) fn new(address: String, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            greeting: None,
            dial: Dial::default(),
            stream: None,
            received: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// The same, with a request that each connection begins with, and its reply.
    pub(super) fn greeting(self, request: Vec<u8>, reply: Vec<u8>) -> Self {
        Self { greeting: Some((request, reply)), ..self }
    }

    /// The same over connections that are made like this.
    pub(super) fn dialled_by(self, dial: &Dial) -> Self {
        Self { dial: dial.clone(), ..self }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends `request`, and receives bytes until `parse` finds a response in them.
    ///
    /// # Errors
    /// If the connection fails, the response is malformed or does not arrive in time.
    pub(super) async fn call<T>(
        &mut self,
        request: &[u8],
        parse: impl FnMut(&[u8]) -> Parsed<T>,
    ) -> Result<T, TransportError> {
        let limit = self.timeout;
        let result =
            tokio::time::timeout(limit, self.exchange(request, parse)).await.unwrap_or(Err(TransportError::Timeout));
        if result.is_err() {
            // A late response must not be taken for that of the next request.
            self.stream = None;
        }
        result
    }

    async fn exchange<T>(
        &mut self,
        request: &[u8],
        mut parse: impl FnMut(&[u8]) -> Parsed<T>,
    ) -> Result<T, TransportError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(
                connect(&self.dial, &self.address, self.greeting.as_ref()).await.ok_or(TransportError::Connect)?,
            ),
        };
        stream.write_all(request).await.map_err(|_| TransportError::Closed)?;
        stream.flush().await.map_err(|_| TransportError::Closed)?;
        self.received.clear();
        loop {
            match stream.read_buf(&mut self.received).await {
                Ok(1..) => {}
                _ => return Err(TransportError::Closed),
            }
            match parse(&self.received) {
                Ok(None) => {}
                Ok(Some((response, length))) if length == self.received.len() => return Ok(response),
                // With one request in flight, there is nothing to receive after its response.
                Ok(Some(_)) | Err(Malformed) => return Err(TransportError::Malformed),
            }
        }
    }
}

async fn connect(dial: &Dial, address: &str, greeting: Option<&(Vec<u8>, Vec<u8>)>) -> Option<Box<dyn Io>> {
    let mut stream = dial.connect(address).await?;
    if let Some((request, expected)) = greeting {
        stream.write_all(request).await.ok()?;
        stream.flush().await.ok()?;
        let mut reply = vec![0; expected.len()];
        stream.read_exact(&mut reply).await.ok()?;
        if reply != *expected {
            return None;
        }
    }
    Some(stream)
}
