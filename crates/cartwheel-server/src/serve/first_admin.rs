//! Makes the first administrator of a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::membership::{Grant, UserPatch, View};
use cartwheel_core::wire::Protocol;
use tokio::sync::watch;
use tracing::{info, warn};

use super::ServeError;
use crate::access::BadPassword;
use crate::backend::Backend;
use crate::config::AdminPassword;

/// The name of the first administrator.
const ADMIN: &str = "admin";
/// How long the change may take to be saved.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Reads the password of the first administrator.
///
/// # Errors
/// If the file cannot be read, or what is in it cannot be a password.
pub(super) fn read_password(password: &AdminPassword) -> Result<String, ServeError> {
    let (bytes, from) = match password {
        AdminPassword::Given(secret) => (secret.0.as_bytes().to_vec(), "CARTWHEEL_ADMIN_PASSWORD".to_owned()),
        AdminPassword::File(path) => {
            let read = fs::read(path);
            let bytes = read.map_err(|source| ServeError::AdminPasswordFile { path: path.clone(), source })?;
            (bytes, path.display().to_string())
        }
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| ServeError::AdminPassword { from: from.clone(), why: "it is not UTF-8".to_owned() })?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    BadPassword::check(&password).map_err(|why| ServeError::AdminPassword { from, why: why.to_string() })?;
    Ok(password)
}

/// Makes the user `admin`, if the cluster has no administrator; with `resets` also if it has one.
///
/// Several nodes may do this at once: they record the same password, and the last record counts.
pub(super) async fn make(backend: Arc<Backend>, password: String, resets: bool) {
    let (mut view, mut upgrade) = (backend.view.clone(), backend.upgrade.clone());
    let has_admin = |view: &watch::Receiver<Arc<View>>| view.borrow().users().have_admin();
    loop {
        if !resets && has_admin(&view) {
            return;
        }
        if upgrade.borrow_and_update().all_speak >= Protocol::USERS {
            break;
        }
        let changed = tokio::select! {
            changed = upgrade.changed() => changed,
            changed = view.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
    loop {
        if !resets && has_admin(&view) {
            return;
        }
        match make_once(&backend, &password).await {
            Ok(()) => return info!(user = ADMIN, "made the first administrator"),
            Err(why) => warn!(user = ADMIN, %why, "cannot make the first administrator yet"),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn make_once(backend: &Backend, password: &str) -> Result<(), String> {
    let hash = backend.access.hash(password).await.map_err(|why| why.to_string())?;
    let grants = Some(BTreeSet::from([Grant::EVERYTHING]));
    let patch = UserPatch { password: Some(hash), grants, ..UserPatch::default() };
    let changed = backend.change_user(ADMIN.to_owned(), Some(patch), TIMEOUT).await;
    changed.map(drop).map_err(|why| format!("{why:?}"))
}
