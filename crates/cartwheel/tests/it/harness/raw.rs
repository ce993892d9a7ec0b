//! HTTP as bytes, so that a test sees exactly what a client receives, and can send what no HTTP library would send.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A whole reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    pub fn context(&self) -> &str {
        self.header("cartwheel-context")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and code of an error, which must have a message.
    pub fn error(&self) -> (u16, String) {
        let error = self.json();
        let fields = error.as_object().unwrap().len();
        assert!(fields == 2 || error["unreachable"].is_array() && fields == 5, "{error}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
        (self.status, error["error"].as_str().unwrap().to_owned())
    }

    /// The live values of an answer in any form, sorted.
    pub fn values(&self) -> Vec<String> {
        let mut values = match self.status {
            200 => vec![self.text()],
            300 => self.siblings().iter().filter(|sibling| sibling["deleted"] == false).map(decoded).collect(),
            404 => Vec::new(),
            _ => panic!("not an answer to a get: {} {}", self.status, self.text()),
        };
        values.sort();
        values
    }

    pub fn siblings(&self) -> Vec<Value> {
        self.json()["siblings"].as_array().unwrap().clone()
    }
}

/// The value of a sibling in the JSON form.
pub fn decoded(sibling: &Value) -> String {
    use base64::Engine as _;
    let value = sibling["value"].as_str().unwrap();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).unwrap()).unwrap()
}

/// Sends a request with a declared length.
pub fn call(endpoint: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let length = body.len().to_string();
    let headers = [headers, &[("content-length", length.as_str())]].concat();
    exchange(endpoint, &head(method, path, &headers), body)
}

/// Sends a request without a declared length, with its body in these chunks.
pub fn call_chunked(endpoint: &str, method: &str, path: &str, headers: &[(&str, &str)], chunks: &[&[u8]]) -> Reply {
    let mut body = Vec::new();
    for chunk in chunks {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    exchange(endpoint, &head(method, path, &[headers, &[("transfer-encoding", "chunked")]].concat()), &body)
}

pub fn get(endpoint: &str, path: &str) -> Reply {
    call(endpoint, "GET", path, &[], b"")
}

pub fn put(endpoint: &str, path: &str, body: &str) -> Reply {
    call(endpoint, "PUT", path, &[], body.as_bytes())
}

/// The content type of JSON bodies.
pub const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Sets a bucket's settings.
pub fn set_bucket(endpoint: &str, bucket: &str, settings: &str) -> Reply {
    call(endpoint, "PUT", &format!("/v1/buckets/{bucket}"), JSON, settings.as_bytes())
}

/// Sends a put with the context `context`.
pub fn put_seen(endpoint: &str, path: &str, context: &str, body: &str) -> Reply {
    call(endpoint, "PUT", path, &[("cartwheel-context", context)], body.as_bytes())
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head + "\r\n"
}

/// Sends `head` and `body` and reads until the other side closes.
pub fn exchange(endpoint: &str, head: &str, body: &[u8]) -> Reply {
    let mut stream = connected(endpoint);
    stream.write_all(head.as_bytes()).unwrap();
    // The node may refuse the request and close the connection before the body has been sent.
    let _ = stream.write_all(body);
    reply(&mut stream).unwrap_or_else(|answer| panic!("no reply to {head}: {answer}"))
}

/// A request that was sent in part.
pub struct Unfinished(TcpStream);

impl Unfinished {
    /// Sends a request with the beginning of a body of this length.
    pub fn begin(endpoint: &str, method: &str, path: &str, body: &[u8], length: usize) -> Self {
        let mut stream = connected(endpoint);
        stream.write_all(head(method, path, &[("content-length", &length.to_string())]).as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Self(stream)
    }

    /// Sends the rest of the body and waits for the answer.
    pub fn end(&mut self, body: &[u8]) -> Reply {
        self.0.write_all(body).unwrap();
        reply(&mut self.0).unwrap_or_else(|answer| panic!("no reply: {answer}"))
    }
}

fn connected(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// The reply, read until the other side closes. The error is the text received, if it is not a reply.
fn reply(stream: &mut TcpStream) -> Result<Reply, String> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    parse(&answer).ok_or_else(|| String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(&answer[..end]).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
    Some(Reply { status, headers, body: answer[end + 4..].to_vec() })
}
