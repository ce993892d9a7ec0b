//! The servers that a bench measures.

use std::sync::Arc;

use cartwheel_client::{Client, Credentials, Tls, TlsError, parse_endpoint};

use super::connection::Endpoint;
use super::dial::Dial;
use super::{BenchError, servers};
use crate::cli::Endpoints;

/// The scheme of the address of a server that speaks the Redis protocol.
const REDIS: &str = "redis://";

/// The servers by their addresses.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    /// The HTTP addresses of nodes.
    pub(super) endpoints: Arc<[Endpoint]>,
    /// The addresses, as `host:port`, of servers that were given as such and speak the Redis protocol.
    pub(super) redis: Vec<String>,
    tls: Option<Tls>,
    credentials: Option<Credentials>,
}

impl Targets {
    /// The servers given, of which at least one accepts connections.
    ///
    /// # Errors
    /// If an address is invalid, or no server can be reached.
    pub(super) async fn find(given: &Endpoints) -> Result<Self, BenchError> {
        let tls = given.tls()?;
        let credentials = given.credentials();
        let dial = Dial::new(tls.as_ref(), credentials.clone());
        let addresses = given.addresses();
        let (redis, nodes): (Vec<&str>, Vec<&str>) = addresses.iter().partition(|address| address.starts_with(REDIS));
        let redis = redis.into_iter().map(redis_address).collect::<Result<Vec<_>, _>>()?;
        let endpoint = |node: &&str| {
            let endpoint = parse_endpoint(node)?;
            match endpoint.strip_prefix("https://") {
                Some(_) if tls.is_none() => Err(cartwheel_client::Error::from(TlsError::NoAuthority).into()),
                Some(authority) => servers::endpoint(authority, &dial),
                None => servers::endpoint(endpoint.trim_start_matches("http://"), &dial),
            }
        };
        let endpoints: Vec<Endpoint> = nodes.iter().map(endpoint).collect::<Result<_, BenchError>>()?;
        for endpoint in &endpoints {
            if accepts(&endpoint.authority).await {
                // The other default addresses need not be nodes, so only one that answers is used.
                let endpoints = if given.is_default() { vec![endpoint.clone()] } else { endpoints };
                return Ok(Self { endpoints: endpoints.into(), redis, tls, credentials });
            }
        }
        for address in &redis {
            if accepts(address).await {
                return Ok(Self { endpoints: endpoints.into(), redis, tls, credentials });
            }
        }
        Err(BenchError::NoNode(addresses.join(", ")))
    }

    /// The addresses for the Redis protocol: those given, and those that the nodes have.
    ///
    /// # Errors
    /// If a node does not answer, or does not say its address.
    pub(super) async fn resp_addresses(&self) -> Result<Arc<[String]>, BenchError> {
        let mut addresses = self.redis.clone();
        for endpoint in &*self.endpoints {
            let status = self.client_to([&endpoint.authority])?.cluster().await?;
            let member = status.members.into_iter().find(|known| known.member.name == status.node);
            let address = member.map(|known| known.member.resp).filter(|address| !address.is_empty());
            addresses.push(address.ok_or_else(|| BenchError::NoResp(endpoint.authority.clone()))?);
        }
        Ok(addresses.into())
    }

    /// A client of the nodes, if there are any.
    pub(super) fn client(&self) -> Result<Option<Client>, BenchError> {
        if self.endpoints.is_empty() { Ok(None) } else { self.client_of_nodes().map(Some) }
    }

    /// A client of the nodes.
    pub(super) fn client_of_nodes(&self) -> Result<Client, BenchError> {
        self.client_to(self.endpoints.iter().map(|endpoint| &endpoint.authority))
    }

    fn client_to<'a>(&self, authorities: impl IntoIterator<Item = &'a String>) -> Result<Client, BenchError> {
        let client = Client::new(authorities)?;
        let client = match &self.tls {
            Some(tls) => client.with_tls(tls),
            None => client,
        };
        Ok(match &self.credentials {
            Some(credentials) => client.with_credentials(credentials),
            None => client,
        })
    }

    /// How connections to the servers are made.
    pub(super) fn dial(&self) -> Dial {
        Dial::new(self.tls.as_ref(), self.credentials.clone())
    }
}

fn redis_address(url: &str) -> Result<String, BenchError> {
    let address = url.strip_prefix(REDIS).unwrap_or_default().trim_end_matches('/');
    let endpoint = parse_endpoint(address).map_err(|_| BenchError::RedisAddress(url.to_owned()))?;
    Ok(endpoint.trim_start_matches("http://").to_owned())
}

async fn accepts(address: &str) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_redis_servers_are_urls_with_a_port() {
        assert_eq!(redis_address("redis://127.0.0.1:6379/").unwrap(), "127.0.0.1:6379");
        assert_eq!(redis_address("redis://cache:1").unwrap(), "cache:1");
        for bad in ["redis://", "redis://cache", "redis://cache:1/2", "redis://:x"] {
            assert!(matches!(redis_address(bad), Err(BenchError::RedisAddress(_))), "{bad}");
        }
    }
}
