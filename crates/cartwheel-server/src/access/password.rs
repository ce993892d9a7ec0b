//! Passwords, hashed with Argon2id.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use cartwheel_core::cluster::membership::users::PasswordHash;
use tokio::sync::Semaphore;

use super::Denied;
use crate::os::random::{self, NoRandomness};

/// The memory for one hash in KiB, and the passes over it: OWASP's recommendation for Argon2id with one lane.
const MEMORY_KIB: u32 = 19 << 10;
const PASSES: u32 = 2;
/// How many passwords are hashed at once. Each needs a thread for some 20 ms.
const AT_ONCE: usize = 2;
/// How many may wait for that.
const WAITING_MAX: usize = 32;
/// The shortest and the longest password, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 8..=1_024;
/// How long a client waits that comes while too many are being hashed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a password cannot be set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BadPassword {
    /// It is too short or too long.
    #[error("a password has {} to {} bytes, not {bytes}", BYTES.start(), BYTES.end())]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// Too many are being hashed.
    #[error("too many passwords are being checked: try again in a moment")]
    Busy,
    /// It cannot be hashed.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

impl BadPassword {
    /// Checks the length of a password.
    ///
    /// # Errors
    /// If it is too short or too long.
    pub fn check(password: &str) -> Result<(), Self> {
        let bytes = password.len();
        if BYTES.contains(&bytes) { Ok(()) } else { Err(Self::Length { bytes }) }
    }
}

/// Hashes passwords, a few at a time, on threads of their own.
pub(super) struct Passwords {
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// The hash of no password.
    decoy: PasswordHash,
}

impl Passwords {
    /// # Errors
    /// If the operating system gives no random bytes.
    pub(super) fn new() -> Result<Self, NoRandomness> {
        // No password is known that has this hash.
        let decoy = hash(&random::bytes::<32>()?, &random::bytes::<16>()?);
        Ok(Self {
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
            decoy: decoy.unwrap_or_else(|_| PasswordHash(String::new())),
        })
    }

    /// The hash of a new password, with a new salt.
    ///
    /// # Errors
    /// If it is too short or too long, or too many are being hashed.
    pub(super) async fn hash(&self, password: &str) -> Result<PasswordHash, BadPassword> {
        BadPassword::check(password)?;
        let salt = random::bytes::<16>().map_err(|error| BadPassword::Hash(error.to_string()))?;
        let password = password.to_owned();
        let hashed = self.work(move || hash(password.as_bytes(), &salt)).await.ok_or(BadPassword::Busy)?;
        hashed.map_err(|error| BadPassword::Hash(error.to_string()))
    }

    /// Whether a password has the hash. Without a hash it takes as long, and is false.
    ///
    /// # Errors
    /// If too many are being hashed.
    pub(super) async fn verify(&self, password: &[u8], hash: Option<&PasswordHash>) -> Result<bool, Denied> {
        let is_real = hash.is_some();
        if password.len() > *BYTES.end() {
            return Ok(false);
        }
        let (hash, password) = (hash.unwrap_or(&self.decoy).clone(), password.to_vec());
        let verified = self.work(move || {
            Phc::new(&hash.0).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        verified.await.map(|is_right| is_right && is_real).ok_or(Denied::TooMany(RETRY_AFTER))
    }

    /// Does `work` on a thread for it; none if too many wait.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let waiting = self.waiting.clone().try_acquire_owned().ok()?;
        let at_once = self.at_once.clone().acquire_owned().await.ok()?;
        let working = tokio::task::spawn_blocking(move || {
            let _held = (waiting, at_once);
            work()
        });
        working.await.ok()
    }
}

fn hash(password: &[u8], salt: &[u8]) -> Result<PasswordHash, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: Phc = argon2.hash_password_with_salt(password, salt)?;
    Ok(PasswordHash(hash.to_string()))
}
