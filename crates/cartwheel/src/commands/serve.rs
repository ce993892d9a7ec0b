//! `cartwheel serve`: one node in this process.

use std::io;

use cartwheel_server::config::{Config, Environment};
use cartwheel_server::{log, serve};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::cli::{ServeArgs, SettingsArgs};
use crate::commands::config::unknown_variables;
use crate::terminal::exit::Failure;
use crate::terminal::signals::{self, Parent};

/// Runs a node until the process receives a signal to stop.
///
/// # Errors
/// If a setting is invalid, or the node cannot start, or it fails.
pub async fn run(args: Box<ServeArgs>) -> Result<(), Failure> {
    let ServeArgs { stop_with_stdin, reset_admin, given: SettingsArgs { config, settings } } = *args;
    let environment = Environment::of_process();
    let mut config = Config::resolve(settings, config, &environment).map_err(Failure::usage)?;
    if reset_admin && config.access.admin_password.is_none() {
        return Err(Failure::usage(
            "--reset-admin needs a password: give --admin-password-file, or CARTWHEEL_ADMIN_PASSWORD",
        ));
    }
    config.access.resets_admin = reset_admin;
    let _log = log::to_stderr(&config.log_level, config.log_format);
    let no_signals = |error| Failure::other(format_args!("cannot install signal handlers: {error}"));
    reopen_log_on_hang_up().map_err(no_signals)?;
    unknown_variables(&environment).for_each(|warning| warn!("{warning}"));
    let parent = if stop_with_stdin { Parent::HoldsStdin } else { Parent::Unwatched };
    let stopped = signals::stop(parent).map_err(no_signals)?;
    serve::serve(&config, Box::pin(stopped)).await.map_err(Failure::other)
}

/// Reopens the log on SIGHUP from here on. Without a handler, SIGHUP would end the process.
fn reopen_log_on_hang_up() -> io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            log::reopen();
        }
    });
    Ok(())
}
