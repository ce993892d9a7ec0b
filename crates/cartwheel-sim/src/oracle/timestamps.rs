//! The check that timestamps follow causality: a write's timestamp is above those of all writes that it had been shown.

use super::failure;
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory};

/// Checks all acknowledged writes of a key.
///
/// # Errors
/// The first write whose timestamp is not above those that it had been shown.
pub fn check(history: &KeyHistory) -> Result<(), Box<Failure>> {
    for (place, write) in history.writes.iter().enumerate() {
        if let Fate::Acknowledged { at, hlc: Some(hlc), .. } = write.fate
            && hlc <= write.shown_hlc
        {
            let name = history.name(place);
            let message = format!("{name} has the timestamp {hlc:?}, but had been shown {:?}", write.shown_hlc);
            return Err(failure(history, "a write's timestamp is above those that it has seen", at, message));
        }
    }
    Ok(())
}
