use std::fmt;
use std::str::FromStr;

/// A number of bytes. As text it is a whole number with an optional unit: B, KiB, MiB, GiB or TiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

/// The units in descending order, with their powers of two.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "give a size in bytes, for example 268435456, 256MiB or 1GiB".to_owned();
        let text = text.trim();
        let with_unit = UNITS.into_iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?.trim_end(), power)));
        let (digits, power) = with_unit.unwrap_or((text, 0));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: u64 = digits.parse().ok().filter(|_| is_number).ok_or_else(wanted)?;
        count.checked_mul(1 << power).map(Self).ok_or_else(|| "it exceeds 2^64 bytes; give less".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&(_, power): &(&str, u32)| self.0 > 0 && self.0.trailing_zeros() >= power;
        let (unit, power) = UNITS.into_iter().find(fits).unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> power)
    }
}
