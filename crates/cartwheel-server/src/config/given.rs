//! The value of a setting as a variable or a file gives it, before it is parsed.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use toml::Spanned;
use toml::de::DeValue;

use super::ListenAddr;

/// An invalid value of a setting.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} is {value}: {wanted}")]
pub struct BadValue {
    /// The setting's name in the source.
    pub name: String,
    /// The value.
    pub value: String,
    /// Which values are valid.
    pub wanted: String,
}

/// A value in a variable or a file.
pub(super) enum Given<'a> {
    /// Text, not parsed yet.
    Text(&'a str),
    /// A typed value.
    Toml(&'a DeValue<'a>),
}

impl Given<'_> {
    /// The value as an error shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(DeValue::String(text)) => format!("{text:?}"),
            Self::Toml(DeValue::Integer(number)) => number.as_str().to_owned(),
            Self::Toml(DeValue::Boolean(is)) => is.to_string(),
            Self::Toml(DeValue::Float(number)) => number.as_str().to_owned(),
            Self::Toml(DeValue::Datetime(time)) => time.to_string(),
            Self::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Toml(_) => None,
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, String> {
        self.text().filter(|text| !text.is_empty()).map(PathBuf::from).ok_or_else(|| "give a path, as text".to_owned())
    }

    /// A name, which may be any text.
    pub(super) fn name(&self) -> Result<String, String> {
        self.text().map(str::to_owned).ok_or_else(|| "give a name, as text".to_owned())
    }

    /// Addresses: a list of them, or text with commas between them.
    pub(super) fn addresses(&self) -> Result<Vec<ListenAddr>, String> {
        let form = || "give addresses as HOST:PORT, with commas between them or as a list".to_owned();
        match self {
            Self::Toml(DeValue::Array(list)) => {
                let address =
                    |value: &Spanned<DeValue<'_>>| Given::Toml(value.get_ref()).parsed().map_err(|_: String| form());
                list.iter().map(address).collect()
            }
            _ => {
                let text = self.text().ok_or_else(form)?;
                text.split(',').map(|address| address.trim().parse().map_err(|_: String| form())).collect()
            }
        }
    }

    /// A number from 1 on.
    pub(super) fn count(&self) -> Result<NonZeroU32, String> {
        let number = match self {
            Self::Toml(DeValue::Integer(number)) if number.radix() == 10 => Some(number.as_str()),
            _ => self.text(),
        };
        number.and_then(|number| number.parse().ok()).ok_or_else(|| "give a number from 1 on".to_owned())
    }

    /// Parses the text.
    pub(super) fn parsed<T: FromStr<Err = String>>(&self) -> Result<T, String> {
        // A value that is not text fails to parse like the empty text.
        self.text().unwrap_or_default().parse()
    }

    /// A number, or text with a unit.
    pub(super) fn size(&self) -> Result<super::Size, String> {
        match self {
            Self::Toml(DeValue::Integer(number)) if number.radix() == 10 => number.as_str().parse(),
            _ => self.parsed(),
        }
    }

    /// A number, or text.
    pub(super) fn share(&self) -> Result<super::Share, String> {
        match self {
            Self::Toml(DeValue::Float(number)) => number.as_str().parse(),
            Self::Toml(DeValue::Integer(number)) if number.radix() == 10 => number.as_str().parse(),
            _ => self.parsed(),
        }
    }

    pub(super) fn switch(&self) -> Result<bool, String> {
        match self {
            Self::Toml(DeValue::Boolean(is)) => Ok(*is),
            Self::Text("true") => Ok(true),
            Self::Text("false") => Ok(false),
            _ => Err("give true or false, without quotes".to_owned()),
        }
    }

    /// One of a few names.
    pub(super) fn choice<T: ValueEnum>(&self) -> Result<T, String> {
        let chosen = self.text().and_then(|text| T::from_str(text, false).ok());
        chosen.ok_or_else(|| {
            let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = values.map(|value| format!("{:?}", value.get_name())).collect();
            format!("give {}", names.join(" or "))
        })
    }
}
