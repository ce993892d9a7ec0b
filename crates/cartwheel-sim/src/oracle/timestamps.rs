//! Timestamps follow causality: a write's is above all that the write had been shown.

use super::failure;
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory};

/// Checks all acknowledged writes of a key.
///
/// # Errors
/// The first write that is not later than what it had been shown.
pub fn check(history: &KeyHistory) -> Result<(), Box<Failure>> {
    for (place, write) in history.writes.iter().enumerate() {
        if let Fate::Acknowledged { at, hlc: Some(hlc), .. } = write.fate
            && hlc <= write.shown_hlc
        {
            let name = history.name(place);
            let message = format!("{name} has the timestamp {hlc:?}, but had been shown {:?}", write.shown_hlc);
            return Err(failure(history, "a write is later than what it has seen", at, message));
        }
    }
    Ok(())
}
