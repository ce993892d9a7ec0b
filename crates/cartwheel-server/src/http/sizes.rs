//! `/v1/cluster/sizes`: how much each node holds.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration};
use cartwheel_core::cluster::sizes::Size;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::amounts::SurveyTargets;
use super::error::ApiError;
use super::openapi::QueryErrors;
use super::query::Query;

/// How much the nodes hold, as they report it.
#[derive(Serialize, ToSchema)]
pub(super) struct SizesForm {
    /// The members, by id.
    nodes: Vec<NodeSizeForm>,
}

#[derive(Serialize, ToSchema)]
struct NodeSizeForm {
    /// The node's name.
    node: String,
    /// Of how many partitions it is a home.
    replicas: usize,
    /// How many keys it holds as a home, tombstones included; null if it did not report in time.
    keys: Option<u64>,
    /// The bytes of these keys and their values, without metadata; null if it did not report in time.
    bytes: Option<u64>,
}

/// Show how much each node holds as a home
#[utoipa::path(get, path = "/v1/cluster/sizes", tag = "cluster",
    responses((status = 200, description = "The replicas, keys and bytes of each member", body = SizesForm), QueryErrors))]
pub(super) async fn sizes(State(api): State<ApiState>, uri: Uri) -> Result<Json<SizesForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, phases) = (api.view(), api.phases());
    let mut targets = SurveyTargets::new();
    for known in view.members() {
        targets.entry(known.member.id).or_default();
    }
    for (partition, phase) in view.ring.partitions().iter().zip(phases.iter()) {
        for home in ConfigPhase::both(phase).flat_map(Configuration::homes_of_any) {
            if let Some(partitions) = targets.get_mut(&home.node) {
                partitions.insert(partition);
            }
        }
    }
    let surveyed = api.survey(targets.clone()).await?;
    let form = |known: &cartwheel_core::cluster::membership::ViewMember| {
        let sizes = surveyed.get(&known.member.id);
        let total = sizes.map(|sizes| {
            sizes.trees.values().fold(Size::default(), |mut total, &size| {
                total += size;
                total
            })
        });
        NodeSizeForm {
            node: known.member.name.clone(),
            replicas: targets.get(&known.member.id).map_or(0, std::collections::BTreeSet::len),
            keys: total.map(|total| total.keys),
            bytes: total.map(|total| total.bytes),
        }
    };
    Ok(Json(SizesForm { nodes: view.members().map(form).collect() }))
}
