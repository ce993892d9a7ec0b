//! The actions of an administrator: plans and makes changes of the members, and follows their progress.

use std::collections::BTreeMap;
use std::time::Duration;

use cartwheel_client::{Client, MemberChange, MembersPlan, PlannedTransfer, Transfers};
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::node::Node;
use crate::probe;

/// How long a node may take to report its transfers.
const REPORT_WITHIN: Duration = Duration::from_secs(2);
/// The number of records listed by one request.
const PAGE: usize = 256;
/// The number of partitions measured at the same time.
const MEASURED_AT_ONCE: usize = 8;

/// The state of a node at one moment, as it reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    /// The number of the node.
    pub node: usize,
    /// The transfers that it knows of, if it answers.
    pub transfers: Option<Transfers>,
    /// Its metrics, if it answers.
    pub metrics: Option<String>,
}

impl Cluster {
    /// The plan for these changes of the members.
    ///
    /// # Errors
    /// If they are refused, or no node answers.
    pub async fn plan(&self, changes: &[MemberChange]) -> Result<MembersPlan, FaultsError> {
        let (client, changes) = (self.administrator()?, changes.to_vec());
        let request = move || async move { client.plan_members(&changes).await };
        Ok(self.network().inside(self.clients_of(ZONES - 1), request).await??)
    }

    /// Makes changes that were planned on this version of the membership history.
    ///
    /// # Errors
    /// If they are refused, or no node answers.
    pub async fn change(&self, changes: &[MemberChange], planned_on: &str) -> Result<(), FaultsError> {
        let (client, changes, planned_on) = (self.administrator()?, changes.to_vec(), planned_on.to_owned());
        let request = move || async move { client.change_members(&changes, &planned_on).await };
        self.network().inside(self.clients_of(ZONES - 1), request).await??;
        Ok(())
    }

    /// The state of each running member, as it reports it.
    ///
    /// # Errors
    /// If no request can be made.
    pub async fn node_reports(&self) -> Result<Vec<NodeReport>, FaultsError> {
        let running = |(_, node): &(usize, &Node)| node.is_serving() && node.pid().is_some();
        let nodes = self.nodes().iter().enumerate().filter(running);
        let nodes: Vec<(usize, String)> = nodes.map(|(at, node)| (at, node.site.http_addr.clone())).collect();
        let reporting = move || async move {
            let mut reports = JoinSet::new();
            for (node, addr) in nodes {
                let client = Client::new([format!("http://{addr}")])?;
                reports.spawn(async move {
                    let transfers = tokio::time::timeout(REPORT_WITHIN, client.transfers()).await;
                    NodeReport {
                        node,
                        transfers: transfers.ok().and_then(Result::ok),
                        metrics: probe::metrics(&addr).await,
                    }
                });
            }
            Ok::<_, FaultsError>(reports.join_all().await)
        };
        self.network().inside(self.clients_of(ZONES - 1), reporting).await?
    }

    /// The size of the records in all replicas that a plan copies to new homes: the least that the transfers can move.
    ///
    /// # Errors
    /// If a node that holds one of the partitions does not answer.
    pub async fn bytes_to_copy(&self, planned: &[PlannedTransfer]) -> Result<u64, FaultsError> {
        let addrs: BTreeMap<String, String> = self
            .nodes()
            .iter()
            .filter(|node| node.pid().is_some())
            .map(|node| (node.name.clone(), node.endpoint()))
            .collect();
        let task = |transfer: &PlannedTransfer| {
            let copies = transfer.to.iter().filter(|node| !transfer.from.contains(node)).count() as u64;
            let holder = transfer.from.iter().find_map(|node| addrs.get(node).cloned());
            holder.filter(|_| copies > 0).map(|holder| (transfer.partition, copies, holder))
        };
        let mut waiting = planned.iter().filter_map(task).collect::<Vec<_>>().into_iter();
        let measuring = move || async move {
            let (mut bytes, mut measuring) = (0, JoinSet::new());
            loop {
                while measuring.len() < MEASURED_AT_ONCE
                    && let Some((partition, copies, holder)) = waiting.next()
                {
                    measuring.spawn(async move { Ok::<_, FaultsError>(copies * bytes_of(&holder, partition).await?) });
                }
                match measuring.join_next().await {
                    None => return Ok::<u64, FaultsError>(bytes),
                    Some(Ok(measured)) => bytes += measured?,
                    Some(Err(error)) => {
                        return Err(FaultsError::system("measure a partition")(std::io::Error::other(error)));
                    }
                }
            }
        };
        self.network().inside(self.clients_of(ZONES - 1), measuring).await?
    }

    /// A client of all running members.
    fn administrator(&self) -> Result<Client, FaultsError> {
        let running = self.nodes().iter().filter(|node| node.is_serving() && node.pid().is_some());
        Ok(Client::new(running.map(Node::endpoint))?)
    }
}

/// The size of the records that a node holds of a partition as a home.
async fn bytes_of(endpoint: &str, partition: u32) -> Result<u64, FaultsError> {
    let client = Client::new([endpoint])?;
    let (mut bytes, mut from) = (0, None);
    loop {
        let page = client.digests(partition, from.as_deref(), PAGE).await?;
        bytes += page.records.iter().filter(|record| record.home).map(|record| record.bytes).sum::<u64>();
        from = page.next;
        if from.is_none() {
            return Ok(bytes);
        }
    }
}
