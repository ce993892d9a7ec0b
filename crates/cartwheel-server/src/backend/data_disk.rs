//! The free space on the disk of a node's data directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::shard::reserve::{Space, space_of};

/// How long the file system may take to answer. One that hangs must not hold up the calls that explain why.
const WITHIN: Duration = Duration::from_millis(500);

/// The disk of a node's data directory.
#[derive(Clone, Debug)]
pub struct DataDisk {
    dir: PathBuf,
    reserve_bytes: u64,
    /// One thread at most waits for a file system that hangs.
    asking: Arc<Semaphore>,
}

impl DataDisk {
    /// The disk of `dir`, of which `reserve_bytes` are to be kept free.
    pub fn new(dir: PathBuf, reserve_bytes: u64) -> Self {
        Self { dir, reserve_bytes, asking: Arc::new(Semaphore::new(1)) }
    }

    /// Its space now; none if the file system does not say.
    pub async fn space(&self) -> Option<Space> {
        let (turn, dir) = (self.asking.clone().acquire_owned(), self.dir.clone());
        let asked = async {
            let turn = turn.await.ok()?;
            let asked = tokio::task::spawn_blocking(move || {
                let space = space_of(&dir);
                drop(turn);
                space
            });
            asked.await.ok()?.ok()
        };
        tokio::time::timeout(WITHIN, asked).await.ok()?
    }

    /// How much of a disk of this size is kept free: below that, the node stores no writes.
    pub fn reserve_bytes(&self, space: &Space) -> u64 {
        self.reserve_bytes.min(space.total / 10)
    }
}
