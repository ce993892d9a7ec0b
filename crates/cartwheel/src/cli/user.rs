use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::RequestArgs;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List the users.
    List(RequestArgs),
    /// Make a user, or change the password or the roles of one.
    Set(UserSetArgs),
    /// Delete a user.
    Delete {
        /// The user.
        name: String,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Make or end access tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show which user the command is, and its roles.
    Whoami(RequestArgs),
}

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct UserSetArgs {
    /// The user: letters, digits, and any of . _ - @.
    pub name: String,
    /// A role, instead of all that the user has.
    ///
    /// read:BUCKETS, write:BUCKETS or admin:BUCKETS, each of which includes the one before, or cluster. BUCKETS is a bucket, the beginning of
    /// names followed by *, or * for all. admin:* includes everything. Repeat the flag for several roles; without it they stay as they are.
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Take all roles from the user.
    #[arg(long, conflicts_with = "role")]
    pub no_roles: bool,
    /// The file with the new password; - reads it from standard input.
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make an access token and print it.
    ///
    /// It has the roles of its user. The cluster keeps only a digest, so it cannot be shown again.
    Add {
        /// The user.
        name: String,
        /// End the token after this time, such as 12h or 90d.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// End an access token.
    Delete {
        /// The user.
        name: String,
        /// The token's public part, as `user list` shows it.
        id: String,
        #[command(flatten)]
        request: RequestArgs,
    },
}

const SET_EXAMPLES: &str = "Examples:
  Make the first user, from which on all clients have to log in:
    cartwheel user set admin --role 'admin:*' --new-password-file admin.password

  Make a user for a shop that writes carts and reads prices:
    cartwheel user set shop --role write:carts --role 'read:prices-*' --new-password-file -";
