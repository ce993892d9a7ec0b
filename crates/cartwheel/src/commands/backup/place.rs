//! Where backups are kept: a directory or a bucket of S3, and the objects there.
//!
//! | object | contents |
//! | --- | --- |
//! | `place` | the head of the place, as JSON |
//! | `backups/ID` | a finished backup |
//! | `objects/XX/ID` | records; XX are the first two digits of the id |
//! | `unfinished/ID/begun`, `unfinished/ID/PARTITION` | a backup under way |

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectStore, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BackupError;
use super::manifest::{BackupObject, BackupPart, BegunBackup, FORMAT, Manifest, PlaceHead};
use super::seal::{self, BackupKey, ObjectKind};
use crate::cli::BackupPlace;

const HEAD: &str = "place";
/// How many small objects are read or removed at the same time.
const CONCURRENCY: usize = 16;

/// A place that is open.
#[derive(Clone)]
pub(super) struct Place {
    store: Arc<dyn ObjectStore>,
    key: Option<BackupKey>,
    /// The directory, if it is one.
    dir: Option<PathBuf>,
}

impl Place {
    /// Opens the place of existing backups.
    pub(super) async fn open(args: &BackupPlace) -> Result<Self, BackupError> {
        if !args.place.contains("://") && !PathBuf::from(&args.place).is_dir() {
            return Err(BackupError::NoPlace(args.place.clone()));
        }
        let place = Self::at(args)?;
        let head = place.head().await?.ok_or_else(|| BackupError::NoPlace(args.place.clone()))?;
        place.check_key(&head)?;
        Ok(place)
    }

    /// Opens a place, which is made if nothing is there.
    pub(super) async fn open_or_make(args: &BackupPlace) -> Result<Self, BackupError> {
        if !args.place.contains("://") {
            fs::create_dir_all(&args.place)
                .map_err(|error| BackupError::Place(args.place.clone(), error.to_string()))?;
        }
        let place = Self::at(args)?;
        match place.head().await? {
            Some(head) => place.check_key(&head)?,
            None => {
                let head = PlaceHead { format: FORMAT, key_check: place.key.as_ref().map(BackupKey::check) };
                place.put(HEAD, serde_json::to_vec(&head).unwrap_or_default().into()).await?;
            }
        }
        Ok(place)
    }

