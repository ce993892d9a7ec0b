//! What a connection has chosen: its version of the protocol, its database, its name.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use cartwheel_core::cluster::membership::REDIS_BUCKET;
use cartwheel_core::value::hash_slot::hash_slot;
use cartwheel_core::value::token::Token;

use super::api::RespApi;
use super::clients::Client;
use super::commands::Spec;
use super::error::CommandError;
use super::keys::Database;
use super::parser::Command;
use super::reply::Version;
use super::slots;
use crate::access::{Credentials, DEFAULT_USER, Denied, Principal};

/// How many databases there are.
pub(super) const DATABASES: u32 = 16;

/// Whether the client wants replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Replies {
    /// To every command.
    #[default]
    On,
    /// To none.
    Off,
    /// To none for this command and the next one.
    SkipNext,
    /// To none for this command.
    SkipThis,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) db: Database,
    pub(super) replies: Replies,
    /// The client goes by the map of slots, so it is told where a slot has moved.
    pub(super) follows_slots: bool,
    /// The connection is closed after the reply.
    pub(super) quits: bool,
    /// What other connections see of it.
    pub(super) client: Arc<Client>,
    /// The user that the client is, once it is known.
    principal: Option<Arc<Principal>>,
    /// Clients have to be a user.
    needs_user: bool,
}

impl Session {
    pub(super) fn new(api: Arc<RespApi>, client: Arc<Client>) -> Self {
        let db = Database { api, bucket: bucket_of(0), stored: Arc::new(AtomicU32::new(0)) };
        Self {
            version: Version::default(),
            db,
            replies: Replies::default(),
            follows_slots: false,
            quits: false,
            client,
            principal: None,
            needs_user: false,
        }
    }

    /// Chooses a database.
    pub(super) fn select(&mut self, number: u32) {
        self.db.bucket = bucket_of(number);
        self.client.set_database(number);
    }

    /// The state of a new connection.
    pub(super) fn reset(&mut self) {
        self.version = Version::default();
        self.replies = Replies::default();
        self.follows_slots = false;
        self.principal = None;
        self.client.set_user(DEFAULT_USER.to_owned());
        self.select(0);
        self.client.set_name(String::new());
    }

    /// Adopts changes of the users. Called between requests.
    pub(super) fn renew_access(&mut self) {
        let access = &self.db.api.backend().access;
        self.needs_user = access.is_on();
        if self.needs_user {
            let present = self.principal.take().and_then(|principal| access.present(&principal));
            self.principal = present.or_else(|| access.anonymous());
        }
    }

    /// Whether clients have to be a user.
    pub(super) fn needs_user(&self) -> bool {
        self.needs_user
    }

    /// Whether the client may only say which user it is.
    pub(super) fn is_unknown(&self) -> bool {
        self.needs_user && self.principal.is_none()
    }

    /// The name of the user that the client is.
    pub(super) fn user(&self) -> &str {
        self.principal.as_ref().map_or(DEFAULT_USER, |principal| principal.name())
    }

    /// The user that the client is, if it has to be one.
    pub(super) fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref().filter(|_| self.needs_user)
    }

    /// The client has said which user it is.
    ///
    /// # Errors
    /// If that is wrong, or the client may not try now.
    pub(super) async fn authenticate(&mut self, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
        let wrong = || CommandError::Text("WRONGPASS invalid username-password pair or user is disabled.".into());
        let user = std::str::from_utf8(user).map_err(|_| wrong())?;
        let access = self.db.api.backend().access.clone();
        if !access.is_on() {
            // As in Redis before any user is made: there is one, which has no password.
            return if user == DEFAULT_USER { Ok(()) } else { Err(wrong()) };
        }
        let credentials = Credentials::Password { user, password };
        let principal = access.authenticate(credentials, self.client.ip()).await.map_err(|denied| match denied {
            Denied::NoCredentials | Denied::Wrong => wrong(),
            Denied::TooMany(wait) => {
                CommandError::other(format!("too many logins failed of late: try again in {} s", wait.as_secs() + 1))
            }
        })?;
        self.client.set_user(principal.name().to_owned());
        (self.needs_user, self.principal) = (true, Some(principal));
        Ok(())
    }

    /// Whether the client wants the reply to the command that was just begun.
    pub(super) fn is_reply_wanted(&mut self) -> bool {
        match self.replies {
            Replies::On => return true,
            Replies::Off => {}
            Replies::SkipNext => self.replies = Replies::SkipThis,
            Replies::SkipThis => self.replies = Replies::On,
        }
        false
    }

    /// Whether the keys of the connection's database are placed by hash slot.
    pub(super) fn is_slotted(&self) -> bool {
        slots::is_slotted(self.api().backend(), &self.db.bucket)
    }

    /// What Redis calls its mode.
    pub(super) fn mode(&self) -> &'static str {
        if self.is_slotted() { "cluster" } else { "standalone" }
    }

    /// Checks that the node may carry out a command on keys that are placed by slot: they have one slot, and a client that goes by the map of slots
    /// asks one of its replicas, which does not drain if another one is in reach.
    ///
    /// # Errors
    /// Redis Cluster's own.
    pub(super) fn check_slots(&mut self, spec: &Spec, command: &Command) -> Result<(), CommandError> {
        let asks_for_map = || {
            let subcommand = command.get(1).to_ascii_uppercase();
            spec.name == "cluster" && [&b"SLOTS"[..], b"SHARDS", b"NODES"].contains(&&subcommand[..])
        };
        // Only clients of a cluster send READONLY.
        self.follows_slots |= spec.name == "readonly" || asks_for_map();
        if spec.is_native() || !self.is_slotted() {
            return Ok(());
        }
        let mut slots = spec.key_positions(command.len()).map(|at| hash_slot(command.get(at)));
        let Some(slot) = slots.next() else { return Ok(()) };
        if slots.any(|other| other != slot) {
            return Err(CommandError::Text("CROSSSLOT Keys in request don't hash to the same slot".into()));
        }
        if !self.follows_slots {
            // Any node carries out any command.
            return Ok(());
        }
        let backend = self.api().backend();
        let own = backend.local.node;
        if !backend.is_draining(own) && backend.homes_of(&self.db.bucket, Token::of_slot(slot)).contains(&own) {
            return Ok(());
        }
        let first = slots::replicas(backend, &self.db.bucket, slot).first().copied().filter(|&first| first != own);
        match first.and_then(|first| slots::node(backend, first)) {
            Some(node) => Err(CommandError::Text(format!("MOVED {slot} {node}").into())),
            None => Ok(()),
        }
    }

    pub(super) fn api(&self) -> &RespApi {
        &self.db.api
    }
}

/// The bucket of a database.
pub(super) fn bucket_of(number: u32) -> Bytes {
    match number {
        0 => Bytes::from_static(REDIS_BUCKET.as_bytes()),
        number => format!("{REDIS_BUCKET}-{number}").into(),
    }
}
