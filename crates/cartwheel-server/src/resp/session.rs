//! What a connection has chosen: its version of the protocol, its database, its name.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use cartwheel_core::cluster::membership::REDIS_BUCKET;

use super::api::RespApi;
use super::clients::Client;
use super::keys::Database;
use super::reply::Version;

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
    /// The connection is closed after the reply.
    pub(super) quits: bool,
    /// What other connections see of it.
    pub(super) client: Arc<Client>,
}

impl Session {
    pub(super) fn new(api: Arc<RespApi>, client: Arc<Client>) -> Self {
        let db = Database { api, bucket: bucket_of(0), stored: Arc::new(AtomicU32::new(0)) };
        Self { version: Version::default(), db, replies: Replies::default(), quits: false, client }
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
        self.select(0);
        self.client.set_name(String::new());
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

    pub(super) fn api(&self) -> &RespApi {
        &self.db.api
    }
}

/// The bucket of a database.
fn bucket_of(number: u32) -> Bytes {
    match number {
        0 => Bytes::from_static(REDIS_BUCKET.as_bytes()),
        number => format!("{REDIS_BUCKET}-{number}").into(),
    }
}
