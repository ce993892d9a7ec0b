//! Operations over the Redis protocol.

use std::time::{Duration, Instant};

use crate::commands::bench::connection::TransportError;
use crate::commands::bench::dial::Dial;
use crate::commands::bench::job::OperationError;
use crate::commands::bench::resp::{self, Reply};
use crate::commands::bench::stats::Kind;
use crate::commands::bench::wire::{Malformed, Parsed, Wire};

/// Connections to the servers, of which one is in use. After a failure the next one is.
#[derive(Debug)]
pub(in crate::commands::bench) struct RespLink {
    wires: Vec<Wire>,
    at: usize,
    /// The commands that were queued since the last flush.
    request: Vec<u8>,
    queued: Vec<Kind>,
}

/// The reply to a queued command.
#[derive(Debug)]
pub(in crate::commands::bench) struct Replied {
    pub(in crate::commands::bench) kind: Kind,
    /// The number of values that a read found; 1 for a write.
    pub(in crate::commands::bench) result: Result<u64, OperationError>,
    pub(in crate::commands::bench) at: Instant,
}

impl RespLink {
    /// The link `number`, which begins with the server of that number. Its keys are in `database`.
    pub(in crate::commands::bench) fn new(
        addresses: &[String],
        dial: &Dial,
        number: usize,
        database: u32,
        timeout: Duration,
    ) -> Self {
        let (mut greeting, mut replies) = (Vec::new(), Vec::new());
        if let Some((user, password)) = dial.credentials().map(|credentials| credentials.user_and_password()) {
            resp::command(&mut greeting, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
            replies.extend_from_slice(b"+OK\r\n");
        }
        if database > 0 {
            resp::command(&mut greeting, &[b"SELECT", database.to_string().as_bytes()]);
            replies.extend_from_slice(b"+OK\r\n");
        }
        let new = |address: &String| Wire::new(address.clone(), timeout).dialled_by(dial);
        let wire = |address: &String| match &greeting[..] {
            [] => new(address),
            greeting => new(address).greeting(greeting.to_vec(), replies.clone()),
        };
        let at = number % addresses.len();
        Self { wires: addresses.iter().map(wire).collect(), at, request: Vec::new(), queued: Vec::new() }
    }

    /// Reads a key, and returns the number of its values: 0 or 1.
    pub(in crate::commands::bench) async fn get(&mut self, key: &str) -> Result<u64, OperationError> {
        self.queue_get(key);
        self.only_reply().await
    }

    /// Writes a key.
    pub(in crate::commands::bench) async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), OperationError> {
        self.queue_put(key, value);
        self.only_reply().await.map(drop)
    }

    async fn only_reply(&mut self) -> Result<u64, OperationError> {
        self.flush().await?.pop().map_or(Err(TransportError::Malformed.into()), |replied| replied.result)
    }

    /// Queues a read.
    pub(in crate::commands::bench) fn queue_get(&mut self, key: &str) {
        resp::command(&mut self.request, &[b"GET", key.as_bytes()]);
        self.queued.push(Kind::Read);
    }

    /// Queues a write.
    pub(in crate::commands::bench) fn queue_put(&mut self, key: &str, value: &[u8]) {
        resp::command(&mut self.request, &[b"SET", key.as_bytes(), value]);
        self.queued.push(Kind::Write);
    }

    /// Sends the queued commands at once, and waits for all replies.
    ///
    /// # Errors
    /// If a reply is missing. Each command may have been carried out or not.
    pub(in crate::commands::bench) async fn flush(&mut self) -> Result<Vec<Replied>, TransportError> {
        let (mut replies, mut parsed) = (Vec::with_capacity(self.queued.len()), 0);
        let queued = &self.queued;
        let parse = |bytes: &[u8]| -> Parsed<()> {
            let at = Instant::now();
            while let Some(&kind) = queued.get(replies.len()) {
                let Some((reply, length)) = resp::reply(&bytes[parsed..])? else { return Ok(None) };
                replies.push(Replied { kind, result: outcome(kind, reply)?, at });
                parsed += length;
            }
            Ok(Some(((), parsed)))
        };
        let result = self.wires[self.at].call(&self.request, parse).await;
        self.request.clear();
        self.queued.clear();
        if let Err(error) = result
            && error != TransportError::Timeout
        {
            self.at = (self.at + 1) % self.wires.len();
        }
        result.map(|()| replies)
    }
}

fn outcome(kind: Kind, reply: Reply<'_>) -> Result<Result<u64, OperationError>, Malformed> {
    match (kind, reply) {
        (Kind::Read, Reply::Bulk(_)) | (Kind::Write, Reply::Status(_)) => Ok(Ok(1)),
        (Kind::Read, Reply::Nil) => Ok(Ok(0)),
        (_, reply) => Ok(Err(resp::error(reply)?)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that reads `request`, then sends `parts` one after the other.
    async fn server(request: &'static str, parts: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = vec![0; request.len()];
            stream.read_exact(&mut received).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&received), request);
            for part in parts {
                stream.write_all(part.as_bytes()).await.unwrap();
                // The client receives each part by itself, as far as the network lets it.
                tokio::task::yield_now().await;
            }
            let _ = stream.read(&mut [0]).await;
        });
        address
    }

    fn results(replies: Vec<Replied>) -> Vec<(Kind, Result<u64, String>)> {
        replies.into_iter().map(|replied| (replied.kind, replied.result.map_err(|OperationError(why)| why))).collect()
    }

    #[tokio::test]
    async fn the_commands_of_a_batch_are_sent_at_once_and_each_has_its_reply() {
        let request = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nxy\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n\
            *2\r\n$3\r\nGET\r\n$1\r\nc\r\n";
        let address = server(request, &["+OK\r", "\n$2\r\nxy\r\n$-1", "\r\n", "-MOVED 1 x:1\r\n"]).await;
        let mut link = RespLink::new(&[address], &Dial::default(), 0, 0, Duration::from_secs(60));
        link.queue_put("a", b"xy");
        link.queue_get("a");
        link.queue_get("b");
        link.queue_get("c");
        let found = results(link.flush().await.unwrap());
        let moved = (Kind::Read, Err("MOVED".to_owned()));
        assert_eq!(found, [(Kind::Write, Ok(1)), (Kind::Read, Ok(1)), (Kind::Read, Ok(0)), moved]);
    }

    #[tokio::test]
    async fn a_link_selects_its_database_and_turns_to_the_next_server_after_a_failure() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n";
        let address = server(select, &["+OK\r\n", "$1\r\nv\r\n"]).await;
        let mut link = RespLink::new(&[address, dead], &Dial::default(), 1, 3, Duration::from_secs(60));
        assert_eq!(link.get("k").await.unwrap_err().0, TransportError::Connect.name());
        assert_eq!(link.get("k").await.unwrap(), 1);
    }
}
