//! Access tokens: random, so a digest is enough to recognize them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cartwheel_core::cluster::membership::users::AccessToken;
use cartwheel_core::value::hlc::WallMs;

use super::now_ms;
use crate::os::random::{self, NoRandomness};

/// How every token begins, so that people and programs that look for leaked secrets recognize one.
const PREFIX: &[u8] = b"cwt_";

/// A token that was just made. The secret is shown once.
pub struct NewToken {
    /// What the user keeps.
    pub secret: String,
    /// What the cluster keeps.
    pub token: AccessToken,
}

impl NewToken {
    /// Draws a token that ends after a time, if one is given.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn draw(lasts: Option<Duration>) -> Result<Self, NoRandomness> {
        let (id, secret): ([u8; 4], [u8; 32]) = (random::bytes()?, random::bytes()?);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("cwt_{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let created = now_ms();
        let expires =
            lasts.map(|lasts| WallMs(created.saturating_add(lasts.as_millis().try_into().unwrap_or(u64::MAX))));
        let token = AccessToken { id, digest: digest(secret.as_bytes()), created: WallMs(created), expires };
        Ok(Self { secret, token })
    }
}

/// Whether it looks like a token.
pub(super) fn is_token(secret: &[u8]) -> bool {
    secret.starts_with(PREFIX)
}

/// The digest of a token.
pub(super) fn digest(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}

/// Whether a token has ended.
pub(super) fn is_over(token: &AccessToken, now_ms: u64) -> bool {
    token.expires.is_some_and(|at| at.0 <= now_ms)
}
