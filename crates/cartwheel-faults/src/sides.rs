//! The two sides of a cut, as strong requests see them: the one with a minority of the homes must refuse, the other must go on.

use std::time::Instant;

/// How strong requests went on one side while the network was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// Reads that were answered with what is there.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that were refused.
    pub reads_refused: u64,
    /// Writes that were refused.
    pub writes_refused: u64,
}

impl Side {
    /// Counts a request.
    pub const fn count(&mut self, is_write: bool, was_answered: bool) {
        let counter = match (is_write, was_answered) {
            (false, true) => &mut self.reads,
            (true, true) => &mut self.writes,
            (false, false) => &mut self.reads_refused,
            (true, false) => &mut self.writes_refused,
        };
        *counter += 1;
    }
}

/// How strong requests went on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sides {
    /// Where no client reaches a majority of any key's homes. Only what began after the cut and ended before the healing counts as
    /// answered.
    pub minority: Side,
    /// Where all clients do. What is refused here counts among all that is refused.
    pub majority: Side,
}

/// When and for whom the network was cut so that no majority can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The zone that is on the minority's side.
    pub zone: usize,
    begun: Instant,
    healed: Option<Instant>,
}

/// Where a request was when the network was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whereabouts {
    /// It was over, or had not begun.
    Elsewhen,
    /// On the majority's side.
    Majority,
    /// On the minority's side, from its beginning to its end.
    Minority,
    /// On the minority's side, for a part of its time.
    PartlyMinority,
}

impl Cut {
    /// The network was just cut.
    pub fn begin(zone: usize) -> Self {
        Self { zone, begun: Instant::now(), healed: None }
    }

    /// It is about to be healed.
    pub fn heal(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// Where a request was of a client in `zone`, from its beginning to its end.
    pub fn of(&self, zone: usize, begun: Instant, ended: Instant) -> Whereabouts {
        let touched = ended >= self.begun && self.healed.is_none_or(|healed| begun <= healed);
        let within = begun >= self.begun && self.healed.is_none_or(|healed| ended <= healed);
        match (zone == self.zone, touched, within) {
            (_, false, _) => Whereabouts::Elsewhen,
            (true, true, true) => Whereabouts::Minority,
            (true, true, false) => Whereabouts::PartlyMinority,
            (false, true, true) => Whereabouts::Majority,
            (false, true, false) => Whereabouts::Elsewhen,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_lay_within_the_cut_was_wholly_on_a_side() {
        let mut cut = Cut::begin(1);
        let at = |ms: i64| {
            let away = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { cut.begun.checked_sub(away).unwrap() } else { cut.begun + away }
        };
        let [before, early, late, after] = [at(-9), at(5), at(10), at(30)];
        assert_eq!(cut.of(1, early, late), Whereabouts::Minority, "it lasts still");
        cut.healed = Some(at(20));
        for (zone, begun, ended, expected) in [
            (1, early, late, Whereabouts::Minority),
            (1, before, late, Whereabouts::PartlyMinority),
            (1, late, after, Whereabouts::PartlyMinority),
            (1, before, before, Whereabouts::Elsewhen),
            (1, after, after, Whereabouts::Elsewhen),
            (0, early, late, Whereabouts::Majority),
            (0, late, after, Whereabouts::Elsewhen),
        ] {
            assert_eq!(cut.of(zone, begun, ended), expected);
        }
    }
}
