//! What became of each attempt that a client makes: for those who count more than whether a request succeeded in the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One attempt at one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt<'a> {
    /// The node, as the client was given it.
    pub endpoint: &'a str,
    /// Whether it was to change something.
    pub is_write: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The node answered.
    Answered {
        /// The status of the answer.
        status: u16,
        /// The contract's code, as `unavailable`, if the answer is an error.
        code: Option<String>,
    },
    /// There was no connection to be had: the node saw nothing of the request.
    NoConnection,
    /// The connection broke before the whole answer was there.
    Broken,
    /// The answer did not come in time.
    TimedOut,
}

type Tell = dyn Fn(&Attempt<'_>) + Send + Sync;

/// Who is told of each attempt.
#[derive(Clone, Default)]
pub(crate) struct Watcher(pub(crate) Option<Arc<Tell>>);

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

    /// Answers whatever comes with the next of these; an empty one is silence, and the end is a closed connection.
    async fn node(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4_096]).await.unwrap();
                if answer.is_empty() {
                    silent.push(stream);
                } else {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
            // Silence lasts.
            std::future::pending::<()>().await;
        });
        endpoint
    }

    #[tokio::test]
    async fn a_watcher_is_told_of_each_attempt() {
        const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 41\r\n\r\n\
            {\"error\":\"unavailable\",\"message\":\"later\"}";
        const HALF: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf";
        const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        let endpoints = [closed, node(&[REFUSAL]).await, node(&[HALF]).await, node(&[""]).await, node(&[DONE]).await];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let client = Client::new(&endpoints).unwrap().watched(move |attempt| {
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

        let missing = Client::new(&endpoints[..1]).unwrap().get("b", "k").await;
        assert!(matches!(missing, Err(Error::Unavailable { .. })));
    }
}
