//! Access: which user a client is, what the user may do, and the log of what administrators did.
//!
//! The users are part of the cluster's history ([`cartwheel_core::cluster::membership::users`]). A node checks a password with Argon2 once, and
//! remembers a keyed digest of what was proven; it never keeps a secret itself.

mod audit;
mod metrics;
mod password;
mod throttle;
mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cartwheel_core::cluster::membership::users::{AccessToken, PasswordHash};
use cartwheel_core::cluster::membership::{User, Users, View};
use tokio::sync::watch;
use tracing::warn;

use crate::log::RateLimit;
use crate::os::random::{self, NoRandomness};
pub use audit::{Audit, AuditEvent};
pub use metrics::AccessMetrics;
pub use password::BadPassword;
use password::Passwords;
use throttle::Throttle;
pub use token::NewToken;

/// The most proofs that a node remembers. Only those of real users are, so a client cannot fill the memory.
const PROVEN_MAX: usize = 4_096;
/// The most wrong credentials that a node remembers.
const WRONG_MAX: usize = 1_024;
/// The time between log lines about failed logins.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a client shows to prove which user it is.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// A user's name and its password, in place of which it may show one of its access tokens.
    Password {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a [u8],
    },
    /// An access token.
    Token(&'a [u8]),
}

/// Why a client is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It shows no credentials.
    NoCredentials,
    /// There is no such user, or the password or token is wrong or has ended.
    Wrong,
    /// Too many logins failed of late, or too many are being checked. It may try again after this time.
    TooMany(Duration),
}

/// How a user has proven itself. It holds as long as the user has this password or token.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Proof {
    /// It is the user that clients without credentials are.
    Anonymous,
    Password(PasswordHash),
    Token(AccessToken),
}

impl Proof {
    fn holds_for(&self, user: &User) -> bool {
        match self {
            Self::Anonymous => is_anonymous(user),
            Self::Password(hash) => user.password.as_ref() == Some(hash),
            Self::Token(token) => user.tokens.contains(token) && !token::is_over(token, now_ms()),
        }
    }
}

/// A user that has proven itself.
#[derive(Debug)]
pub struct Principal {
    name: String,
    user: User,
    proof: Proof,
    /// The users of which it is one.
    users: Arc<Users>,
}

impl Principal {
    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user, with its roles.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The same user among the present users; none if it is no longer there or has to prove itself again.
    fn among(self: &Arc<Self>, users: &Arc<Users>) -> Option<Arc<Self>> {
        if Arc::ptr_eq(users, &self.users) {
            return self.proof.holds_for(&self.user).then(|| self.clone());
        }
        let user = users.get(&self.name).filter(|user| self.proof.holds_for(user))?;
        let (name, proof) = (self.name.clone(), self.proof.clone());
        Some(Arc::new(Self { name, user: user.clone(), proof, users: users.clone() }))
    }
}

/// What lets users in. Clones share it.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

struct Inner {
    view: watch::Receiver<Arc<View>>,
    /// Users are needed even while there are none.
    is_required: bool,
    /// Drawn at each start.
    key: [u8; 32],
    proven: Mutex<HashMap<[u8; 32], Arc<Principal>>>,
    /// Credentials that were wrong, and for which users. A program that repeats them guesses nothing, so they do not count again.
    wrong: Mutex<HashMap<[u8; 32], Arc<Users>>>,
    /// The credentials that are being checked.
    under_way: Mutex<HashMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>>,
    passwords: Passwords,
    throttle: Mutex<Throttle>,
    audit: Audit,
    metrics: AccessMetrics,
    failures: RateLimit,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

impl Access {
    /// For the users of the view. Where users are required, clients are refused while there are none.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn new(
        view: watch::Receiver<Arc<View>>,
        is_required: bool,
        audit: Audit,
        metrics: AccessMetrics,
    ) -> Result<Self, NoRandomness> {
        Ok(Self(Arc::new(Inner {
            view,
            is_required,
            key: random::bytes()?,
            proven: Mutex::default(),
            wrong: Mutex::default(),
            under_way: Mutex::default(),
            passwords: Passwords::new()?,
            throttle: Mutex::default(),
            audit,
            metrics,
            failures: RateLimit::new(LOG_EVERY),
        })))
    }

