//! `cartwheel renew`: creates a data directory for a node that has lost its own.

use std::process::ExitCode;

use cartwheel_server::lifecycle::renew;

use crate::cli::RenewArgs;
use crate::terminal::exit::{Exit, Failure};
use crate::terminal::output::print;

/// Creates the directory, and prints a summary.
///
/// # Errors
/// If the directory is not empty, the node is unknown, or a directory cannot be read or written.
pub fn run(args: &RenewArgs) -> Result<ExitCode, Failure> {
    let member = renew::renew(&args.dir, &args.like, &args.name).map_err(Failure::other)?;
    let (dir, name) = (args.dir.display(), &member.name);
    let done = format!(
        "created a new, empty incarnation of {name} in {dir}. Start it with: cartwheel serve --dir {dir}\n\
         Its replica of a key counts in quorums once it has received what the other homes hold.\n\
         Never serve the old directory again.\n"
    );
    print(done.as_bytes())?;
    Ok(Exit::Done.into())
}
