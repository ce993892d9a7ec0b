//! Arbitrary bytes for the decoders that a key or a checksum normally protects: they must not panic.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_contexts_and_records_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), field in 1u8..5) {
        // The bytes as they are, and as the contents of one field.
        let within = [&[field << 3 | 2, bytes.len() as u8], &bytes[..]].concat();
        for bytes in [bytes, within] {
            if let Ok((context, since)) = decode_context(&bytes) {
                prop_assert_eq!(decode_context(&encode_context(&context, since)), Ok((context, since)));
            }
            if let Ok(record) = decode_record(bytes.into()) {
                prop_assert_eq!(decode_record(encode_record(&record, 0).into()), Ok(record));
            }
        }
    }
}
