use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The time from one run of a periodic task to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval(pub Duration);

/// Bounds: a shorter interval would leave no time for anything else, a longer one would make the task useless.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "give a time with a unit, from 1s to 30days, for example `60s` or `5min`".to_owned();
        let interval = humantime::parse_duration(text).map_err(|_| wanted())?;
        if (SHORTEST..=LONGEST).contains(&interval) { Ok(Self(interval)) } else { Err(wanted()) }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without spaces, so that it can be a flag's value anywhere.
        f.write_str(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

/// A limit on the time that a request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency(pub Duration);

/// Bounds.
const LATENCY_MIN: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_secs(60);

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let latency = humantime::parse_duration(text).ok();
        let fits = latency.filter(|latency| (LATENCY_MIN..=LATENCY_MAX).contains(latency));
        fits.map(Self).ok_or_else(|| "give a time with a unit, from 1ms to 60s, for example `50ms`".to_owned())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Interval(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_bounds() {
        assert_eq!("90s".parse(), Ok(Interval(Duration::from_secs(90))));
        assert_eq!(Interval(Duration::from_secs(90)).to_string().parse(), Ok(Interval(Duration::from_secs(90))));
        for text in ["", "60", "0s", "999ms", "31days", "-5s", "a minute"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
        assert_eq!("1s 500ms".parse(), Ok(Latency(Duration::from_millis(1_500))));
        assert_eq!(Latency(Duration::from_millis(1_500)).to_string(), "1s500ms");
        for text in ["", "50", "0ms", "999us", "61s", "-5ms", "soon"] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }
}
