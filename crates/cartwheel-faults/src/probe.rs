//! Probes of one node from outside, with a minimum of HTTP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than any response has.
const RESPONSE_BYTES_MAX: u64 = 4 << 20;
/// How long one probe may take.
const WITHIN: Duration = Duration::from_secs(1);

/// Whether the node at `addr` is ready and its process is `pid`.
pub async fn is_ready(addr: &str, pid: u32) -> bool {
    let response = get(addr, "/readyz").await.unwrap_or_default();
    response.starts_with("HTTP/1.1 200") && response.contains(&format!("\"pid\":{pid}}}"))
}

/// The metrics of the node at `addr`, with the head of the response; `None` if it does not return them.
pub async fn metrics(addr: &str) -> Option<String> {
    get(addr, "/metrics").await.ok().filter(|response| response.starts_with("HTTP/1.1 200"))
}

async fn get(addr: &str, path: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).await?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    };
    tokio::time::timeout(WITHIN, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
