//! Settings of users.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Whether clients have to be a user, and how the first one comes about.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct AccessSettings {
    /// Whether clients have to be a user [default: auto]
    #[arg(long, value_enum, help_heading = "Access")]
    pub users: Option<UsersMode>,
    /// Make the user `admin` with the password in this file, if the cluster has no administrator [default: none]
    ///
    /// The password may also be given in the variable CARTWHEEL_ADMIN_PASSWORD. Either requires users from the start.
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub admin_password_file: Option<PathBuf>,
    /// Let the system write the process's memory to a core dump, secrets included [default: false]
    #[arg(
        long, value_name = "BOOL", help_heading = "Access",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub core_dumps: Option<bool>,
}

/// Whether clients have to be a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum UsersMode {
    /// Once the cluster has a user, or the first one is about to be made.
    #[default]
    Auto,
    /// Always. While the node knows no users, it refuses all clients.
    Require,
}

impl AccessSettings {
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            users: self.users.or(others.users),
            admin_password_file: self.admin_password_file.or(others.admin_password_file),
            core_dumps: self.core_dumps.or(others.core_dumps),
        }
    }
}

/// A secret. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub OsString);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where the first administrator's password is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminPassword {
    /// It is this.
    Given(Secret),
    /// In this file, perhaps with the end of a line after it.
    File(PathBuf),
}

/// Whether clients have to be a user, and how the first one comes about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessConfig {
    /// Whether users are needed even while the cluster has none.
    pub users: UsersMode,
    /// The password of the first administrator, if this node is to make it.
    pub admin_password: Option<AdminPassword>,
    /// Whether the user `admin` gets that password again, and all roles, though the cluster has an administrator.
    pub resets_admin: bool,
    /// Whether the process's memory may get into a core dump.
    pub core_dumps: bool,
}

impl AccessConfig {
    pub(super) fn of(settings: AccessSettings, admin_password: Option<OsString>) -> Self {
        let AccessSettings { users, admin_password_file, core_dumps } = settings;
        let given = admin_password.map(|password| AdminPassword::Given(Secret(password)));
        Self {
            users: users.unwrap_or_default(),
            admin_password: given.or(admin_password_file.map(AdminPassword::File)),
            resets_admin: false,
            core_dumps: core_dumps.unwrap_or(false),
        }
    }

    /// Whether users are needed even while the cluster has none.
    pub fn requires_users(&self) -> bool {
        self.users == UsersMode::Require || self.admin_password.is_some()
    }
}
