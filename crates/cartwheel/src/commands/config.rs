//! `cartwheel config`: shows or checks the settings of a node without starting it.

use std::process::ExitCode;

use cartwheel_server::config::listing::{self, Listed};
use cartwheel_server::config::{Config, Environment};
use cartwheel_server::serve;

use crate::cli::{ConfigCommand, ENDPOINTS, LOGIN_VARIABLES, SettingsArgs};
use crate::terminal::exit::{Exit, Failure};
use crate::terminal::output::{self, print, show};
use crate::terminal::table::table;

/// Shows or checks the settings.
///
/// # Errors
/// If a setting is invalid.
pub async fn run(command: ConfigCommand) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    match command {
        ConfigCommand::Show { format, given } => {
            let SettingsArgs { config, settings } = *given;
            let listed = listing::list(settings, config, &environment).map_err(Failure::usage)?;
            show(format, &listed, |listed, _| settings_table(listed))?;
        }
        ConfigCommand::Check { given } => {
            let SettingsArgs { config, settings } = *given;
            let config = Config::resolve(settings, config, &environment).map_err(Failure::usage)?;
            unknown_variables(&environment).for_each(output::note);
            let would = serve::check(&config).await.map_err(Failure::usage)?;
            print(format!("the settings are valid: {would}\n").as_bytes())?;
        }
    }
    Ok(Exit::Done.into())
}

fn settings_table(listed: &[Listed]) -> String {
    let row = |one: &Listed| {
        let value = one.value.clone().unwrap_or_else(|| "-".to_owned());
        [one.name.to_owned(), value, one.from.name().to_owned()]
    };
    table(["SETTING", "VALUE", "FROM"], listed.iter().map(row))
}

/// Warnings about unknown environment variables.
pub(super) fn unknown_variables(environment: &Environment) -> impl Iterator<Item = String> {
    let others: Vec<&str> = [ENDPOINTS].into_iter().chain(LOGIN_VARIABLES).collect();
    let unknown: Vec<_> = environment.unknown(&others).collect();
    unknown.into_iter().map(|(name, nearest)| {
        let did_you_mean = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        format!("ignored unknown environment variable {name}{did_you_mean}")
    })
}
