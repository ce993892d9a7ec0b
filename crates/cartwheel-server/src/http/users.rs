//! `/v1/users...`: users, their roles and their access tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::{Extension, Json};
use cartwheel_core::cluster::membership::users::{AccessToken, BadUser, check_name};
use cartwheel_core::cluster::membership::{Grant, User, UserPatch};
use cartwheel_core::value::hlc::WallMs;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::access::AuditDetail;
use super::buckets::read_change;
use super::error::ApiError;
use super::openapi::{ChangeErrors, QueryErrors};
use super::query::Query;
use super::{ApiState, headers};
use crate::access::{BadPassword, NewToken, Principal};

/// A user, without its secrets.
#[derive(Serialize, ToSchema)]
pub(super) struct UserForm {
    /// Its name.
    name: String,
    /// Its roles: `read:BUCKETS`, `write:BUCKETS`, `admin:BUCKETS` or `cluster`.
    roles: Vec<String>,
    /// Whether it has a password.
    password: bool,
    /// Its access tokens.
    tokens: Vec<TokenForm>,
}

/// An access token, without its secret.
#[derive(Serialize, ToSchema)]
struct TokenForm {
    /// Its public part.
    id: String,
    /// When it was made, RFC 3339.
    created: String,
    /// When it ends, RFC 3339; left out if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// The users of the cluster.
#[derive(Serialize, ToSchema)]
pub(super) struct UsersForm {
    /// Whether clients have to be a user.
    required: bool,
    /// The users, by name.
    users: Vec<UserForm>,
}

/// The user that a request is from.
#[derive(Serialize, ToSchema)]
pub(super) struct WhoamiForm {
    /// Its name; left out while the cluster has no users, so that every client may do everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Its roles.
    roles: Vec<String>,
}

/// What to change of a user; the rest stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct UserPatchForm {
    /// A new password of 8 to 1024 bytes.
    password: Option<String>,
    /// New roles in place of all that it has.
    roles: Option<Vec<String>>,
}

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct NewTokenForm {
    /// In how many seconds it ends; without it, it does not.
    expires_in_s: Option<u64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeTokenForm {
    /// The token. It is shown only this once.
    token: String,
    #[serde(flatten)]
    about: TokenForm,
}

type Requester = Option<Extension<Arc<Principal>>>;

impl UserForm {
    fn of(name: &str, user: &User) -> Self {
        Self {
            name: name.to_owned(),
            roles: roles(user),
            password: user.password.is_some(),
            tokens: user.tokens.iter().map(TokenForm::of).collect(),
        }
    }
}

impl TokenForm {
    fn of(token: &AccessToken) -> Self {
        let time = |at: WallMs| {
            // A time that no calendar has is that of a broken node.
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at.0.min(253_402_300_799_000)));
            humantime::format_rfc3339_millis(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
        };
        Self { id: token.id.clone(), created: time(token.created), expires: token.expires.map(time) }
    }
}

fn roles(user: &User) -> Vec<String> {
    user.grants.iter().map(ToString::to_string).collect()
}

/// List the users
#[utoipa::path(get, path = "/v1/users", tag = "users",
    responses((status = 200, description = "The users, without their secrets", body = UsersForm), QueryErrors))]
pub(super) async fn list(State(api): State<ApiState>, uri: Uri) -> Result<Json<UsersForm>, ApiError> {
    Query::none(uri.query())?;
    let view = api.view();
    let users = view.users().iter().map(|(name, user)| UserForm::of(name, user)).collect();
    Ok(Json(UsersForm { required: api.access().is_on(), users }))
}

