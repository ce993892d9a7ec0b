//! Users of the cluster: what they prove themselves with, and what they may do.
//!
//! The core never sees a secret. It keeps what the API servers made of it: an Argon2 hash of a password, and a digest of an access token, which is
//! random and long enough not to need a slow hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::value::hlc::WallMs;

/// The most users of a cluster.
pub const USERS_MAX: usize = 1_000;
/// The most grants of a user.
pub const GRANTS_MAX: usize = 64;
/// The most access tokens of a user.
pub const TOKENS_MAX: usize = 16;
/// The longest name of a user, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 64;
/// The longest hash of a password, in bytes.
const HASH_BYTES_MAX: usize = 512;
/// The longest pattern of bucket names, in bytes: a bucket's name and the `*`.
const PATTERN_BYTES_MAX: usize = 256;

/// What a user may do with the buckets of a grant. Each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BucketRole {
    /// Read values and list keys.
    Read,
    /// Write and delete values.
    Write,
    /// Change a bucket's settings, and empty it.
    Admin,
}

impl BucketRole {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for BucketRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a bucket, or the beginning of names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketPattern {
    text: String,
    is_prefix: bool,
}

impl BucketPattern {
    /// All buckets.
    pub const ALL: Self = Self { text: String::new(), is_prefix: true };

    /// Whether it is the name of the bucket, or the beginning of it.
    pub fn matches(&self, bucket: &[u8]) -> bool {
        if self.is_prefix { bucket.starts_with(self.text.as_bytes()) } else { bucket == self.text.as_bytes() }
    }

    /// Whether it matches every bucket.
    pub fn is_all(&self) -> bool {
        self.is_prefix && self.text.is_empty()
    }
}

impl fmt::Display for BucketPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

impl FromStr for BucketPattern {
    type Err = BadUser;

    fn from_str(text: &str) -> Result<Self, BadUser> {
        let name = text.strip_suffix('*');
        let pattern = Self { text: name.unwrap_or(text).to_owned(), is_prefix: name.is_some() };
        let is_valid = !text.is_empty() && text.len() <= PATTERN_BYTES_MAX && !pattern.text.contains('*');
        if is_valid { Ok(pattern) } else { Err(BadUser::Pattern(text.to_owned())) }
    }
}

/// A permission, written `ROLE:BUCKETS` or `cluster`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Grant {
    /// A role for buckets.
    Buckets(BucketRole, BucketPattern),
    /// Change the members of the cluster.
    Cluster,
}

impl Grant {
    /// Everything: the buckets, the cluster and the users.
    pub const EVERYTHING: Self = Self::Buckets(BucketRole::Admin, BucketPattern::ALL);
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buckets(role, buckets) => write!(f, "{role}:{buckets}"),
            Self::Cluster => f.write_str("cluster"),
        }
    }
}

impl FromStr for Grant {
    type Err = BadUser;

    fn from_str(text: &str) -> Result<Self, BadUser> {
        if text == "cluster" {
            return Ok(Self::Cluster);
        }
        let parts = text.split_once(':');
        let role = parts.and_then(|(name, _)| BucketRole::ALL.into_iter().find(|role| role.name() == name));
        match (role, parts) {
            (Some(role), Some((_, buckets))) => Ok(Self::Buckets(role, buckets.parse()?)),
            _ => Err(BadUser::Grant(text.to_owned())),
        }
    }
}

/// A hash of a password in PHC form. It is shown nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// An access token of a user, without the secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessToken {
    /// Its public part, unique among the user's tokens.
    pub id: String,
    /// A digest of the whole token.
    pub digest: [u8; 32],
    /// When it was made.
    pub created: WallMs,
    /// When it ends, if it does.
    pub expires: Option<WallMs>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, created, expires, .. } = self;
        f.debug_struct("AccessToken").field("id", id).field("created", created).field("expires", expires).finish()
    }
}

/// A user of the cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct User {
    /// The hash of its password, if it has one.
    pub password: Option<PasswordHash>,
    /// What it may do.
    pub grants: BTreeSet<Grant>,
    /// Its access tokens, in the order in which they were made.
    pub tokens: Vec<AccessToken>,
}

