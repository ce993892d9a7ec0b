//! Users, their roles and their access tokens.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::http::encode_key;
use crate::{Client, Error, Value};

/// A user of the cluster, without its secrets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its roles: `read:BUCKETS`, `write:BUCKETS`, `admin:BUCKETS` or `cluster`.
    pub roles: Vec<String>,
    /// Whether it has a password.
    pub password: bool,
    /// Its access tokens.
    pub tokens: Vec<AccessToken>,
}

/// An access token of a user, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessToken {
    /// Its public part.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it ends, RFC 3339; `None` if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// An access token that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAccessToken {
    /// The token. The cluster does not keep it, so this is the only time that it is shown.
    pub token: String,
    /// What the cluster keeps of it.
    #[serde(flatten)]
    pub about: AccessToken,
}

/// The users of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Users {
    /// Whether clients have to be a user.
    pub required: bool,
    /// The users, by name.
    pub users: Vec<User>,
}

/// The user that a client is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Whoami {
    /// Its name; `None` while the cluster has no users, so that every client may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
}

/// What to change of a user. What is `None` stays as it is.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
pub struct UserChange {
    /// A new password of 8 to 1024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// New roles in place of all that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
}

impl Client {
    /// The users of the cluster.
    ///
    /// # Errors
    /// [`Error::Refused`] if the client's user lacks the role `admin:*`, [`Error::Unavailable`] if no node could answer.
    pub async fn users(&self) -> Result<Users, Error> {
        self.fetch("/v1/users".to_owned()).await
    }

    /// The user that this client is.
    ///
    /// # Errors
    /// [`Error::Refused`] if its credentials are wrong, [`Error::Unavailable`] if no node could answer.
    pub async fn whoami(&self) -> Result<Whoami, Error> {
        self.fetch("/v1/whoami".to_owned()).await
    }

    /// Makes a user, or changes the one of this name.
    ///
    /// # Errors
    /// [`Error::Refused`] if the change is invalid or needs a role that the client's user lacks. [`Error::Unavailable`] if it could not be saved:
    /// then it may still take effect.
    pub async fn set_user(&self, name: &str, change: &UserChange) -> Result<User, Error> {
        self.fetch_with(Method::PUT, path(name), Some(json(change))).await
    }

    /// Removes a user. Its password and tokens are of no use any more.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such user, or no administrator would be left.
    pub async fn delete_user(&self, name: &str) -> Result<(), Error> {
        self.send_delete(path(name)).await
    }

    /// Makes an access token for a user, which ends after `lasts`, if that is given.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such user, or it has too many tokens.
    pub async fn make_token(&self, name: &str, lasts: Option<Duration>) -> Result<NewAccessToken, Error> {
        let body = serde_json::json!({ "expires_in_s": lasts.map(|lasts| lasts.as_secs()) });
        self.fetch_with(Method::POST, format!("{}/tokens", path(name)), Some(json(&body))).await
    }

    /// Ends an access token of a user.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such token.
    pub async fn end_token(&self, name: &str, id: &str) -> Result<(), Error> {
        self.send_delete(format!("{}/tokens/{}", path(name), encode_key(id.as_bytes()))).await
    }
}

fn path(name: &str) -> String {
    format!("/v1/users/{}", encode_key(name.as_bytes()))
}

fn json(body: &impl Serialize) -> Value {
    Value::new(serde_json::to_vec(body).unwrap_or_default(), "application/json")
}
