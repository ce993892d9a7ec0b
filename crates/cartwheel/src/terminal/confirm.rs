//! Questions before a change.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::error::CommandError;
use super::output::print;

/// Asks the user whether to go on.
///
/// # Errors
/// If standard input is not a terminal, or the terminal cannot be used.
pub fn confirm(question: &str) -> Result<bool, CommandError> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::NotConfirmed);
    }
    print(format!("{question} [y/N] ").as_bytes())?;
    io::stdout().flush().map_err(|error| CommandError::Io("write the prompt", error))?;
    let mut reply = String::new();
    io::stdin().lock().read_line(&mut reply).map_err(|error| CommandError::Io("read the confirmation", error))?;
    Ok(matches!(reply.trim(), "y" | "Y" | "yes"))
}
