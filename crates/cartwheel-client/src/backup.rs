//! Copies of partitions, and their restore.

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;

use crate::call::Call;
use crate::{Client, Error, Options, Value};

/// The media type of encoded records.
const RECORDS: &str = "application/vnd.cartwheel.records";

/// What a synced home holds of a partition, as sums: equal sums mean equal contents.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PartitionSums {
    /// The name of the node that answered.
    pub node: String,
    /// The id of its cluster, in hexadecimal.
    pub cluster: String,
    /// The number of partitions of the cluster.
    pub partitions: u32,
    /// The keys of the partition, tombstones included.
    pub keys: u64,
    /// The bytes of these keys and their values.
    pub bytes: u64,
    /// The deepest level with sums. Level l divides the partition into 16^l ranges.
    pub depth: u8,
    /// The level of `ranges`: the one asked for, or `depth` if that is less.
    pub level: u8,
    /// The ranges that hold keys, in order.
    pub ranges: Vec<RangeSum>,
}

/// The sum over one range of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct RangeSum {
    /// The index of the range in its level.
    pub range: u32,
    /// The first storage key, as base64url.
    pub from: String,
    /// The storage key before which it ends, as base64url; `None` at the end of the ring.
    #[serde(default)]
    pub until: Option<String>,
    /// The sum of its records' digests modulo 2^128, in hexadecimal.
    pub sum: String,
    /// The number of its keys.
    pub keys: u64,
}

/// A page of encoded records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordsPage {
    /// The records, as the chapter Backup of the documentation describes them.
    pub records: Bytes,
    /// Where the next page begins; `None` on the last page.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Restored {
    restored: u64,
}

impl Client {
    /// The sums over a partition on the answering node, at a level from 0 to 3. Use a client with one endpoint: another node may hold other contents.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node cannot copy the partition now, because it is no synced home of all its keys, for example.
    pub async fn partition_sums(&self, partition: u32, level: u8) -> Result<PartitionSums, Error> {
        self.fetch(format!("/v1/backup/partitions/{partition}?level={level}")).await
    }

    /// A page of the records that the answering node holds of a partition as a home, from `from` to before `until` ([`RangeSum::from`],
    /// [`RecordsPage::next`]). Use a client with one endpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node cannot copy these records now.
    pub async fn partition_records(
        &self,
        partition: u32,
        from: &str,
        until: Option<&str>,
    ) -> Result<RecordsPage, Error> {
        let until = until.map_or_else(String::new, |until| format!("&until={until}"));
        let path = format!("/v1/backup/partitions/{partition}/records?from={from}{until}");
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let response = self.execute(&Call::new(Method::GET, path, &options), None).await?;
        let next = response.header("cartwheel-next").map(str::to_owned);
        Ok(RecordsPage { records: response.body, next })
    }

    /// Merges encoded records of a backup of `cluster` into their replicas, and returns their number. To do so twice is harmless.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a key could not be stored: some of the others are. [`Error::Refused`] if these are not such records.
    pub async fn restore_records(&self, cluster: &str, records: Bytes) -> Result<u64, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let value = Some(Value::new(records, RECORDS));
        let query = Some(format!("&cluster={cluster}"));
        let call = Call { value, query, ..Call::new(Method::POST, "/v1/backup/records".to_owned(), &options) };
        let response = self.execute(&call, None).await?;
        let restored: Restored = serde_json::from_slice(&response.body)
            .map_err(|error| Error::UnexpectedResponse(format!("an unreadable body ({error})")))?;
        Ok(restored.restored)
    }
}
