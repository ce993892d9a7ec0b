//! The oracle: what must hold of the responses that clients get. Each check is a function of the histories, and of what the replicas hold at the
//! end, so it can be tested on histories written by hand.

pub mod accounts;
pub mod converged;
pub mod key_index;
pub mod last_write_wins;
pub mod siblings;
pub mod strong;
pub mod timestamps;
pub mod trees;

use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::value::state::State;

use crate::failure::Failure;
use crate::history::{KeyHistory, Moment};

/// The result of the checks of one key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The first violation.
    pub failure: Option<Box<Failure>>,
    /// Whether the search for a linear order exceeded its bound.
    pub inconclusive: bool,
}

/// Checks a key's history. `end` is what its replicas hold at the end, if they are equal.
pub fn judge(history: &KeyHistory, end: Option<&State>) -> Verdict {
    let eventual = timestamps::check(history).and_then(|()| match history.conflict {
        Conflict::Siblings => siblings::check(history, end),
        Conflict::Lww => last_write_wins::check(history, end),
    });
    if let Err(failure) = eventual {
        return Verdict { failure: Some(failure), inconclusive: false };
    }
    if history.strong_only { strong::check(history) } else { Verdict::default() }
}

fn failure(history: &KeyHistory, check: &'static str, at: Moment, message: String) -> Box<Failure> {
    Box::new(Failure { check, key: Some(history.key.clone()), at_us: at.at_us, message })
}

/// Whether every set of `r` homes overlaps every set of `w`, so that a read must see an earlier write.
///
/// A home that lost its record counts again once it has merged the records of a majority of the others. That may miss a write on less than a
/// majority of homes, so nothing is required of such a write on a damaged key.
fn must_meet(history: &KeyHistory, r: u8, w: u8) -> bool {
    r + w > history.replicas && (!history.damaged || w > history.replicas / 2)
}

/// The end of the run, in messages.
const END: Moment = Moment { order: u64::MAX, at_us: u64::MAX };