impl User {
    /// Whether it has a role for a bucket.
    pub fn has(&self, wanted: BucketRole, bucket: &[u8]) -> bool {
        self.grants.iter().any(|grant| match grant {
            Grant::Buckets(role, buckets) => *role >= wanted && buckets.matches(bucket),
            Grant::Cluster => false,
        })
    }

    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        self.grants.contains(&Grant::EVERYTHING)
    }

    /// Whether it may change the members of the cluster.
    pub fn may_change_cluster(&self) -> bool {
        self.is_admin() || self.grants.contains(&Grant::Cluster)
    }

    /// Whether it may do everything, and has a password with which it can.
    fn is_usable_admin(&self) -> bool {
        self.is_admin() && (self.password.is_some() || self.tokens.iter().any(|token| token.expires.is_none()))
    }
}

/// A change of some fields of a user. It makes the user, if there is none of the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UserPatch {
    /// A new password.
    pub password: Option<PasswordHash>,
    /// New grants, in place of all that it has.
    pub grants: Option<BTreeSet<Grant>>,
    /// A further access token.
    pub new_token: Option<AccessToken>,
    /// The id of an access token that ends.
    pub ended_token: Option<String>,
}

/// Why a change of users is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadUser {
    /// The name is not valid.
    Name(String),
    /// Not a permission.
    Grant(String),
    /// Not a pattern of bucket names.
    Pattern(String),
    /// There is no such user.
    NoUser(String),
    /// The user has no such access token.
    NoToken(String),
    /// There are [`USERS_MAX`] users.
    TooManyUsers,
    /// The user has more than [`GRANTS_MAX`] grants.
    TooManyGrants,
    /// The user has [`TOKENS_MAX`] access tokens.
    TooManyTokens,
    /// The hash of a password is too long.
    Hash,
    /// No user would be left that may do everything and has a password, or a token that does not end.
    NoAdmin,
}

impl fmt::Display for BadUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} cannot be the name of a user: use 1 to {USER_NAME_BYTES_MAX} letters, digits, and any of . _ - @"
            ),
            Self::Grant(text) => write!(
                f,
                "{text:?} is no role: use read:BUCKETS, write:BUCKETS, admin:BUCKETS or cluster, where BUCKETS is a bucket's name, the \
                 beginning of names followed by *, or * for all"
            ),
            Self::Pattern(text) => write!(
                f,
                "{text:?} names no buckets: use a bucket's name, the beginning of names followed by *, or * for all"
            ),
            Self::NoUser(name) => write!(f, "there is no user {name}: see `cartwheel user list`"),
            Self::NoToken(id) => write!(f, "the user has no token {id}: see `cartwheel user list`"),
            Self::TooManyUsers => {
                write!(f, "there are {USERS_MAX} users, which is the limit: delete some that are not used")
            }
            Self::TooManyGrants => {
                write!(f, "a user has at most {GRANTS_MAX} roles: use patterns that cover several buckets")
            }
            Self::TooManyTokens => {
                write!(f, "the user has {TOKENS_MAX} tokens, which is the limit: delete one that is not used")
            }
            Self::Hash => f.write_str("the hash of the password is too long"),
            Self::NoAdmin => f.write_str(
                "no user would be left that has the role admin:* and a password: make another administrator first",
            ),
        }
    }
}

impl std::error::Error for BadUser {}

/// The users of a cluster, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Users(BTreeMap<String, User>);

impl Users {
    /// The user of this name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// The users, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &User)> {
        self.0.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Whether there are none. Then clients need not say which user they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a user is left that can undo any mistake.
    pub fn have_admin(&self) -> bool {
        self.0.values().any(User::is_usable_admin)
    }

    /// Changes a user, or removes it where there is no patch. A change that goes beyond the limits has no effect, as everywhere else.
    pub(super) fn change(&mut self, name: &str, patch: Option<&UserPatch>) {
        if let Ok(changed) = self.changed(name, patch) {
            match changed {
                Some(user) => drop(self.0.insert(name.to_owned(), user)),
                None => drop(self.0.remove(name)),
            }
        }
    }

