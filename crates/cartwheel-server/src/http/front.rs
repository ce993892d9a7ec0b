//! The calls of the contract behind the checks that every request passes.

use std::convert::Infallible;
use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use axum::response::IntoResponse as _;
use cartwheel_core::message::client::Refusal;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Handle;

use super::access::{self, Act};
use super::error::ApiError;
use super::headers::DRAINING;
use super::{ApiState, body, guard, kv, target, watch};
use crate::tcp::connections::Serves;
use crate::trace;

/// The HTTP service for clients. Clones share one.
///
/// Requests on keys are carried out on the thread of their connection, which is a shard's; all others in the background, where they hold no shard
/// up.
#[derive(Clone, Debug)]
pub struct Front {
    api: ApiState,
    router: TowerToHyperService<Router>,
    background: Handle,
}

impl Front {
    /// The contract's calls behind the checks.
    pub fn new(api: ApiState, background: Handle) -> Self {
        let router = TowerToHyperService::new(super::router(api.clone()));
        Self { api, router, background }
    }

    /// Carries out a request.
    async fn carry_out(self, mut request: Request<Body>) -> Response<Body> {
        if is_on_key(request.uri()) {
            return on_key(&self.api, request).await;
        }
        let mut act = Act::begin(&request);
        let checked = match guard::check(&self.api, &request) {
            Ok(()) => {
                let (asked, client) = ((request.method(), request.uri()), access::client(&request));
                access::check(&self.api, asked, request.headers(), client).await
            }
            Err(refused) => Err(refused),
        };
        let api = self.api.clone();
        let response = match checked {
            Ok(principal) => {
                if let Some(principal) = principal {
                    act.iter_mut().for_each(|act| act.of(&principal));
                    request.extensions_mut().insert(principal);
                }
                self.in_background(request).await
            }
            Err(refused) => refuse(&self.api, request, refused).await,
        };
        if let Some(act) = act {
            act.end(&api, &response);
        }
        response
    }

    /// Carries out a request that passed the checks, in the background.
    async fn in_background(self, request: Request<Body>) -> Response<Body> {
        let in_background = async move { self.router.call(request).await };
        match self.background.spawn(in_background).await {
            Ok(Ok(response)) => response,
            // The call has panicked, or the node stops.
            Err(_) => ApiError::unavailable("the request was not carried out: send it to another node").into_response(),
        }
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.carry_out(request).await) })
    }
}

fn is_on_key(uri: &Uri) -> bool {
    target::names_key(uri.path())
}

/// Carries out a request on a key, counts and logs it.
async fn on_key(api: &ApiState, request: Request<Body>) -> Response<Body> {
    // An overloaded node makes no further checks.
    let checked = match admits(api, &request).and_then(|()| guard::check(api, &request)) {
        Ok(()) => {
            let (asked, client) = ((request.method(), request.uri()), access::client(&request));
            access::check(api, asked, request.headers(), client).await.map(drop)
        }
        Err(refused) => Err(refused),
    };
    if let Err(refused) = checked {
        return refuse(api, request, refused).await;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let timed = watch::begin(api, &method);
    let response = match watch::begin_trace(api, &request) {
        None => on_key_by(api, &method, &uri, request).await,
        Some(span) => {
            let response = trace::within(&span, on_key_by(api, &method, &uri, request)).await;
            watch::end_trace(api, span, &response);
            response
        }
    };
    watch::log_failure(api, &method, &uri, &response);
    watch::end(timed, &response);
    response
}

/// Carries out a request on a key by its method.
async fn on_key_by(api: &ApiState, method: &Method, uri: &Uri, request: Request<Body>) -> Response<Body> {
    let carried_out = match *method {
        Method::GET | Method::HEAD => {
            let (parts, _) = request.into_parts();
            kv::get(api, &parts.uri, &parts.headers).await
        }
        Method::PUT => kv::put(api, request).await,
        Method::DELETE => {
            let (parts, _) = request.into_parts();
            kv::delete(api, &parts.uri, &parts.headers).await
        }
        _ => {
            let allowed = HeaderValue::from_static("GET,HEAD,PUT,DELETE");
            Err(ApiError::method_not_allowed(method, uri).with(header::ALLOW, allowed))
        }
    };
    let mut response = carried_out.unwrap_or_else(ApiError::into_response);
    if api.drain().is_on() {
        // Whatever balances connections has the client choose anew.
        response.headers_mut().insert(DRAINING, HeaderValue::from_static("true"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Checks that a request on a key is not refused at once.
fn admits(api: &ApiState, request: &Request<Body>) -> Result<(), ApiError> {
    match request.extensions().get() {
        Some(Serves::Administrators) => Err(ApiError::not_found(
            "this address is for administrators: send requests on keys to the node's HTTP address",
        )),
        Some(Serves::Itself) => Err(ApiError::from(Refusal::Overloaded)),
        Some(Serves::All) | None => Ok(api.admits_any()?),
    }
}

async fn refuse(api: &ApiState, request: Request<Body>, error: ApiError) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    let timed = if is_on_key(&parts.uri) { watch::begin(api, &parts.method) } else { None };
    let is_kept = body::discard(&parts.headers, &mut body).await;
    let response = if is_kept { error } else { error.closing() }.into_response();
    watch::log_failure(api, &parts.method, &parts.uri, &response);
    watch::end(timed, &response);
    response
}
