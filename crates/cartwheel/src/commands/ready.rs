//! `cartwheel ready`: whether a node is ready for requests.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cartwheel_client::Error;

use crate::cli::ReadyArgs;
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::print;

/// The pause between two checks.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Checks once, or until a node is ready.
///
/// # Errors
/// If none is ready.
pub async fn run(args: &ReadyArgs) -> Result<ExitCode, CommandError> {
    let client = args.endpoints.client()?.with_timeout(args.timeout);
    let begun = Instant::now();
    while let Err(error) = client.ready().await {
        let may_change = !matches!(error, Error::Endpoint(_) | Error::Tls(_));
        let is_due = args.wait.is_some_and(|wait| begun.elapsed() + CHECK_EVERY < wait);
        if !(may_change && is_due) {
            return Err(error.into());
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
    print(b"ready\n")?;
    Ok(Exit::Done.into())
}
