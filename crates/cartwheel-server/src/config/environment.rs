use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::given::{BadValue, Given};
use super::settings::{NAMES, Settings, nearest};
use crate::os::clock::TEST_CLOCK_OFFSET_FILE;

const PREFIX: &str = "CARTWHEEL_";
const CONFIG: &str = "config";
/// It has no flag and is in no file, because others could read it there.
const ADMIN_PASSWORD: &str = "admin_password";

/// The environment variables whose names begin with `CARTWHEEL_`. An empty one counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// By setting name.
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The variables that no setting has, each with the setting that was probably meant. `others` are variables of commands that run no
    /// node. An unknown variable is not an error: container platforms set variables of their own for a service named cartwheel.
    pub fn unknown<'a>(&'a self, others: &'a [&str]) -> impl Iterator<Item = (String, Option<String>)> + 'a {
        let is_known = |name: &str| {
            let variable = variable(name);
            let is_other = variable == TEST_CLOCK_OFFSET_FILE || others.contains(&variable.as_str());
            [CONFIG, ADMIN_PASSWORD].contains(&name) || NAMES.contains(&name) || is_other
        };
        let unknown = self.variables.keys().filter(move |name| !is_known(name));
        unknown.map(|name| (variable(name), nearest(name, &NAMES).map(variable)))
    }

    /// The settings that the variables give.
    pub(super) fn settings(&self) -> Result<Settings, BadValue> {
        let mut settings = Settings::default();
        for name in NAMES {
            let Some(value) = self.variables.get(name) else { continue };
            let bad = |value: String, wanted: String| BadValue { name: variable(name), value, wanted };
            if name == "dir" {
                // A path need not be UTF-8.
                settings.dir = Some(PathBuf::from(value));
                continue;
            }
            let text = value.to_str().ok_or_else(|| bad(format!("{value:?}"), "it is not UTF-8".to_owned()))?;
            let given = Given::Text(text);
            settings.set(name, &given).map_err(|wanted| bad(given.shown(), wanted))?;
        }
        Ok(settings)
    }

    /// The password of the first administrator.
    pub(super) fn admin_password(&self) -> Option<OsString> {
        self.variables.get(ADMIN_PASSWORD).cloned()
    }

    /// The configuration file that `CARTWHEEL_CONFIG` names.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.variables.get(CONFIG).map(PathBuf::from)
    }
}

/// The name of a setting's variable.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter(|(_, value)| !value.is_empty()).filter_map(|(name, value)| {
            let name = name.strip_prefix(PREFIX)?;
            Some((name.to_ascii_lowercase(), value))
        });
        Self { variables: ours.collect() }
    }
}