    /// Checks a change before it is recorded.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn check(&self, name: &str, patch: Option<&UserPatch>) -> Result<(), BadUser> {
        if patch.is_none() && self.get(name).is_none() {
            return Err(BadUser::NoUser(name.to_owned()));
        }
        if let Some(id) = patch.and_then(|patch| patch.ended_token.as_ref())
            && !self.get(name).is_some_and(|user| user.tokens.iter().any(|token| token.id == *id))
        {
            return Err(BadUser::NoToken(id.clone()));
        }
        let mut after = self.clone();
        match after.changed(name, patch)? {
            Some(user) => drop(after.0.insert(name.to_owned(), user)),
            None => drop(after.0.remove(name)),
        }
        if after.have_admin() { Ok(()) } else { Err(BadUser::NoAdmin) }
    }

    /// The user after a change; none if it is removed.
    fn changed(&self, name: &str, patch: Option<&UserPatch>) -> Result<Option<User>, BadUser> {
        let Some(patch) = patch else { return Ok(None) };
        check_name(name)?;
        if self.0.len() >= USERS_MAX && !self.0.contains_key(name) {
            return Err(BadUser::TooManyUsers);
        }
        let mut user = self.get(name).cloned().unwrap_or_default();
        if let Some(password) = &patch.password {
            if password.0.len() > HASH_BYTES_MAX {
                return Err(BadUser::Hash);
            }
            user.password = Some(password.clone());
        }
        if let Some(grants) = &patch.grants {
            if grants.len() > GRANTS_MAX {
                return Err(BadUser::TooManyGrants);
            }
            user.grants.clone_from(grants);
        }
        if let Some(id) = &patch.ended_token {
            user.tokens.retain(|token| token.id != *id);
        }
        if let Some(token) = &patch.new_token {
            user.tokens.retain(|other| other.id != token.id);
            if user.tokens.len() >= TOKENS_MAX {
                return Err(BadUser::TooManyTokens);
            }
            user.tokens.push(token.clone());
        }
        Ok(Some(user))
    }

    /// Its size in memory in bytes, roughly.
    pub(super) fn size_in_memory(&self) -> usize {
        let user = |(name, user): (&String, &User)| {
            let hash = user.password.as_ref().map_or(0, |hash| hash.0.len());
            size_of::<(String, User)>()
                + name.len()
                + hash
                + user.grants.len() * size_of::<Grant>()
                + user.tokens.len() * size_of::<AccessToken>()
        };
        self.0.iter().map(user).sum()
    }
}

impl FromIterator<(String, User)> for Users {
    fn from_iter<I: IntoIterator<Item = (String, User)>>(users: I) -> Self {
        Self(users.into_iter().collect())
    }
}

