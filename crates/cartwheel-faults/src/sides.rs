//! The two sides of a cut. The side with a minority of the homes must refuse strong requests, the other side must serve them.

use std::time::Instant;

/// The strong requests on one side of a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// Answered reads.
    pub reads: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Refused reads.
    pub reads_refused: u64,
    /// Refused writes.
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

/// The strong requests on both sides of a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sides {
    /// The side on which no client reaches a majority of any key's homes. Answered requests count only if they began after the cut and ended before
    /// the healing.
    pub minority: Side,
    /// The side on which all clients reach a majority. Refusals here also count as refusals in general.
    pub majority: Side,
}

/// A cut of the network after which one zone reaches no majority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The zone on the minority side.
    pub zone: usize,
    begun: Instant,
    healed: Option<Instant>,
}

/// The relation of a request to a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutSide {
    /// Before or after the cut, or partly so on the majority side.
    Neither,
    /// During the cut, on the majority side.
    Majority,
    /// During the cut from begin to end, on the minority side.
    Minority,
    /// Partly during the cut, on the minority side.
    PartlyMinority,
}

impl Cut {
    /// Records that the network was just cut.
    pub fn begin(zone: usize) -> Self {
        Self { zone, begun: Instant::now(), healed: None }
    }

    /// Records that the cut is about to be healed.
    pub fn heal(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// The relation of a request of a client in `zone` that lasted from `begun` to `ended`.
    pub fn of(&self, zone: usize, begun: Instant, ended: Instant) -> CutSide {
        let touched = ended >= self.begun && self.healed.is_none_or(|healed| begun <= healed);
        let within = begun >= self.begun && self.healed.is_none_or(|healed| ended <= healed);
        match (zone == self.zone, touched, within) {
            (_, false, _) => CutSide::Neither,
            (true, true, true) => CutSide::Minority,
            (true, true, false) => CutSide::PartlyMinority,
            (false, true, true) => CutSide::Majority,
            (false, true, false) => CutSide::Neither,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_requests_within_the_cut_are_on_a_side() {
        let mut cut = Cut::begin(1);
        let at = |ms: i64| {
            let away = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { cut.begun.checked_sub(away).unwrap() } else { cut.begun + away }
        };
        let [before, early, late, after] = [at(-9), at(5), at(10), at(30)];
        assert_eq!(cut.of(1, early, late), CutSide::Minority, "the cut is not over");
        cut.healed = Some(at(20));
        for (zone, begun, ended, expected) in [
            (1, early, late, CutSide::Minority),
            (1, before, late, CutSide::PartlyMinority),
            (1, late, after, CutSide::PartlyMinority),
            (1, before, before, CutSide::Neither),
            (1, after, after, CutSide::Neither),
            (0, early, late, CutSide::Majority),
            (0, late, after, CutSide::Neither),
        ] {
            assert_eq!(cut.of(zone, begun, ended), expected);
        }
    }
}
