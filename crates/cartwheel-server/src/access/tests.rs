//! Tests of logins.

use std::collections::BTreeSet;

use cartwheel_core::cluster::membership::{ChangeKind, Grant, History, Member, Strategy, UserPatch};
use cartwheel_core::ring::Partitions;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, WallMs};

use super::*;

/// Users, and what lets them in.
pub(crate) struct Given {
    history: History,
    view: watch::Sender<Arc<View>>,
    pub(crate) access: Access,
}

impl Given {
    pub(crate) fn none() -> Self {
        Self::with(false)
    }

    pub(crate) fn required() -> Self {
        Self::with(true)
    }

    fn with(is_required: bool) -> Self {
        let mut history = History::new();
        let members = vec![Member::new("node-1", Incarnation(1))];
        let (cluster, partitions, strategy) = (ClusterId(1), Partitions::default(), Strategy::Balanced);
        let what = ChangeKind::Bootstrap { cluster, partitions, strategy, members, name: String::new() };
        history.record(Hlc::at(WallMs(1)), NodeId::of_name("node-1"), what);
        let (view, views) = watch::channel(Arc::new(history.view().unwrap()));
        let access = Access::new(views, is_required, Audit::none(), AccessMetrics::default()).unwrap();
        Self { history, view, access }
    }

    pub(crate) fn change(&mut self, name: &str, patch: Option<UserPatch>) {
        let what = ChangeKind::User { name: name.to_owned(), patch: patch.map(Box::new) };
        self.history.record(Hlc::at(WallMs(1)), NodeId::new(1), what);
        self.view.send_replace(Arc::new(self.history.view().unwrap()));
    }

    /// A user with the password `secret-NAME`.
    pub(crate) async fn add(&mut self, name: &str, roles: &[&str]) {
        let password = Some(self.access.hash(&format!("secret-{name}")).await.unwrap());
        let grants = Some(grants(roles));
        self.change(name, Some(UserPatch { password, grants, ..UserPatch::default() }));
    }

    async fn login(&self, user: &str, password: &str) -> Result<String, Denied> {
        let credentials = Credentials::Password { user, password: password.as_bytes() };
        self.access.authenticate(credentials, None).await.map(|principal| principal.name().to_owned())
    }
}

fn grants(roles: &[&str]) -> BTreeSet<Grant> {
    roles.iter().map(|role| role.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_user_is_let_in_with_its_own_password_only() {
    let mut given = Given::none();
    assert!(!given.access.is_on());
    given.add("ann", &["admin:*"]).await;
    given.add("bob", &["read:*"]).await;
    given.change("cid", Some(UserPatch { grants: Some(grants(&["admin:*"])), ..UserPatch::default() }));
    assert!(given.access.is_on());
    for _ in 0..2 {
        assert_eq!(given.login("ann", "secret-ann").await.as_deref(), Ok("ann"));
        assert_eq!(given.login("ann", "secret-bob").await, Err(Denied::Wrong));
        assert_eq!(given.login("dan", "secret-ann").await, Err(Denied::Wrong));
        assert_eq!(given.login("cid", "").await, Err(Denied::Wrong), "one without a password");
    }
    assert_eq!(given.login("ann", &"x".repeat(2_000)).await, Err(Denied::Wrong));
}

#[tokio::test]
async fn a_proof_holds_as_long_as_the_password() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    let credentials = Credentials::Password { user: "ann", password: b"secret-ann" };
    let ann = given.access.authenticate(credentials, None).await.unwrap();
    given.change("ann", Some(UserPatch { grants: Some(grants(&["read:a"])), ..UserPatch::default() }));
    let present = given.access.present(&ann).unwrap();
    assert!(!present.user().is_admin(), "new roles hold at once");
    assert_eq!(given.login("ann", "secret-ann").await.as_deref(), Ok("ann"));
    let password = Some(given.access.hash("another secret").await.unwrap());
    given.change("ann", Some(UserPatch { password, ..UserPatch::default() }));
    assert!(given.access.present(&present).is_none());
    assert_eq!(given.login("ann", "secret-ann").await, Err(Denied::Wrong));
    assert_eq!(given.login("ann", "another secret").await.as_deref(), Ok("ann"));
    given.change("ann", None);
    assert_eq!(given.login("ann", "another secret").await, Err(Denied::Wrong));
    assert!(!given.access.is_on(), "the last user is gone");
}

#[tokio::test]
async fn a_token_names_its_user_until_it_ends() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    let NewToken { secret, token } = NewToken::draw(None).unwrap();
    let ended = NewToken::draw(Some(Duration::ZERO)).unwrap();
    for token in [token.clone(), ended.token] {
        given.change("ann", Some(UserPatch { new_token: Some(token), ..UserPatch::default() }));
    }
    let by_token = async |given: &Given, secret: &str| {
        let credentials = Credentials::Token(secret.as_bytes());
        given.access.authenticate(credentials, None).await.map(|principal| principal.name().to_owned())
    };
    assert_eq!(by_token(&given, &secret).await.as_deref(), Ok("ann"));
    assert_eq!(given.login("ann", &secret).await.as_deref(), Ok("ann"), "in place of the password");
    assert_eq!(given.login("default", &secret).await.as_deref(), Ok("ann"), "as Redis clients do");
    assert_eq!(given.login("bob", &secret).await, Err(Denied::Wrong));
    assert_eq!(by_token(&given, &ended.secret).await, Err(Denied::Wrong));
    assert_eq!(by_token(&given, &secret[..secret.len() - 1]).await, Err(Denied::Wrong));
    given.change("ann", Some(UserPatch { ended_token: Some(token.id), ..UserPatch::default() }));
    assert_eq!(by_token(&given, &secret).await, Err(Denied::Wrong));
}

