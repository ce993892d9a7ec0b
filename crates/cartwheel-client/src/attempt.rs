//! The outcome of each attempt that a client makes at a node, for callers that count failures and latencies per node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One attempt at one node. A request makes several when nodes fail: see [`Client`](crate::Client).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt<'a> {
    /// The node's address, as [`parse_endpoint`](crate::parse_endpoint) writes it.
    pub endpoint: &'a str,
    /// Whether the request was a change (anything but a GET).
    pub is_write: bool,
    /// The result. It shows whether the node may have seen the request.
    pub outcome: Outcome,
    /// The time from sending the request to `outcome`.
    pub took: Duration,
}

/// The result of an [`Attempt`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The node sent a response: success or an error.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The error code in the body, such as `unavailable`; `None` if the response is not an error.
        code: Option<String>,
    },
    /// No connection could be made: the node has not seen the request.
    NoConnection,
    /// The connection broke before the response was complete. A write may have been stored.
    Broken,
    /// The response did not come within the time limit of the attempt. A write may have been stored.
    TimedOut,
}

type Callback = dyn Fn(&Attempt<'_>) + Send + Sync;

/// The callback of [`Client::on_attempt`](crate::Client::on_attempt), if there is one.
#[derive(Clone, Default)]
pub(crate) struct Watcher(pub(crate) Option<Arc<Callback>>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher(..)" } else { "Watcher" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{Client, Error, Options};

    /// Sends each connection the next of these responses. An empty one leaves the connection open and silent; after the last, none is accepted.
    async fn node(responses: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for response in responses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4_096]).await.unwrap();
                if response.is_empty() {
                    silent.push(stream);
                } else {
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            }
            // Dropping the silent streams would close them.
            std::future::pending::<()>().await;
        });
        endpoint
    }

    #[tokio::test]
    async fn the_callback_sees_each_attempt() {
        const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 41\r\n\r\n\
            {\"error\":\"unavailable\",\"message\":\"later\"}";
        const HALF: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf";
        const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        let endpoints = [closed, node(&[REFUSAL]).await, node(&[HALF]).await, node(&[""]).await, node(&[DONE]).await];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let client = Client::new(&endpoints).unwrap().without_routing().on_attempt(move |attempt| {
            notes.lock().unwrap().push((attempt.endpoint.to_owned(), attempt.is_write, attempt.outcome.clone()));
        });
        let options = Options { timeout: Some(Duration::from_millis(100)), ..Options::default() };
        let value = crate::Value::new("v", "text/plain");
        client.put_with("b", "k", value, None, &options).await.unwrap();
        let refused = Outcome::Answered { status: 503, code: Some("unavailable".to_owned()) };
        let done = Outcome::Answered { status: 204, code: None };
        let outcomes = [Outcome::NoConnection, refused, Outcome::Broken, Outcome::TimedOut, done];
        let expected: Vec<_> =
            endpoints.iter().zip(outcomes).map(|(endpoint, outcome)| (endpoint.clone(), true, outcome)).collect();
        assert_eq!(*seen.lock().unwrap(), expected);

        let missing = Client::new(&endpoints[..1]).unwrap().without_routing().get("b", "k").await;
        assert!(matches!(missing, Err(Error::Unavailable { .. })));
    }
}