    fn at(args: &BackupPlace) -> Result<Self, BackupError> {
        let key = args.key_file.as_deref().map(BackupKey::read).transpose()?;
        let bad = |why: String| BackupError::Place(args.place.clone(), why);
        if let Some(rest) = args.place.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            let store = store.map_err(|error| bad(error.to_string()))?;
            let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| bad(error.to_string()))?;
            return Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), key, dir: None });
        }
        if args.place.contains("://") {
            return Err(bad("it is neither a directory nor s3://BUCKET/PREFIX".to_owned()));
        }
        let store = LocalFileSystem::new_with_prefix(&args.place).map_err(|error| bad(error.to_string()))?;
        Ok(Self { store: Arc::new(store), key, dir: Some(PathBuf::from(&args.place)) })
    }

    async fn head(&self) -> Result<Option<PlaceHead>, BackupError> {
        let Some(bytes) = self.get(HEAD).await? else { return Ok(None) };
        let head: PlaceHead = serde_json::from_slice(&bytes)
            .map_err(|error| BackupError::Unusable(HEAD.to_owned(), error.to_string()))?;
        if head.format == FORMAT { Ok(Some(head)) } else { Err(newer(HEAD, head.format)) }
    }

    fn check_key(&self, head: &PlaceHead) -> Result<(), BackupError> {
        match (&head.key_check, self.key.as_ref().map(BackupKey::check)) {
            (None, None) => Ok(()),
            (Some(expected), Some(given)) if *expected == given => Ok(()),
            (Some(_), Some(_)) => Err(BackupError::WrongKey),
            (Some(_), None) => Err(BackupError::NeedsKey),
            (None, Some(_)) => Err(BackupError::NotEncrypted),
        }
    }

    /// Stores records as an object.
    pub(super) async fn put_records(&self, payload: &[u8], records: u64) -> Result<BackupObject, BackupError> {
        let object = seal::seal(self.key.as_ref(), ObjectKind::Records, payload)?;
        let id = seal::id_of(&object).map_err(|_| BackupError::Encryption)?;
        let bytes = object.len() as u64;
        self.put(&object_name(&id), object.into()).await?;
        Ok(BackupObject { id, bytes, records })
    }

    /// The payload of an object with records.
    ///
    /// # Errors
    /// If it is missing, or differs from what was stored.
    pub(super) async fn records(&self, object: &BackupObject) -> Result<Vec<u8>, BackupError> {
        let name = object_name(&object.id);
        let bytes = self.get(&name).await?.ok_or_else(|| BackupError::Missing(name.clone()))?;
        let unusable = |why: seal::Unusable| BackupError::Unusable(name.clone(), why.to_string());
        if seal::id_of(&bytes).map_err(unusable)? != object.id {
            return Err(unusable(seal::Unusable::Damaged));
        }
        seal::open(self.key.as_ref(), ObjectKind::Records, &bytes).map_err(unusable)
    }

    async fn put_form<T: Serialize>(&self, name: &str, kind: ObjectKind, form: &T) -> Result<(), BackupError> {
        let payload = serde_json::to_vec(form).unwrap_or_default();
        self.put(name, seal::seal(self.key.as_ref(), kind, &payload)?.into()).await
    }

    async fn form<T: DeserializeOwned>(&self, name: &str, kind: ObjectKind) -> Result<Option<T>, BackupError> {
        let Some(bytes) = self.get(name).await? else { return Ok(None) };
        let unusable = |why: String| BackupError::Unusable(name.to_owned(), why);
        let payload = seal::open(self.key.as_ref(), kind, &bytes).map_err(|why| unusable(why.to_string()))?;
        serde_json::from_slice(&payload).map(Some).map_err(|error| unusable(error.to_string()))
    }

    /// The ids of the finished backups, the oldest first.
    pub(super) async fn backups(&self) -> Result<Vec<String>, BackupError> {
        let mut ids = self.names("backups").await?;
        ids.sort();
        Ok(ids.into_iter().filter_map(|(name, _)| Some(name.strip_prefix("backups/")?.to_owned())).collect())
    }

    /// A finished backup.
    pub(super) async fn backup(&self, id: &str) -> Result<Manifest, BackupError> {
        let name = format!("backups/{id}");
        let manifest: Option<Manifest> = self.form(&name, ObjectKind::Manifest).await?;
        let manifest = manifest.ok_or_else(|| BackupError::NoBackup(id.to_owned()))?;
        if manifest.begun.format != FORMAT {
            return Err(newer(&name, manifest.begun.format));
        }
        if manifest.begun.id != id {
            return Err(BackupError::Unusable(name, format!("it is the backup {}", manifest.begun.id)));
        }
        Ok(manifest)
    }

    /// The backup with this id, or the last one.
    pub(super) async fn chosen(&self, id: Option<&str>) -> Result<Manifest, BackupError> {
        match (id, self.backups().await?.pop()) {
            (Some(id), _) => self.backup(id).await,
            (None, Some(last)) => self.backup(&last).await,
            (None, None) => Err(BackupError::NoBackups),
        }
    }

    /// Records that a backup has begun.
    pub(super) async fn begin(&self, begun: &BegunBackup) -> Result<(), BackupError> {
        self.put_form(&format!("unfinished/{}/begun", begun.id), ObjectKind::Begun, begun).await
    }

    /// The backups under way, the oldest first.
    pub(super) async fn unfinished(&self) -> Result<Vec<BegunBackup>, BackupError> {
        let mut all = Vec::new();
        for (name, _) in self.names("unfinished").await? {
            if name.ends_with("/begun") {
                all.extend(self.form::<BegunBackup>(&name, ObjectKind::Begun).await?);
            }
        }
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }

    /// Records that a partition of a backup under way is finished.
    pub(super) async fn put_part(&self, id: &str, part: &BackupPart) -> Result<(), BackupError> {
        self.put_form(&format!("unfinished/{id}/{:05}", part.partition), ObjectKind::Part, part).await
    }

    /// The finished partitions of a backup under way.
    pub(super) async fn parts(&self, id: &str) -> Result<Vec<BackupPart>, BackupError> {
        let names = self.names(&format!("unfinished/{id}")).await?;
        let names = names.into_iter().map(|(name, _)| name).filter(|name| !name.ends_with("/begun"));
        let read = stream::iter(names).map(async |name| self.form(&name, ObjectKind::Part).await);
        let parts: Vec<Option<BackupPart>> = read.buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Ends a backup: it is there from now on.
    pub(super) async fn finish(&self, manifest: &Manifest) -> Result<(), BackupError> {
        self.sync()?;
        self.put_form(&format!("backups/{}", manifest.begun.id), ObjectKind::Manifest, manifest).await?;
        self.sync()?;
        self.forget(&manifest.begun.id).await
    }

    /// Removes what a backup under way had noted; its objects stay until a prune.
    pub(super) async fn forget(&self, id: &str) -> Result<(), BackupError> {
        let names = self.names(&format!("unfinished/{id}")).await?;
        let (begun, parts): (Vec<_>, Vec<_>) = names.into_iter().partition(|(name, _)| name.ends_with("/begun"));
        // The note that it has begun goes last, so that a removal that is cut off is seen.
        for names in [parts, begun] {
            let removed = stream::iter(names).map(async |(name, _)| self.remove(&name).await);
            removed.buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
        }
        Ok(())
    }

    /// Removes a finished backup; its objects stay.
    pub(super) async fn remove_backup(&self, id: &str) -> Result<(), BackupError> {
        self.remove(&format!("backups/{id}")).await
    }

    /// All objects with records, by id, with their sizes.
    pub(super) async fn objects(&self) -> Result<Vec<(String, u64)>, BackupError> {
        let names = self.names("objects").await?;
        let id = |name: String| name.rsplit_once('/').map(|(_, id)| id.to_owned());
        Ok(names.into_iter().filter_map(|(name, bytes)| Some((id(name)?, bytes))).collect())
    }

    /// Removes an object with records.
    pub(super) async fn remove_object(&self, id: &str) -> Result<(), BackupError> {
        self.remove(&object_name(id)).await
    }

    async fn names(&self, under: &str) -> Result<Vec<(String, u64)>, BackupError> {
        let listed = self.store.list(Some(&Path::from(under))).map_ok(|meta| (meta.location.to_string(), meta.size));
        listed.try_collect().await.map_err(|error| failed("list", under, &error))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, BackupError> {
        let got = match self.store.get(&Path::from(name)).await {
            Ok(got) => got.bytes().await,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        got.map(Some).map_err(|error| failed("read", name, &error))
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), BackupError> {
        let put = self.store.put(&Path::from(name), PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|error| failed("write", name, &error))
    }

    async fn remove(&self, name: &str) -> Result<(), BackupError> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", name, &error)),
        }
    }

    /// Makes durable what a directory holds. S3 does that itself.
    fn sync(&self) -> Result<(), BackupError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let synced = fs::File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
        synced.map_err(|error| BackupError::Place(dir.display().to_string(), error.to_string()))
    }
}

fn object_name(id: &str) -> String {
    format!("objects/{}/{id}", id.get(..2).unwrap_or_default())
}

fn failed(what: &'static str, name: &str, error: &StoreError) -> BackupError {
    BackupError::Store(what, name.to_owned(), error.to_string())
}

fn newer(name: &str, format: u32) -> BackupError {
    BackupError::Unusable(name.to_owned(), format!("a newer build wrote it (format {format})"))
}