    /// Whether clients have to prove which user they are.
    pub fn is_on(&self) -> bool {
        self.0.is_required || !self.0.view.borrow().users().is_empty()
    }

    /// Where administrative acts are recorded.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Which user a client at an address is.
    ///
    /// # Errors
    /// If it cannot be told, or it may not try now.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
        from: Option<IpAddr>,
    ) -> Result<Arc<Principal>, Denied> {
        let seal = self.seal(credentials);
        if let Some(known) = self.proven(seal, &self.users()) {
            return Ok(known);
        }
        // The many connections that a program opens at once are checked once, and its right credentials do not pass for many failures.
        let turn = Turn::of(&self.0, seal);
        let _alone = turn.lock.lock().await;
        match self.proven(seal, &self.users()) {
            Some(known) => Ok(known),
            None => self.check(seal, credentials, from).await,
        }
    }

    /// Checks credentials that are not proven yet.
    async fn check(
        &self,
        seal: [u8; 32],
        credentials: Credentials<'_>,
        from: Option<IpAddr>,
    ) -> Result<Arc<Principal>, Denied> {
        let users = self.users();
        if self.wrong().get(&seal).is_some_and(|checked| Arc::ptr_eq(checked, &users)) {
            return Err(self.denied(Denied::Wrong));
        }
        let name = match credentials {
            Credentials::Password { user, .. } => users.get(user).map(|_| user),
            Credentials::Token(_) => None,
        };
        self.throttle().begin(from, name).map_err(|wait| self.denied(Denied::TooMany(wait)))?;
        let proven = match token_in(credentials) {
            Some(token) => Ok(self.by_token(credentials, token, &users)),
            None => self.by_password(credentials, &users).await,
        };
        match proven {
            Ok(Some(principal)) => {
                self.throttle().succeeded(from, name);
                let principal = Arc::new(principal);
                self.remember(seal, principal.clone());
                Ok(principal)
            }
            Ok(None) => {
                let mut wrong = self.wrong();
                if wrong.len() >= WRONG_MAX {
                    wrong.clear();
                }
                wrong.insert(seal, users);
                drop(wrong);
                if let Some(failures) = self.0.failures.count(1) {
                    let client = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
                    warn!(client, user = name.unwrap_or("unknown"), failures, "logins of clients failed");
                }
                Err(self.denied(Denied::Wrong))
            }
            Err(denied) => {
                self.throttle().succeeded(from, None);
                Err(self.denied(denied))
            }
        }
    }

    /// The user that a client without credentials is: `default`, if there is one and it has neither a password nor a token.
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        let users = self.users();
        let user = users.get(DEFAULT_USER).filter(|user| is_anonymous(user))?.clone();
        Some(Arc::new(Principal { name: DEFAULT_USER.to_owned(), user, proof: Proof::Anonymous, users }))
    }

    /// The principal as it is now; none if it has to prove itself again.
    pub fn present(&self, principal: &Arc<Principal>) -> Option<Arc<Principal>> {
        principal.among(&self.users())
    }

    /// The hash to record for a new password.
    ///
    /// # Errors
    /// If the password is too short or too long, or too many are being hashed.
    pub async fn hash(&self, password: &str) -> Result<PasswordHash, BadPassword> {
        self.0.passwords.hash(password).await
    }

    fn users(&self) -> Arc<Users> {
        self.0.view.borrow().users().clone()
    }

    fn by_token(&self, credentials: Credentials<'_>, token: &[u8], users: &Arc<Users>) -> Option<Principal> {
        let digest = token::digest(token);
        let has = |user: &User| user.tokens.iter().find(|known| known.digest == digest).cloned();
        let (name, user, token) = users.iter().find_map(|(name, user)| Some((name, user, has(user)?)))?;
        let is_named = match credentials {
            // Redis clients that know of no users say `default`.
            Credentials::Password { user, .. } => user == name || user == DEFAULT_USER,
            Credentials::Token(_) => true,
        };
        let (proof, users) = (Proof::Token(token), users.clone());
        let principal = Principal { name: name.to_owned(), user: user.clone(), proof, users };
        (is_named && principal.proof.holds_for(user)).then_some(principal)
    }

    async fn by_password(&self, credentials: Credentials<'_>, users: &Arc<Users>) -> Result<Option<Principal>, Denied> {
        let Credentials::Password { user: name, password } = credentials else { return Ok(None) };
        let user = users.get(name);
        if name == DEFAULT_USER && user.is_some_and(is_anonymous) {
            let user = user.cloned().unwrap_or_default();
            let (name, users) = (name.to_owned(), users.clone());
            return Ok(Some(Principal { name, user, proof: Proof::Anonymous, users }));
        }
        let hash = user.and_then(|user| user.password.clone());
        // That of a name without a password takes as long, so the time does not tell which names there are.
        let is_right = self.0.passwords.verify(password, hash.as_ref()).await?;
        let proven = user.zip(hash).filter(|_| is_right);
        Ok(proven.map(|(user, hash)| Principal {
            name: name.to_owned(),
            user: user.clone(),
            proof: Proof::Password(hash),
            users: users.clone(),
        }))
    }

    fn denied(&self, denied: Denied) -> Denied {
        match denied {
            Denied::NoCredentials => {}
            Denied::Wrong => drop(self.0.metrics.wrong.inc()),
            Denied::TooMany(_) => drop(self.0.metrics.throttled.inc()),
        }
        denied
    }

    /// The digest under which a proof is remembered.
    fn seal(&self, credentials: Credentials<'_>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.key);
        match credentials {
            Credentials::Password { user, password } => {
                hasher.update(&[0]).update(&(user.len() as u64).to_le_bytes()).update(user.as_bytes()).update(password)
            }
            Credentials::Token(token) => hasher.update(&[1]).update(token),
        };
        *hasher.finalize().as_bytes()
    }

    fn proven(&self, seal: [u8; 32], users: &Arc<Users>) -> Option<Arc<Principal>> {
        let mut proven = self.remembered();
        let known = proven.get(&seal)?;
        let present = known.among(users);
        match &present {
            Some(present) if Arc::ptr_eq(present, known) => {}
            Some(present) => drop(proven.insert(seal, present.clone())),
            None => drop(proven.remove(&seal)),
        }
        present
    }

    fn remember(&self, seal: [u8; 32], principal: Arc<Principal>) {
        let mut proven = self.remembered();
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(seal, principal);
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Principal>>> {
        self.0.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Users>>> {
        self.0.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's turn to check some credentials. It ends with the request, however that ends.
struct Turn<'a> {
    access: &'a Inner,
    seal: [u8; 32],
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn of(access: &'a Inner, seal: [u8; 32]) -> Self {
        let mut under_way = access.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = under_way.entry(seal).or_default().clone();
        Self { access, seal, lock }
    }
}

impl Drop for Turn<'_> {
    /// The last one of these credentials takes their entry away: it and the entry have the only references.
    fn drop(&mut self) {
        let mut under_way = self.access.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.lock) == 2 {
            under_way.remove(&self.seal);
        }
    }
}

/// The user of Redis clients that name none, and of all clients without credentials if it has no password and no token.
pub const DEFAULT_USER: &str = "default";

fn is_anonymous(user: &User) -> bool {
    user.password.is_none() && user.tokens.is_empty()
}

/// The access token in credentials: by itself, or in place of a password.
fn token_in(credentials: Credentials<'_>) -> Option<&[u8]> {
    match credentials {
        Credentials::Token(token) => Some(token),
        Credentials::Password { password, .. } => token::is_token(password).then_some(password),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
