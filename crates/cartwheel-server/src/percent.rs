//! Percent-encoding (RFC 3986, section 2.1): how arbitrary bytes are written in paths and in JSON.

use bytes::Bytes;

/// Encodes a bucket's name.
pub fn encode(bytes: &[u8]) -> String {
    encode_but(bytes, b"-._~")
}

/// Encodes all bytes but letters, digits and those of `kept`.
pub fn encode_but(bytes: &[u8], kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Decodes; none if a percent sign lacks its two hexadecimal digits.
pub fn decode(encoded: &str) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? << 4 | digit(rest.next())?) as u8
            }
            byte => byte,
        });
    }
    Some(bytes.into())
}
