use std::fmt;
use std::str::FromStr;

const WHOLE: u32 = 1_000_000;

/// A share from 0 to 1, in millionths. As text it is a decimal fraction (`0.1`) or a percentage (`10%`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share(u32);

impl Share {
    /// A share of `percent`, at most 100.
    pub const fn percent(percent: u8) -> Self {
        let millionths = percent as u32 * (WHOLE / 100);
        Self(if millionths > WHOLE { WHOLE } else { millionths })
    }

    /// This share of `whole`.
    pub const fn of(self, whole: u64) -> u64 {
        (whole as u128 * self.0 as u128 / WHOLE as u128) as u64
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "give a share from 0 to 1, for example 0.1 or 10%".to_owned();
        let text = text.trim();
        let (digits, whole) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits.trim_end(), 100.0));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let share = digits.parse::<f64>().ok().filter(|_| is_number).ok_or_else(wanted)? / whole;
        if share <= 1.0 { Ok(Self((share * f64::from(WHOLE)).round() as u32)) } else { Err(wanted()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_shown() {
        for (text, of_a_thousand, shown) in
            [("0", 0, "0"), ("0.1", 100, "0.1"), ("10%", 100, "0.1"), ("1", 1_000, "1"), (" 2.5 % ", 25, "0.025")]
        {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.of(1_000), share.to_string().as_str()), (of_a_thousand, shown), "{text}");
            assert_eq!(share.to_string().parse(), Ok(share));
        }
        assert_eq!(Share::percent(10), "0.1".parse().unwrap());
        assert_eq!(Share::percent(200).of(u64::MAX), u64::MAX);
        for text in ["", "%", "-0.1", "1.1", "101%", "nan", "inf", "1e-3", "a tenth", "0.1.1"] {
            assert!(text.parse::<Share>().unwrap_err().contains("0.1 or 10%"), "{text}");
        }
    }
}
