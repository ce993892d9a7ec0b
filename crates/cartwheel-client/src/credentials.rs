use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;

/// What a client shows the nodes to prove which user it is: a name and a password, or an access token.
///
/// ```
/// use cartwheel_client::{Client, Credentials};
///
/// # fn example(password: &str) -> Result<Client, cartwheel_client::Error> {
/// let credentials = Credentials::password("shop", password);
/// Ok(Client::new(["https://db1.example.org:8080"])?.with_credentials(&credentials))
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Arc<Secret>);

#[derive(PartialEq, Eq)]
enum Secret {
    Password { user: String, password: String },
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// A user and its password.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Arc::new(Secret::Password { user: user.into(), password: password.into() }))
    }

    /// An access token, which names its user.
    pub fn token(token: impl Into<String>) -> Self {
        Self(Arc::new(Secret::Token(token.into())))
    }

    /// The value of the `Authorization` header, for programs that make requests of their own.
    pub fn header(&self) -> HeaderValue {
        let text = match &*self.0 {
            Secret::Password { user, password } => format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            Secret::Token(token) => format!("Bearer {token}"),
        };
        // A token that no header can hold is wrong in any case.
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer -"));
        value.set_sensitive(true);
        value
    }

    /// The user and the password, as the `AUTH` command of the Redis protocol takes them. A token stands in for the password of any user.
    pub fn user_and_password(&self) -> (&str, &str) {
        match &*self.0 {
            Secret::Password { user, password } => (user, password),
            Secret::Token(token) => ("default", token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_to_nodes_only() {
        let (ann, token) = (Credentials::password("ann", "a:b"), Credentials::token("cwt_x"));
        assert_eq!(ann.header(), "Basic YW5uOmE6Yg==");
        assert_eq!(token.header(), "Bearer cwt_x");
        assert!(ann.header().is_sensitive());
        assert_eq!(Credentials::token("a\nb").header(), "Bearer -");
        assert_eq!(format!("{ann:?}"), "Credentials(..)");
    }
}