#[tokio::test]
async fn clients_without_credentials_are_the_default_user_if_it_has_none() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    assert!(given.access.anonymous().is_none());
    let roles = UserPatch { grants: Some(grants(&["read:redis"])), ..UserPatch::default() };
    given.change("default", Some(roles));
    let anonymous = given.access.anonymous().unwrap();
    assert_eq!(anonymous.name(), "default");
    assert_eq!(given.login("default", "anything").await.as_deref(), Ok("default"), "as in Redis");
    given.add("default", &["read:redis"]).await;
    assert!(given.access.anonymous().is_none() && given.access.present(&anonymous).is_none());
    assert_eq!(given.login("default", "anything").await, Err(Denied::Wrong));
    assert_eq!(given.login("default", "secret-default").await.as_deref(), Ok("default"));
}

#[tokio::test]
async fn too_many_failed_logins_are_refused_before_they_are_checked() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    let mut outcomes = Vec::new();
    for number in 0..12 {
        let wrong = format!("cwt_wrong_{number}");
        outcomes.push(given.access.authenticate(Credentials::Token(wrong.as_bytes()), from).await.unwrap_err());
    }
    assert!(outcomes[..10].iter().all(|outcome| *outcome == Denied::Wrong), "{outcomes:?}");
    assert!(matches!(outcomes[11], Denied::TooMany(_)), "{outcomes:?}");
    assert_eq!(given.login("ann", "secret-ann").await.as_deref(), Ok("ann"), "from elsewhere");
}

#[tokio::test]
async fn a_program_may_log_in_on_many_connections_at_once() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    let credentials = Credentials::Password { user: "ann", password: b"secret-ann" };
    let logins = (0..200).map(|_| given.access.authenticate(credentials, from));
    let refused = futures_util::future::join_all(logins).await.into_iter().filter(Result::is_err).count();
    assert_eq!(refused, 0);
    assert!(given.access.0.under_way.lock().unwrap().is_empty(), "nothing is left of them");
}

#[tokio::test]
async fn repeating_wrong_credentials_locks_no_other_user_out() {
    let mut given = Given::none();
    given.add("ann", &["admin:*"]).await;
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    let bob = Credentials::Password { user: "bob", password: b"secret-bob" };
    for _ in 0..100 {
        assert_eq!(given.access.authenticate(bob, from).await.unwrap_err(), Denied::Wrong);
    }
    let ann = Credentials::Password { user: "ann", password: b"secret-ann" };
    assert!(given.access.authenticate(ann, from).await.is_ok(), "of the same address");
    given.add("bob", &["read:*"]).await;
    assert!(given.access.authenticate(bob, from).await.is_ok(), "once there is such a user");
}

#[tokio::test]
async fn users_may_be_required_before_there_are_any() {
    let given = Given::required();
    assert!(given.access.is_on());
    assert_eq!(given.login("admin", "anything").await, Err(Denied::Wrong));
}

#[tokio::test]
async fn a_password_has_a_length() {
    let given = Given::none();
    assert!(matches!(given.access.hash("short").await, Err(BadPassword::Length { bytes: 5 })));
    assert!(matches!(given.access.hash(&"x".repeat(1_025)).await, Err(BadPassword::Length { bytes: 1_025 })));
    let (one, other) = (given.access.hash("the same").await.unwrap(), given.access.hash("the same").await.unwrap());
    assert_ne!(one, other, "each has a salt of its own");
}
