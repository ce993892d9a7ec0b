//! Which commands a client may send.

use std::net::IpAddr;

use cartwheel_core::cluster::membership::BucketRole;

use super::commands::Spec;
use super::error::CommandError;
use super::parser::Command;
use super::reply::Reply;
use super::session::{DATABASES, Session, bucket_of};
use crate::access::{Access, AuditEvent, DEFAULT_USER, Principal};

/// The commands by which a client says which user it is, or goes.
const BEFORE_LOGIN: [&str; 4] = ["auth", "hello", "quit", "reset"];

/// The user and the password in a command by which a client says which user it is.
pub(super) fn credentials<'a>(session: &Session, spec: &Spec, command: &'a Command) -> Option<(&'a [u8], &'a [u8])> {
    match spec.name {
        "auth" if command.len() == 2 && session.needs_user() => Some((DEFAULT_USER.as_bytes(), command.get(1))),
        "auth" if command.len() == 3 => Some((command.get(1), command.get(2))),
        "hello" if [&b"2"[..], b"3"].contains(&command.get(1)) => {
            let at = (2..command.len()).find(|&at| command.get(at).eq_ignore_ascii_case(b"AUTH"))?;
            (at + 2 < command.len()).then(|| (command.get(at + 1), command.get(at + 2)))
        }
        _ => None,
    }
}

/// Checks that the client may send a command.
///
/// # Errors
/// Redis's own, where it has one.
pub(super) fn check(session: &Session, spec: &Spec, command: &Command) -> Result<(), CommandError> {
    if session.is_unknown() {
        return match BEFORE_LOGIN.contains(&spec.name) {
            true => Ok(()),
            false => Err(CommandError::Text("NOAUTH Authentication required.".into())),
        };
    }
    let Some(principal) = session.principal() else { return Ok(()) };
    let needed = if is_for_administrators(spec, command) {
        (!principal.user().is_admin()).then(|| "admin:*".to_owned())
    } else {
        missing(session, principal, spec, command)
    };
    let Some(role) = needed else { return Ok(()) };
    let (name, command) = (principal.name(), spec.name);
    Err(CommandError::Text(
        format!("NOPERM User {name} has no permissions to run the '{command}' command: it lacks the role {role}")
            .into(),
    ))
}

/// Whether a command is about other clients.
fn is_for_administrators(spec: &Spec, command: &Command) -> bool {
    let is = |name: &[u8]| command.get(1).eq_ignore_ascii_case(name);
    spec.name == "client" && (is(b"KILL") || is(b"LIST"))
}

/// The role for a bucket that the user lacks.
fn missing(session: &Session, principal: &Principal, spec: &Spec, command: &Command) -> Option<String> {
    let lacks = |role: BucketRole, bucket: &[u8]| {
        (!principal.user().has(role, bucket)).then(|| format!("{role}:{}", String::from_utf8_lossy(bucket)))
    };
    let own = &session.db.bucket;
    match spec.name {
        "flushdb" => lacks(BucketRole::Admin, own),
        "flushall" => (0..DATABASES).find_map(|number| lacks(BucketRole::Admin, &bucket_of(number))),
        // These name keys.
        "cluster" if command.len() > 2 => lacks(BucketRole::Read, own),
        "cw.ring" => None,
        _ if spec.is_native() => {
            lacks(if spec.is_write() { BucketRole::Write } else { BucketRole::Read }, command.get(1))
        }
        _ if spec.is_write() => lacks(BucketRole::Write, own),
        _ if spec.is_read() => lacks(BucketRole::Read, own),
        _ => None,
    }
}

/// Whether a command goes into the audit log.
fn is_administrative(spec: &Spec, command: &Command) -> bool {
    let is_kill = spec.name == "client" && command.get(1).eq_ignore_ascii_case(b"KILL");
    is_kill || ["flushall", "flushdb"].contains(&spec.name)
}

/// An administrative command, to be recorded with its reply.
pub(super) struct AdministrativeCommand {
    access: Access,
    user: Option<String>,
    client: Option<IpAddr>,
    act: String,
}

impl AdministrativeCommand {
    /// The record of a command, if it goes into the audit log.
    pub(super) fn begin(session: &Session, spec: &Spec, command: &Command) -> Option<Self> {
        is_administrative(spec, command).then(|| Self {
            access: session.api().backend().access.clone(),
            user: session.principal().map(|principal| principal.name().to_owned()),
            client: session.client.ip(),
            act: format!("{} in {}", spec.name, String::from_utf8_lossy(&session.db.bucket)),
        })
    }

    /// Records it with its reply.
    pub(super) fn end(self, reply: &Reply) {
        let Self { access, user, client, act } = self;
        let outcome = match reply {
            Reply::Error(text) => text.split(' ').next().unwrap_or_default(),
            _ => "done",
        };
        let user = user.as_deref();
        access.audit().record(AuditEvent { user, client, api: "redis", act: &act, outcome, detail: None });
    }
}
