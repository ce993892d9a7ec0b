//! The hash slots of Redis Cluster, by which its clients find the node of a key.

/// The number of hash slots.
pub const HASH_SLOTS: u16 = 16_384;

/// The hash slot of a key: the CRC16 of its hash tag, if it has one, else of the whole key (Redis Cluster specification, "Key distribution
/// model"). The hash tag is what lies between the first `{` and the first `}` after it, unless that is empty.
pub fn hash_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&byte| byte == b'}').filter(|&close| close > 0)?;
        Some(&rest[..close])
    });
    crc16(tag.unwrap_or(key)) % HASH_SLOTS
}

/// CRC16 in the form that XMODEM uses.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        for (key, slot) in [
            ("", 0),
            ("123456789", 0x31c3),
            ("foo", 12_182),
            ("bar", 5_061),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
        ] {
            assert_eq!(hash_slot(key.as_bytes()), slot, "{key}");
        }
    }
}
