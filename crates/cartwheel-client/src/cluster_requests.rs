//! Requests about the cluster, its members and its buckets.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::http;
use crate::{
    BucketChange, BucketSettings, Buckets, Client, ClusterStatus, DigestPage, Error, Location, MemberChange,
    MembersPlan, Options, Replicas, Ring, Transfers, Value,
};

impl Client {
    /// The members of the cluster, and the answering node's view of each.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn cluster(&self) -> Result<ClusterStatus, Error> {
        self.fetch("/v1/cluster".to_owned()).await
    }

    /// Checks that a node is ready for requests. Of several endpoints, one that is ready is enough.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if none is ready; it says why not.
    pub async fn ready(&self) -> Result<(), Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        self.execute(&Call::new(Method::GET, "/readyz".to_owned(), &options), None).await.map(drop)
    }

    /// Reads the cluster's members and adds their addresses to the endpoints. From then on the client reaches the cluster even if all
    /// endpoints that it was made with are gone.
    ///
    /// Requests on keys need no call of it: they go by the ring, which names the members.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn learn_members(&self) -> Result<(), Error> {
        let members = self.cluster().await?.members;
        let found = members.iter().filter_map(|status| self.http.endpoint(&status.member.http));
        self.add_endpoints(found);
        Ok(())
    }

    /// When the answering node's replicas were last proven equal to those of the other homes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn replicas(&self) -> Result<Replicas, Error> {
        self.fetch("/v1/cluster/replicas".to_owned()).await
    }

    /// The placement of the partitions on the members.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn ring(&self) -> Result<Ring, Error> {
        self.fetch(http::RING_PATH.to_owned()).await
    }

    /// Lists the records of a partition on the answering node's disk: at most `limit`, from `from` on ([`DigestPage::next`] or a
    /// [`HeldRecord::storage_key`](crate::HeldRecord::storage_key)), or from the first. Use a client with one endpoint: with several, pages may come from
    /// different nodes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node could not answer.
    pub async fn digests(&self, partition: u32, from: Option<&str>, limit: usize) -> Result<DigestPage, Error> {
        let from = from.map_or_else(String::new, |from| format!("&from={from}"));
        self.fetch(format!("/v1/cluster/partitions/{partition}/digests?limit={limit}{from}")).await
    }

    /// The partition and the preference list of a key, whether or not it has a value.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name or the key is empty or too long, [`Error::Unavailable`] if no node could answer.
    pub async fn locate(&self, bucket: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Location, Error> {
        self.fetch(http::locate_path(bucket.as_ref(), key.as_ref())).await
    }

    /// The settings of a bucket. A bucket without keys or settings of its own has the defaults.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name is empty or too long, [`Error::Unavailable`] if no node could answer.
    pub async fn bucket(&self, bucket: impl AsRef<[u8]>) -> Result<BucketSettings, Error> {
        self.fetch(http::bucket_path(bucket.as_ref())).await
    }

    /// Changes some of a bucket's settings and returns all of them.
    ///
    /// # Errors
    /// [`Error::Refused`] if a setting is out of its bounds, [`Error::Unavailable`] if the change could not be saved: then it may still take effect.
    pub async fn set_bucket(&self, bucket: impl AsRef<[u8]>, change: &BucketChange) -> Result<BucketSettings, Error> {
        let bytes = serde_json::to_vec(change).unwrap_or_default();
        let value = Some(Value::new(bytes, "application/json"));
        self.fetch_with(Method::PUT, http::bucket_path(bucket.as_ref()), value).await
    }

    /// The plan for these changes of the members. Nothing is changed.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// use cartwheel_client::MemberChange;
    ///
    /// let changes = [MemberChange::Add { node: "node-4".to_owned(), weight: None }];
    /// let plan = client.plan_members(&changes).await?;
    /// println!("{} partitions move", plan.transfers.len());
    /// // Refused if another administrator has changed the cluster since the plan was made.
    /// client.change_members(&changes, &plan.version).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] if a change cannot be made (an unknown node, say), [`Error::Unavailable`] if no node could answer.
    pub async fn plan_members(&self, changes: &[MemberChange]) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes })).await
    }

    /// Makes changes that were planned on the version `planned_on` ([`MembersPlan::version`]). The data is transferred in the background: see
    /// [`Self::transfers`].
    ///
    /// # Errors
    /// [`Error::Refused`] if a change cannot be made, or the cluster has changed since `planned_on`. [`Error::Unavailable`] if the changes could
    /// not be saved: then they may still take effect.
    pub async fn change_members(&self, changes: &[MemberChange], planned_on: &str) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes, "planned_on": planned_on, "apply": true })).await
    }

    async fn members(&self, body: serde_json::Value) -> Result<MembersPlan, Error> {
        let bytes = body.to_string();
        let value = Some(Value::new(bytes, "application/json"));
        self.fetch_with(Method::POST, "/v1/cluster/members".to_owned(), value).await
    }

    /// The partitions that are being transferred to their target homes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn transfers(&self) -> Result<Transfers, Error> {
        self.fetch("/v1/cluster/transfers".to_owned()).await
    }

    /// The buckets with settings of their own, and the defaults of all others.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn buckets(&self) -> Result<Buckets, Error> {
        self.fetch("/v1/buckets".to_owned()).await
    }

    /// The metrics of the answering node, as the text that Prometheus reads. Use a client with one endpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn metrics(&self) -> Result<String, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let response = self.execute(&Call::new(Method::GET, "/metrics".to_owned(), &options), None).await?;
        String::from_utf8(response.body.into())
            .map_err(|error| Error::UnexpectedResponse(format!("metrics that are not text ({error})")))
    }

    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.fetch_with(Method::GET, path, None).await
    }

    pub(crate) async fn fetch_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        value: Option<Value>,
    ) -> Result<T, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let call = Call { value, ..Call::new(method, path, &options) };
        let response = self.execute(&call, None).await?;
        serde_json::from_slice(&response.body)
            .map_err(|error| Error::UnexpectedResponse(format!("an unreadable body ({error})")))
    }

    /// The body of a response to a GET; `None` for a 404 of the API.
    pub(crate) async fn fetch_raw(&self, path: String) -> Result<Option<Bytes>, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let response = self.execute(&Call::new(Method::GET, path, &options), None).await?;
        Ok((response.status != StatusCode::NOT_FOUND).then_some(response.body))
    }

    /// Sends a change that has no body.
    pub(crate) async fn send_delete(&self, path: String) -> Result<(), Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        self.execute(&Call::new(Method::DELETE, path, &options), None).await.map(drop)
    }
}
