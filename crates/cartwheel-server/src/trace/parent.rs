/// What a `traceparent` header says (W3C Trace Context, level 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parent {
    pub(super) trace: u128,
    pub(super) span: u64,
    /// Whether the caller records the trace.
    pub(super) sampled: bool,
}

impl Parent {
    /// Parses a header: `00-{trace}-{span}-{flags}` in lower-case hexadecimal. A later version may have more fields after these.
    pub(super) fn parse(header: &[u8]) -> Option<Self> {
        let [version, trace, span, flags] =
            [(0, 2), (3, 35), (36, 52), (53, 55)].map(|(from, to)| header.get(from..to));
        let version = number(version?)?;
        let ends_well = match header.get(55..) {
            Some([]) => true,
            Some(rest) => version > 0 && rest.starts_with(b"-"),
            None => false,
        };
        let are_apart = [2, 35, 52].iter().all(|&at| header.get(at) == Some(&b'-'));
        if version == 0xff || !ends_well || !are_apart {
            return None;
        }
        let (trace, span) = (number(trace?)?, number(span?)? as u64);
        let sampled = number(flags?)? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled })
    }
}

fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}
