//! `cartwheel cluster status --watch`: shows the status again and again, whichever nodes are lost meanwhile.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::status::shown;
use crate::cli::RequestArgs;
use crate::terminal::error::CommandError;
use crate::terminal::exit::{Exit, ToExit as _};
use crate::terminal::output::print;
use crate::terminal::signals::{self, Parent};

/// Moves to the first line of a terminal and clears what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows the status every so often until Ctrl-C. On a terminal each one replaces the last.
///
/// # Errors
/// If the endpoints are invalid, or standard output cannot be written.
pub(super) async fn watch(args: &RequestArgs, every: Duration) -> Result<ExitCode, CommandError> {
    let stopped =
        signals::stop(Parent::Unwatched).map_err(|error| CommandError::Io("install signal handlers", error))?;
    let mut stopped = pin!(stopped);
    let given: Vec<String> = args.endpoints.addresses().into_iter().map(str::to_owned).collect();
    let mut addresses = given.clone();
    let clears = io::stdout().is_terminal() && !args.format.is_for_programs();
    loop {
        let known: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let result = tokio::select! {
            result = shown(args, &known) => result,
            _ = &mut stopped => return Ok(Exit::Interrupted.into()),
        };
        match result {
            Ok(status) => {
                print(screen(&status.text, clears, args.format.is_for_programs(), every).as_bytes())?;
                addresses = merged(&given, &addresses, status.addresses);
            }
            Err(error) if error.exit() == Exit::Usage => return Err(error),
            Err(error) if args.format.is_for_programs() => {
                crate::terminal::output::note(format_args!("error: {error}"))
            }
            Err(error) => {
                print(screen(&format!("no node answers: {error}\n"), clears, false, every).as_bytes())?;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = &mut stopped => return Ok(Exit::Interrupted.into()),
        }
    }
}

/// One status as it is written.
fn screen(text: &str, clears: bool, for_programs: bool, every: Duration) -> String {
    if for_programs {
        return text.to_owned();
    }
    let (before, after) = if clears { (CLEAR, "") } else { ("", "\n") };
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("{before}{now}, every {}; Ctrl-C ends\n\n{text}{after}", humantime::format_duration(every))
}

/// The addresses to ask next: those given, in their order, then those of the members. Members that were known remain if none is known now.
fn merged(given: &[String], before: &[String], members: Vec<String>) -> Vec<String> {
    let members = if members.is_empty() { before.to_vec() } else { members };
    let mut all = given.to_vec();
    for member in members {
        // Given addresses may have a scheme in front.
        if !all.iter().any(|known| known.trim_end_matches('/').ends_with(&member)) {
            all.push(member);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_asked_after_the_given_addresses() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let given = texts(&["http://a:1"]);
        let all = merged(&given, &given, texts(&["a:1", "b:1", "c:1"]));
        assert_eq!(all, ["http://a:1", "b:1", "c:1"]);
        assert_eq!(merged(&given, &all, texts(&["b:1", "d:1"])), ["http://a:1", "b:1", "d:1"]);
        assert_eq!(merged(&given, &all, Vec::new()), all);
    }

    #[test]
    fn a_terminal_is_cleared_and_programs_get_the_response_alone() {
        let every = Duration::from_secs(2);
        assert!(screen("x\n", true, false, every).starts_with(CLEAR));
        assert!(!screen("x\n", false, false, every).contains('\u{1b}'));
        assert_eq!(screen("{}\n", false, true, every), "{}\n");
    }
}
