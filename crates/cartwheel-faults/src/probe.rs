//! Probes of one node from outside, with a minimum of HTTP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than any answer has.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// How long one probe may take.
const WITHIN: Duration = Duration::from_secs(1);

/// Whether the node at `addr` is ready and its process is `pid`.
pub async fn is_ready(addr: &str, pid: u32) -> bool {
    let answer = ask(addr, "/readyz").await.unwrap_or_default();
    answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("\"pid\":{pid}}}"))
}

/// The metrics of the node at `addr`, with the head of the answer; `None` if it does not return them.
pub async fn metrics(addr: &str) -> Option<String> {
    ask(addr, "/metrics").await.ok().filter(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn ask(addr: &str, path: &str) -> io::Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(WITHIN, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
