//! The checks before the router. An overloaded node refuses clients' requests here, at a fraction of the cost of routing and parsing them.
//!
//! Under several times the load that a node can take, it refuses most requests, and each refusal costs time that accepted requests lack.

use std::convert::Infallible;
use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use cartwheel_core::message::client::Refusal;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::connections::Serves;
use super::error::ApiError;
use super::{ApiState, body, guard, target, watch};

/// The HTTP service for clients. Clones share one.
#[derive(Clone, Debug)]
pub struct Front {
    api: ApiState,
    router: TowerToHyperService<Router>,
}

impl Front {
    /// The contract's calls behind the checks.
    pub fn new(api: ApiState) -> Self {
        let router = TowerToHyperService::new(super::router(api.clone()));
        Self { api, router }
    }
}

impl Front {
    /// Checks that a request is admitted.
    fn check(&self, request: &Request<Incoming>) -> Result<(), ApiError> {
        if is_on_key(request.uri()) {
            // An overloaded node makes no further checks.
            self.admits(request)?;
        }
        guard::check(&self.api, request)
    }

    /// Checks that a request on a key is admitted.
    fn admits(&self, request: &Request<Incoming>) -> Result<(), ApiError> {
        match request.extensions().get() {
            Some(Serves::Administrators) => Err(ApiError::not_found(
                "this address is for administrators: send requests on keys to the node's HTTP address",
            )),
            Some(Serves::Itself) => Err(ApiError::from(Refusal::Overloaded)),
            Some(Serves::All) | None => Ok(self.api.admits_any()?),
        }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Err(refused) = self.check(&request) {
            let api = self.api.clone();
            return Box::pin(async move { Ok(refuse(&api, request, refused).await) });
        }
        Box::pin(self.router.call(request))
    }
}

fn is_on_key(uri: &Uri) -> bool {
    uri.path().starts_with(target::KV)
}

async fn refuse(api: &ApiState, request: Request<Incoming>, error: ApiError) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let timed = if is_on_key(&parts.uri) { watch::begin(api, &parts.method) } else { None };
    let is_kept = body::discard(&parts.headers, &mut Body::new(body)).await;
    let response = if is_kept { error } else { error.closing() }.into_response();
    watch::log_failure(api, &parts.method, &parts.uri, &response);
    watch::end(timed, &response);
    response
}
