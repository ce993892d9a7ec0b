//! `/v1/buckets/{bucket}/staleness`: how soon reads see a write, predicted from what this node has measured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::latency::{Latencies, RoundTrips};
use cartwheel_core::value::dot::NodeId;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::ApiState;
use super::buckets::bucket_in;
use super::error::ApiError;
use super::openapi::QueryErrors;
use super::query::Query;
use crate::backend::name_of;
use crate::backend::staleness::Prediction;

/// The times after an acknowledgement that are shown if the request names none, in milliseconds.
const TIMES_MS: [f64; 6] = [0.0, 0.5, 1.0, 5.0, 20.0, 100.0];
/// For how long a prediction is given again.
const KEPT_FOR: Duration = Duration::from_secs(3);
/// The same measurements give the same prediction.
const SEED: u64 = 0x5741_5253;

/// How soon reads of a bucket see a write, for each R and W.
#[derive(Serialize, ToSchema)]
pub(super) struct StalenessForm {
    /// The name of the answering node, which is taken as the coordinator of the writes.
    node: String,
    /// How many homes each key has.
    n: u8,
    /// The bucket's r.
    r: u8,
    /// The bucket's w.
    w: u8,
    /// How often a read after a write was simulated for each pair; 0 if the node has measured no writes yet: then there are no predictions.
    trials: usize,
    /// One entry for each R and W from 1 to N, in that order.
    predictions: Vec<PredictionForm>,
    /// What the predictions were made of.
    peers: Vec<MeasuredForm>,
}

/// The prediction for one R and W. The read goes through another home than the write's coordinator; through the coordinator, it always sees the
/// write.
#[derive(Clone, Serialize, ToSchema)]
struct PredictionForm {
    /// How many homes answer a read.
    r: usize,
    /// How many homes acknowledge a write.
    w: usize,
    /// Whether these are the bucket's settings.
    current: bool,
    /// For each time after the acknowledgement, the probability that a read that begins then sees the write.
    fresh: Vec<FreshForm>,
    /// The time after which 99% of reads see the write, in milliseconds.
    p99_ms: f64,
    /// The time after which 99.9% of reads see the write, in milliseconds.
    p999_ms: f64,
}

#[derive(Clone, Serialize, ToSchema)]
struct FreshForm {
    /// The time since the acknowledgement, in milliseconds.
    after_ms: f64,
    /// The probability, from 0 to 1.
    probability: f64,
}

/// The round trips from the answering node to a peer. Recent ones count most.
#[derive(Serialize, ToSchema)]
struct MeasuredForm {
    /// The peer's name.
    node: String,
    /// Reads of a replica there; their halves are taken as the times of one way.
    reads: TimesForm,
    /// Writes of a replica there, until they are durable.
    writes: TimesForm,
}

#[derive(Serialize, ToSchema)]
struct TimesForm {
    /// How many were measured of late.
    count: u32,
    /// Their median in milliseconds; null without any.
    p50_ms: Option<f64>,
    /// Their 99th percentile in milliseconds; null without any.
    p99_ms: Option<f64>,
}

/// The predictions of the last seconds: one for each N that a bucket has.
#[derive(Debug, Default)]
pub(super) struct Predictions {
    kept: Mutex<HashMap<u8, (Instant, Arc<Measured>)>>,
}

/// One simulation at a time, however many requests there are.
static SIMULATING: Semaphore = Semaphore::const_new(1);

/// Round trips to each peer, and what was predicted from them.
#[derive(Debug)]
struct Measured {
    round_trips: Vec<(NodeId, RoundTrips)>,
    prediction: Option<Prediction>,
}

impl Predictions {
    async fn of(&self, api: &ApiState, n: u8) -> Option<Arc<Measured>> {
        if let Some(known) = self.known(n) {
            return Some(known);
        }
        let _turn = SIMULATING.acquire().await.ok()?;
        // Another request may have simulated it meanwhile.
        if let Some(known) = self.known(n) {
            return Some(known);
        }
        let round_trips: Vec<_> = api.round_trips().await.into_iter().collect();
        let simulated = tokio::task::spawn_blocking(move || {
            let peers: Vec<RoundTrips> = round_trips.iter().map(|(_, measured)| measured.clone()).collect();
            let prediction = Prediction::of_measured(usize::from(n), &peers, SEED);
            Arc::new(Measured { round_trips, prediction })
        });
        let measured = simulated.await.ok()?;
        // That nothing was measured may change with the next request, and cost nothing to find.
        if measured.prediction.is_some() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(n, (Instant::now(), measured.clone()));
        }
        Some(measured)
    }

    fn known(&self, n: u8) -> Option<Arc<Measured>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&n).filter(|(at, _)| at.elapsed() < KEPT_FOR).map(|(_, measured)| measured.clone())
    }
}

/// Predict how soon reads see a write, for each R and W
#[utoipa::path(get, path = "/v1/buckets/{bucket}/staleness", tag = "buckets",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("after_ms" = Option<f64>, Query, description = "The time after the acknowledgement, in milliseconds; by default several")
    ),
    responses((status = 200, description = "The predictions", body = StalenessForm), QueryErrors))]
pub(super) async fn staleness(State(api): State<ApiState>, uri: Uri) -> Result<Json<StalenessForm>, ApiError> {
    let bucket = bucket_in(uri.path().strip_suffix("/staleness").unwrap_or_default())?;
    let times_ms = match Query::parse(uri.query(), &["after_ms"])?.after {
        Some(after) => vec![after.as_secs_f64() * 1_000.0],
        None => TIMES_MS.to_vec(),
    };
    let view = api.view();
    let settings = view.settings(&bucket);
    let measured = api.predictions().of(&api, settings.n).await;
    let measured = measured.ok_or_else(|| ApiError::unavailable("the node is stopping: ask another one"))?;
    let (n, r, w) = (settings.n, settings.r, settings.w);
    let form = |prediction: &Prediction, (of_r, of_w): (usize, usize)| PredictionForm {
        r: of_r,
        w: of_w,
        current: (of_r, of_w) == (usize::from(r), usize::from(w)),
        fresh: times_ms
            .iter()
            .map(|&after_ms| FreshForm { after_ms, probability: prediction.probability(of_r, of_w, after_ms) })
            .collect(),
        p99_ms: rounded(prediction.needed_ms(of_r, of_w, 0.99)),
        p999_ms: rounded(prediction.needed_ms(of_r, of_w, 0.999)),
    };
    let all = || (1..=usize::from(n)).flat_map(|r| (1..=usize::from(n)).map(move |w| (r, w)));
    let prediction = measured.prediction.as_ref();
    Ok(Json(StalenessForm {
        node: api.local().name.clone(),
        n,
        r,
        w,
        trials: prediction.map_or(0, Prediction::trials),
        predictions: prediction
            .map(|prediction| all().map(|pair| form(prediction, pair)).collect())
            .unwrap_or_default(),
        peers: measured
            .round_trips
            .iter()
            .map(|(node, measured)| MeasuredForm {
                node: name_of(&view, *node),
                reads: times(&measured.reads),
                writes: times(&measured.writes),
            })
            .collect(),
    }))
}

fn times(latencies: &Latencies) -> TimesForm {
    let quantile = |share| latencies.quantile(share).map(|micros| rounded(micros / 1_000.0));
    TimesForm { count: latencies.total(), p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
}

/// To microseconds.
fn rounded(millis: f64) -> f64 {
    (millis * 1_000.0).round() / 1_000.0
}