/// Get a user
#[utoipa::path(get, path = "/v1/users/{name}", tag = "users",
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 200, description = "The user, without its secrets", body = UserForm), ChangeErrors))]
pub(super) async fn get(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<UserForm>, ApiError> {
    Query::none(uri.query())?;
    present(&api, &name).map(Json)
}

/// Make or change a user
///
/// The first user needs the role `admin:*` and a password. From then on all clients have to be a user.
#[utoipa::path(put, path = "/v1/users/{name}", tag = "users",
    params(
        ("name" = String, Path, description = "1 to 64 letters, digits, and any of . _ - @"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    request_body = UserPatchForm,
    responses((status = 200, description = "The user; this node has saved it and sends it to the others", body = UserForm), ChangeErrors))]
pub(super) async fn put(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    requester: Requester,
    request: Request<Body>,
) -> Result<(Extension<AuditDetail>, Json<UserForm>), ApiError> {
    let (parts, body) = request.into_parts();
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    check_name(&name).map_err(refused)?;
    let wanted: UserPatchForm = read_form(&parts.headers, body, timeout, "password, roles").await?;
    let is_admin = requester.is_none_or(|requester| requester.user().is_admin());
    if wanted.roles.is_some() && !is_admin {
        return Err(ApiError::forbidden("only a user with the role admin:* changes roles: ask an administrator"));
    }
    let detail = AuditDetail(json!({ "roles": &wanted.roles, "password": wanted.password.is_some() }));
    let grants = wanted.roles.map(|roles| roles.iter().map(|role| role.parse::<Grant>()).collect());
    let grants: Option<BTreeSet<Grant>> = grants.transpose().map_err(refused)?;
    let password = match &wanted.password {
        Some(password) => Some(api.access().hash(password).await?),
        None => None,
    };
    let patch = UserPatch { password, grants, ..UserPatch::default() };
    api.change_user(name.clone(), Some(patch), timeout).await?;
    Ok((Extension(detail), Json(present(&api, &name)?)))
}

/// Delete a user
#[utoipa::path(delete, path = "/v1/users/{name}", tag = "users",
    params(
        ("name" = String, Path, description = "The user's name"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    responses((status = 204, description = "Deleted; this node has saved it and sends it to the others"), ChangeErrors))]
pub(super) async fn delete(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let timeout = Query::parse(uri.query(), &["timeout_ms"])?.timeout;
    headers::refuse_other_than_json(&headers)?;
    present(&api, &name)?;
    api.change_user(name, None, timeout).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make an access token
///
/// It has the roles of its user, and can be given as a bearer token, or in place of the password.
#[utoipa::path(post, path = "/v1/users/{name}/tokens", tag = "users",
    params(
        ("name" = String, Path, description = "The user's name"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    request_body = NewTokenForm,
    responses((status = 201, description = "The token, which is shown only this once", body = MadeTokenForm), ChangeErrors))]
pub(super) async fn make_token(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<(StatusCode, Extension<AuditDetail>, Json<MadeTokenForm>), ApiError> {
    let (parts, body) = request.into_parts();
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    let wanted: NewTokenForm = read_form(&parts.headers, body, timeout, "expires_in_s").await?;
    present(&api, &name)?;
    let made = NewToken::draw(wanted.expires_in_s.map(Duration::from_secs));
    let NewToken { secret, token } = made.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let about = TokenForm::of(&token);
    let detail = AuditDetail(json!({ "token": &about }));
    api.change_user(name, Some(UserPatch { new_token: Some(token), ..UserPatch::default() }), timeout).await?;
    Ok((StatusCode::CREATED, Extension(detail), Json(MadeTokenForm { token: secret, about })))
}

/// End an access token
#[utoipa::path(delete, path = "/v1/users/{name}/tokens/{id}", tag = "users",
    params(
        ("name" = String, Path, description = "The user's name"),
        ("id" = String, Path, description = "The token's public part"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    responses((status = 204, description = "Ended; this node has saved it and sends it to the others"), ChangeErrors))]
pub(super) async fn end_token(
    State(api): State<ApiState>,
    Path((name, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let timeout = Query::parse(uri.query(), &["timeout_ms"])?.timeout;
    headers::refuse_other_than_json(&headers)?;
    if !present(&api, &name)?.tokens.iter().any(|token| token.id == id) {
        return Err(ApiError::not_found(BadUser::NoToken(id).to_string()));
    }
    api.change_user(name, Some(UserPatch { ended_token: Some(id), ..UserPatch::default() }), timeout).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get the user that the request is from
#[utoipa::path(get, path = "/v1/whoami", tag = "users",
    responses((status = 200, description = "The user and its roles", body = WhoamiForm), QueryErrors))]
pub(super) async fn whoami(requester: Requester, uri: Uri) -> Result<Json<WhoamiForm>, ApiError> {
    Query::none(uri.query())?;
    Ok(Json(match requester {
        Some(Extension(principal)) => {
            WhoamiForm { user: Some(principal.name().to_owned()), roles: roles(principal.user()) }
        }
        None => WhoamiForm { user: None, roles: vec![Grant::EVERYTHING.to_string()] },
    }))
}

fn present(api: &ApiState, name: &str) -> Result<UserForm, ApiError> {
    let view = api.view();
    let user = view.users().get(name).map(|user| UserForm::of(name, user));
    user.ok_or_else(|| ApiError::not_found(BadUser::NoUser(name.to_owned()).to_string()))
}

fn refused(why: BadUser) -> ApiError {
    ApiError::bad_request(why.to_string())
}

/// Reads the body of a change. What is wrong with it is said without repeating it, because it may hold a password.
async fn read_form<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: Body,
    within: Duration,
    fields: &str,
) -> Result<T, ApiError> {
    let text = read_change(headers, body, within).await?;
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        ApiError::bad_request(format!(
            "the body is not a JSON object with some of {fields}; it is wrong at line {line}, column {column}"
        ))
    })
}

impl From<BadPassword> for ApiError {
    fn from(why: BadPassword) -> Self {
        match why {
            BadPassword::Length { .. } => Self::bad_request(why.to_string()),
            BadPassword::Busy => Self::too_many_logins(Duration::from_secs(1)),
            BadPassword::Hash(_) => Self::unavailable(why.to_string()),
        }
    }
}
