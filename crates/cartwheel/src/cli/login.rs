use std::path::Path;

use cartwheel_client::Credentials;
use clap::Args;

/// The environment variables that hold secrets themselves.
const PASSWORD: &str = "CARTWHEEL_PASSWORD";
const TOKEN: &str = "CARTWHEEL_TOKEN";

/// All environment variables by which commands log in.
pub const VARIABLES: [&str; 5] = ["CARTWHEEL_USER", PASSWORD, "CARTWHEEL_PASSWORD_FILE", TOKEN, "CARTWHEEL_TOKEN_FILE"];

/// How a command says which user it is. Secrets are in files or in the environment: others can read the flags of a process.
#[derive(Clone, Debug, Args)]
pub struct Login {
    /// Be this user.
    ///
    /// Its password is in CARTWHEEL_PASSWORD or in a file. Or give an access token, which names its user, in CARTWHEEL_TOKEN or a file.
    #[arg(long, value_name = "NAME", env = "CARTWHEEL_USER", help_heading = "Login")]
    user: Option<String>,
    /// The file with the user's password.
    #[arg(long, value_name = "FILE", env = "CARTWHEEL_PASSWORD_FILE", value_parser = secret, help_heading = "Login")]
    password_file: Option<Secret>,
    /// The file with an access token.
    #[arg(
        long, value_name = "FILE", env = "CARTWHEEL_TOKEN_FILE", value_parser = secret, help_heading = "Login",
        conflicts_with = "password_file"
    )]
    token_file: Option<Secret>,
}

/// What a file holds; nothing if no file is named, as by an empty environment variable.
#[derive(Clone)]
struct Secret(Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn secret(path: &str) -> Result<Secret, String> {
    if path.is_empty() {
        return Ok(Secret(None));
    }
    secret_of(Path::new(path)).map(|secret| Secret(Some(secret)))
}

/// The secret in a file, without the end of its line.
///
/// # Errors
/// If the file cannot be read.
pub fn secret_of(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the file: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl Login {
    /// The credentials, if any are given. Flags come before the environment.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        let given = |file: &Option<Secret>| file.as_ref().and_then(|secret| secret.0.clone());
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = self.user.clone().filter(|user| !user.is_empty());
        let by_password = |password: String| user.clone().map(|user| Credentials::password(user, password));
        let from_files = given(&self.token_file)
            .map(Credentials::token)
            .or_else(|| given(&self.password_file).and_then(by_password));
        let from_variables =
            || variable(PASSWORD).and_then(by_password).or_else(|| variable(TOKEN).map(Credentials::token));
        from_files.or_else(from_variables)
    }
}