/// Checks the name of a user.
///
/// # Errors
/// If it is not 1 to [`USER_NAME_BYTES_MAX`] letters, digits and `.`, `_`, `-`, `@` of ASCII.
pub fn check_name(name: &str) -> Result<(), BadUser> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    let is_short = (1..=USER_NAME_BYTES_MAX).contains(&name.len());
    if is_short && name.bytes().all(is_valid) { Ok(()) } else { Err(BadUser::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> BTreeSet<Grant> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn user(texts: &[&str]) -> User {
        User { grants: grants(texts), ..User::default() }
    }

    fn admin() -> UserPatch {
        UserPatch {
            password: Some(PasswordHash("hash".to_owned())),
            grants: Some(grants(&["admin:*"])),
            ..UserPatch::default()
        }
    }

    fn token(id: &str, expires: Option<u64>) -> AccessToken {
        AccessToken { id: id.to_owned(), digest: [7; 32], created: WallMs(1), expires: expires.map(WallMs) }
    }

    #[test]
    fn a_role_includes_those_below_it_for_the_buckets_of_its_pattern() {
        let user = user(&["write:carts", "read:logs-*"]);
        for (role, bucket, has) in [
            (BucketRole::Read, "carts", true),
            (BucketRole::Write, "carts", true),
            (BucketRole::Admin, "carts", false),
            (BucketRole::Read, "carts-2", false),
            (BucketRole::Read, "logs-", true),
            (BucketRole::Read, "logs-2026", true),
            (BucketRole::Write, "logs-2026", false),
            (BucketRole::Read, "logs", false),
            (BucketRole::Read, "", false),
        ] {
            assert_eq!(user.has(role, bucket.as_bytes()), has, "{role} {bucket}");
        }
        assert!(!user.may_change_cluster() && !user.is_admin());
    }

    #[test]
    fn only_admin_of_all_buckets_includes_the_cluster() {
        assert!(user(&["admin:*"]).may_change_cluster());
        assert!(user(&["cluster"]).may_change_cluster());
        assert!(!user(&["admin:a*", "write:*"]).may_change_cluster());
        assert!(!user(&["cluster"]).has(BucketRole::Read, b"carts"));
        assert!(user(&["admin:*"]).has(BucketRole::Admin, &[0xff]));
    }

    #[test]
    fn grants_are_written_as_they_are_read() {
        for text in ["read:carts", "write:a-*", "admin:*", "cluster", "read:a:b"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in ["", "read", "read:", "owner:*", "read:a*b", "read:**", "Cluster", "cluster:*"] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_administrator_stays() {
        let mut users = Users::default();
        let reader = UserPatch { grants: Some(grants(&["read:*"])), ..admin() };
        assert_eq!(users.check("reader", Some(&reader)), Err(BadUser::NoAdmin), "the first user must be one");
        let no_password = UserPatch { password: None, ..admin() };
        assert_eq!(users.check("a", Some(&no_password)), Err(BadUser::NoAdmin), "one that can log in");
        let passing = UserPatch { new_token: Some(token("t", Some(9))), ..no_password.clone() };
        assert_eq!(users.check("a", Some(&passing)), Err(BadUser::NoAdmin));
        let lasting = UserPatch { new_token: Some(token("t", None)), ..no_password };
        assert_eq!(users.check("a", Some(&lasting)), Ok(()));
        users.change("a", Some(&admin()));
        users.change("reader", Some(&reader));
        assert_eq!(users.check("a", None), Err(BadUser::NoAdmin));
        assert_eq!(users.check("a", Some(&reader)), Err(BadUser::NoAdmin));
        users.change("b", Some(&admin()));
        assert_eq!(users.check("a", None), Ok(()));
        assert_eq!(users.check("reader", None), Ok(()));
        assert_eq!(users.check("c", None), Err(BadUser::NoUser("c".to_owned())));
    }

    #[test]
    fn a_change_beyond_a_limit_is_refused_and_has_no_effect() {
        let mut users = Users::default();
        users.change("a", Some(&admin()));
        for id in 0..TOKENS_MAX {
            users.change(
                "a",
                Some(&UserPatch { new_token: Some(token(&id.to_string(), None)), ..UserPatch::default() }),
            );
        }
        let one_more = UserPatch { new_token: Some(token("more", None)), ..UserPatch::default() };
        assert_eq!(users.check("a", Some(&one_more)), Err(BadUser::TooManyTokens));
        let before = users.clone();
        users.change("a", Some(&one_more));
        assert_eq!(users, before);
        let many = (0..=GRANTS_MAX).map(|bucket| format!("read:{bucket}").parse().unwrap()).collect();
        let many = UserPatch { grants: Some(many), ..UserPatch::default() };
        assert_eq!(users.check("a", Some(&many)), Err(BadUser::TooManyGrants));
        for name in ["", "a b", "a/b", "ü", &"a".repeat(USER_NAME_BYTES_MAX + 1)] {
            assert_eq!(users.check(name, Some(&admin())), Err(BadUser::Name(name.to_owned())));
        }
        let ended = |id: &str| UserPatch { ended_token: Some(id.to_owned()), ..UserPatch::default() };
        assert_eq!(users.check("a", Some(&ended("nope"))), Err(BadUser::NoToken("nope".to_owned())));
        users.change("a", Some(&ended("3")));
        assert_eq!(users.get("a").unwrap().tokens.len(), TOKENS_MAX - 1);
        assert_eq!(users.check("a", Some(&one_more)), Ok(()));
        for number in 1..USERS_MAX {
            users.change(&format!("user-{number}"), Some(&UserPatch::default()));
        }
        assert_eq!(users.check("one-more", Some(&admin())), Err(BadUser::TooManyUsers));
        assert_eq!(users.check("user-1", Some(&admin())), Ok(()));
    }

    #[test]
    fn secrets_are_shown_in_no_debug_output() {
        let user =
            User { password: Some(PasswordHash("hash".to_owned())), tokens: vec![token("t", None)], ..user(&[]) };
        let shown = format!("{user:?}");
        assert!(!shown.contains("hash") && !shown.contains("7, 7"), "{shown}");
    }
}
