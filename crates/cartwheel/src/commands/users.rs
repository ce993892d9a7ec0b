//! `cartwheel user ...`: users, their roles and access tokens, over HTTP.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use cartwheel_client::{AccessToken, User, UserChange, Users};
use serde_json::json;

use crate::cli::{TokenCommand, UserCommand, UserSetArgs, secret_of};
use crate::terminal::error::CommandError;
use crate::terminal::output::show;
use crate::terminal::table::table;

/// Shows or changes users.
///
/// # Errors
/// If no node could answer, or a change is refused.
pub async fn run(command: &UserCommand) -> Result<ExitCode, CommandError> {
    match command {
        UserCommand::List(request) => {
            let users = request.client()?.users().await?;
            show(request.format, &users, |users, _| users_table(users))?;
        }
        UserCommand::Set(args) => {
            let user = args.request.client()?.set_user(&args.name, &change(args)?).await?;
            show(args.request.format, &user, |user, _| table_of_users(std::slice::from_ref(user)))?;
        }
        UserCommand::Delete { name, request } => {
            request.client()?.delete_user(name).await?;
            show(request.format, &json!({ "user": name, "deleted": true }), |_, _| "Deleted.\n".to_owned())?;
        }
        UserCommand::Token(TokenCommand::Add { name, expires, request }) => {
            let made = request.client()?.make_token(name, *expires).await?;
            show(request.format, &made, |made, _| format!("{}\n", made.token))?;
        }
        UserCommand::Token(TokenCommand::Delete { name, id, request }) => {
            request.client()?.end_token(name, id).await?;
            let done = json!({ "user": name, "token": id, "deleted": true });
            show(request.format, &done, |_, _| "Deleted.\n".to_owned())?;
        }
        UserCommand::Whoami(request) => {
            let whoami = request.client()?.whoami().await?;
            show(request.format, &whoami, |whoami, _| {
                let user = whoami.user.as_deref().unwrap_or("- (the cluster has no users)");
                table(["USER", "ROLES"], [[user.to_owned(), whoami.roles.join(", ")]])
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(args: &UserSetArgs) -> Result<UserChange, CommandError> {
    let password = args.new_password_file.as_deref().map(password_in).transpose()?;
    let roles = (args.no_roles || !args.role.is_empty()).then(|| args.role.clone());
    Ok(UserChange { password, roles })
}

fn password_in(path: &Path) -> Result<String, CommandError> {
    if path != Path::new("-") {
        return secret_of(path).map_err(|why| CommandError::Password(path.to_path_buf(), why));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| CommandError::Io("read the password", error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn users_table(users: &Users) -> String {
    match users.users.is_empty() {
        true => "The cluster has no users: every client may do everything.\n".to_owned(),
        false => table_of_users(&users.users),
    }
}

fn table_of_users(users: &[User]) -> String {
    let token = |token: &AccessToken| match &token.expires {
        Some(expires) => format!("{} until {expires}", token.id),
        None => token.id.clone(),
    };
    let row = |user: &User| {
        let tokens: Vec<String> = user.tokens.iter().map(token).collect();
        let password = if user.password { "yes" } else { "no" };
        [user.name.clone(), user.roles.join(", "), password.to_owned(), tokens.join(", ")]
    };
    table(["USER", "ROLES", "PASSWORD", "TOKENS"], users.iter().map(row))
}
