//! The ways in which a connection of a bench reaches the servers.

mod client;
mod http;
mod resp;

use std::sync::Arc;
use std::time::Duration;

use cartwheel_client::{Client, HomeTable};
use hyper::header::HeaderValue;

use super::GRACE;
use super::connection::{Connection, Endpoint};
use super::dial::Dial;
use super::job::{JobSettings, OperationError};
use client::{ClientLink, ClientRequests};
pub(super) use http::code;
use http::{HttpLink, HttpRequests};
pub(super) use resp::{Replied, RespLink};

/// What the links of a bench have in common.
#[derive(Clone)]
pub(super) enum LinkPlan {
    Http { requests: Arc<HttpRequests>, endpoints: Arc<[Endpoint]>, timeout: Duration },
    Resp { addresses: Arc<[String]>, dial: Dial, database: u32, timeout: Duration },
    Client { requests: Arc<ClientRequests>, client: Box<Client> },
}

/// One connection, with one operation or one batch of commands in flight.
pub(super) enum Link {
    Http(HttpLink),
    Resp(RespLink),
    /// A client with a pool of connections, which it shares with the other links.
    Client(Box<ClientLink>),
}

/// The result of a read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The number of values.
    pub(super) values: u64,
    /// The context, in the form of its HTTP header.
    pub(super) context: Option<HeaderValue>,
}

impl LinkPlan {
    /// Plain HTTP to `endpoints` in turn. With a `home_table`, whose members they are, each request goes to the first home of its key.
    pub(super) fn http(settings: &JobSettings, endpoints: Arc<[Endpoint]>, home_table: Option<Arc<HomeTable>>) -> Self {
        let requests = Arc::new(HttpRequests::new(settings, home_table));
        Self::Http { requests, endpoints, timeout: settings.timeout + GRACE }
    }

    /// The Redis protocol to `addresses` in turn.
    pub(super) fn resp(settings: &JobSettings, addresses: Arc<[String]>, dial: Dial, database: u32) -> Self {
        Self::Resp { addresses, dial, database, timeout: settings.timeout + GRACE }
    }

    /// The ring-aware client.
    pub(super) fn client(settings: &JobSettings, client: Client) -> Self {
        Self::Client { requests: Arc::new(ClientRequests::new(settings)), client: Box::new(client) }
    }

    /// Makes `count` links. They connect when they are used.
    pub(super) fn links(&self, count: usize) -> Vec<Link> {
        (0..count).map(|number| self.link(number)).collect()
    }

    fn link(&self, number: usize) -> Link {
        match self {
            Self::Http { requests, endpoints, timeout } => {
                let connection = Connection::new(endpoints.clone(), number, *timeout);
                Link::Http(HttpLink::new(requests.clone(), connection))
            }
            Self::Resp { addresses, dial, database, timeout } => {
                Link::Resp(RespLink::new(addresses, dial, number, *database, *timeout))
            }
            Self::Client { requests, client } => {
                Link::Client(Box::new(ClientLink::new(requests.clone(), (**client).clone())))
            }
        }
    }
}

impl Link {
    /// Whether writes can carry contexts.
    pub(super) const fn has_contexts(&self) -> bool {
        !matches!(self, Self::Resp(_))
    }

    /// Reads a key.
    pub(super) async fn get(&mut self, key: &str) -> Result<Found, OperationError> {
        match self {
            Self::Http(link) => link.get(key).await,
            Self::Resp(link) => Ok(Found { values: link.get(key).await?, context: None }),
            Self::Client(link) => link.get(key).await,
        }
    }

    /// Writes a key, and returns the context of the write.
    pub(super) async fn put(
        &mut self,
        key: &str,
        value: Vec<u8>,
        context: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, OperationError> {
        match self {
            Self::Http(link) => link.put(key, value, context).await,
            Self::Resp(link) => link.put(key, &value).await.map(|()| None),
            Self::Client(link) => link.put(key, value, context).await,
        }
    }
}
