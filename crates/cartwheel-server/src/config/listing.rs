//! The settings in force and the source of each, as `cartwheel config show` lists them.

use std::path::PathBuf;

use serde::Serialize;

use super::access::{AccessSettings, UsersMode};
use super::settings::NAMES;
use super::{
    BACKGROUND_P99_TARGET_DEFAULT, CACHE_DEFAULT, ConfigError, DISK_RESERVE_DEFAULT, EXCHANGE_EVERY_DEFAULT,
    Environment, HINTS_SHARE_DEFAULT, NewNode, SLOW_REQUEST_DEFAULT, Settings, Share, Sources, Tuning,
};

/// The source of a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// A command-line flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// No source gives it.
    Default,
}

impl From {
    /// The name shown in the listing.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listed {
    /// Its name in the configuration file.
    pub name: &'static str,
    /// Its value, written as in the environment; none where no source gives it and the data directory or the cluster decides.
    pub value: Option<String>,
    /// Its source.
    pub from: From,
}

/// All settings, in the order in which the documentation has them.
///
/// # Errors
/// If a value is invalid.
pub fn list(flags: Settings, path: Option<PathBuf>, environment: &Environment) -> Result<Vec<Listed>, ConfigError> {
    let Sources { flags, variables, file } = Sources::read(flags, path, environment)?;
    let sources =
        [(flags, From::Flag), (variables, From::Environment), (file, From::File), (defaults(), From::Default)];
    let listed = |name: &'static str| {
        let given = sources.iter().find_map(|(settings, from)| Some((settings.text(name)?, *from)));
        let (value, from) = given.map_or((None, From::Default), |(value, from)| (Some(value), from));
        Listed { name, value, from }
    };
    Ok(NAMES.into_iter().map(listed).collect())
}

/// The defaults that are the same for all nodes.
fn defaults() -> Settings {
    Settings {
        insecure: Some(false),
        access: AccessSettings { users: Some(UsersMode::Auto), core_dumps: Some(false), ..AccessSettings::default() },
        new: NewNode { join: Some(false), bootstrap: Some(false), ..NewNode::default() },
        tuning: Tuning {
            durability: Some(super::Durability::default()),
            cache_size: Some(CACHE_DEFAULT),
            disk_reserve: Some(DISK_RESERVE_DEFAULT),
            hints_share: Some(HINTS_SHARE_DEFAULT),
            exchange_every: Some(EXCHANGE_EVERY_DEFAULT),
            background_p99_target: Some(BACKGROUND_P99_TARGET_DEFAULT),
            log_level: Some(super::LogLevel::default()),
            log_format: Some(super::LogFormat::default()),
            slow_request: Some(SLOW_REQUEST_DEFAULT),
            otlp_endpoint: None,
            trace_sample: Some(Share::percent(0)),
        },
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_listed_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "dir = 'd'\ncache_size = '1GiB'\nseed = ['a:1', 'b:2']\nlog_format = 'json'\n").unwrap();
        let variables = [("CARTWHEEL_CACHE_SIZE", "2GiB"), ("CARTWHEEL_ZONE", "east")];
        let environment = variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let flags = Settings { insecure: Some(true), ..Settings::default() };
        let listed = list(flags, Some(file), &environment).unwrap();
        assert_eq!(listed.iter().map(|one| one.name).collect::<Vec<_>>(), NAMES);
        let of = |name: &str| {
            let one = listed.iter().find(|one| one.name == name).unwrap();
            (one.value.as_deref(), one.from)
        };
        assert_eq!(of("insecure"), (Some("true"), From::Flag));
        assert_eq!(of("cache_size"), (Some("2GiB"), From::Environment), "a variable takes precedence over the file");
        assert_eq!(of("zone"), (Some("east"), From::Environment));
        assert_eq!((of("dir"), of("seed")), ((Some("d"), From::File), (Some("a:1,b:2"), From::File)));
        assert_eq!(of("log_format"), (Some("json"), From::File));
        assert_eq!(of("exchange_every"), (Some("20s"), From::Default));
        assert_eq!(of("peer_listen"), (None, From::Default));
    }

    #[test]
    fn a_listed_value_can_be_given_back_as_a_setting() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { dir: Some(dir.path().to_path_buf()), ..Settings::default() };
        let listed = list(settings, None, &Environment::default()).unwrap();
        let given = listed
            .iter()
            .filter_map(|one| Some((format!("CARTWHEEL_{}", one.name.to_uppercase()), one.value.clone()?.into())));
        let again = list(Settings::default(), None, &given.collect()).unwrap();
        let values = |listed: &[Listed]| listed.iter().map(|one| one.value.clone()).collect::<Vec<_>>();
        assert_eq!(values(&again), values(&listed));
    }
}
