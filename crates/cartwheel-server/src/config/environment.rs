use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::given::{BadValue, Given};
use super::settings::{NAMES, Settings, nearest};
use crate::os::clock::TEST_CLOCK_OFFSET_FILE;

const PREFIX: &str = "CARTWHEEL_";
const CONFIG: &str = "config";

/// The environment variables whose names begin with `CARTWHEEL_`. One that is empty counts as not there.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// By the settings' names.
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// Those whose names mean nothing, with the ones that may have been meant; `others` are variables of commands that run no node. They are no error: a container's platform makes
    /// up variables of its own for a service that is called cartwheel.
    pub fn unknown<'a>(&'a self, others: &'a [&str]) -> impl Iterator<Item = (String, Option<String>)> + 'a {
        let is_known = |name: &str| {
            let variable = variable(name);
            let is_other = variable == TEST_CLOCK_OFFSET_FILE || others.contains(&variable.as_str());
            name == CONFIG || NAMES.contains(&name) || is_other
        };
        let unknown = self.variables.keys().filter(move |name| !is_known(name));
        unknown.map(|name| (variable(name), nearest(name, &NAMES).map(variable)))
    }

    /// What they say of the settings.
    pub(super) fn settings(&self) -> Result<Settings, BadValue> {
        let mut settings = Settings::default();
        for name in NAMES {
            let Some(value) = self.variables.get(name) else { continue };
            let bad = |value: String, wanted: String| BadValue { name: variable(name), value, wanted };
            if name == "dir" {
                // The one value that need not be text.
                settings.dir = Some(PathBuf::from(value));
                continue;
            }
            let text = value.to_str().ok_or_else(|| bad(format!("{value:?}"), "it is not UTF-8".to_owned()))?;
            let given = Given::Text(text);
            settings.set(name, &given).map_err(|wanted| bad(given.shown(), wanted))?;
        }
        Ok(settings)
    }

    /// The file that they name.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.variables.get(CONFIG).map(PathBuf::from)
    }
}

/// The variable of a setting.
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
