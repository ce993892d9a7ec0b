//! The HTTP door: the contract's calls, from bytes to requests and from outcomes to bytes.

mod ask;
mod cluster;
mod error;
mod kv;
mod query;
mod server;
mod show;
mod target;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{any, get};
use cartwheel_core::membership::View;
use tokio::sync::watch;

use crate::shard::ShardHandle;
use error::ApiError;

pub use server::serve;

/// What the door's handlers know of the node behind it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where requests go.
    pub shard: ShardHandle,
    /// The cluster's members, ring and settings.
    pub view: Arc<View>,
    /// Whether the node is ready to serve.
    pub ready: watch::Receiver<bool>,
}

/// The contract's routes.
pub fn router(door: Door) -> Router {
    Router::new()
        // Bucket and key are taken from the raw path: the router decodes text, and they are bytes.
        .route("/v1/kv/{*bucket_and_key}", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/v1/kv/", any(kv::no_key))
        .route("/v1/kv", any(kv::no_key))
        .route("/v1/cluster/ring", get(cluster::ring))
        .route("/v1/cluster/locate/{*bucket_and_key}", get(cluster::locate))
        .route("/v1/cluster/locate/", any(cluster::no_key))
        .route("/v1/cluster/locate", any(cluster::no_key))
        .route("/healthz", get(cluster::healthz))
        .route("/readyz", get(cluster::readyz))
        .fallback(no_such_call)
        .method_not_allowed_fallback(wrong_method)
        .with_state(door)
}

async fn no_such_call(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no call {}: see the README for those there are", uri.path()))
}

/// The router adds the `Allow` header.
async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(format!("{} cannot be called with {method}: see the header Allow", uri.path()))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
