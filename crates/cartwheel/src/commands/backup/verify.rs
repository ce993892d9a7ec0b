//! `cartwheel backup verify`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use bytes::Bytes;
use bytesize::ByteSize;
use cartwheel_core::wire::decode_copies;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use super::BackupError;
use super::manifest::BackupObject;
use super::place::Place;
use crate::cli::BackupVerifyArgs;
use crate::terminal::exit::Exit;
use crate::terminal::output::show;

/// What was verified.
#[derive(Serialize)]
struct BackupVerified {
    backups: Vec<String>,
    objects: usize,
    bytes: u64,
    records: u64,
    problems: Vec<String>,
}

/// Reads every object of one backup, or of all.
pub(super) async fn run(args: &BackupVerifyArgs) -> Result<ExitCode, BackupError> {
    let place = Place::open(&args.place).await?;
    let mut problems = Vec::new();
    let mut manifests = Vec::new();
    if args.all {
        for id in place.backups().await? {
            match place.backup(&id).await {
                Ok(manifest) => manifests.push(manifest),
                Err(error @ (BackupError::Unusable(..) | BackupError::NoBackup(_))) => problems.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
    } else {
        manifests.push(place.chosen(args.backup.as_deref()).await?);
    }
    for manifest in &manifests {
        let missing = manifest.missing();
        if !missing.is_empty() {
            problems.push(format!("backup {} is not complete: partitions {missing:?}", manifest.begun.id));
        }
    }
    let objects: BTreeMap<&str, &BackupObject> = manifests.iter().flat_map(|manifest| manifest.objects()).collect();
    let bar = super::progress(objects.len() as u64, "objects");
    let read = async |object: &BackupObject| (check(&place, object).await, object.bytes, object.records);
    let mut checks = std::pin::pin!(
        stream::iter(objects.values()).map(async |object| read(object).await).buffer_unordered(args.concurrency.into())
    );
    let (mut bytes, mut records) = (0, 0);
    while let Some((checked, its_bytes, its_records)) = checks.next().await {
        bar.inc(1);
        match checked {
            Ok(()) => (bytes, records) = (bytes + its_bytes, records + its_records),
            Err(error @ (BackupError::Unusable(..) | BackupError::Missing(_))) => problems.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    let backups = manifests.iter().map(|manifest| manifest.begun.id.clone()).collect();
    let verified = BackupVerified { backups, objects: objects.len(), bytes, records, problems };
    show(args.format, &verified, |verified, _| verified.text())?;
    Ok(if verified.problems.is_empty() { Exit::Done } else { Exit::Negative }.into())
}

/// Checks an object: its checksum, its tag if it is encrypted, and its records.
async fn check(place: &Place, object: &BackupObject) -> Result<(), BackupError> {
    let payload = place.records(object).await?;
    let unusable = |why: String| BackupError::Unusable(object.id.clone(), why);
    let records = decode_copies(Bytes::from(payload)).map_err(|error| unusable(error.to_string()))?;
    if records.len() as u64 == object.records {
        Ok(())
    } else {
        Err(unusable(format!("it has {} records, not {}", records.len(), object.records)))
    }
}

impl BackupVerified {
    fn text(&self) -> String {
        let mut text: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        let result = if self.problems.is_empty() { "complete and undamaged" } else { "not usable as a whole" };
        text += &format!(
            "{}: {result}; {} objects; {} with {} records read\n",
            self.backups.join(", "),
            self.objects,
            ByteSize(self.bytes),
            self.records
        );
        text
    }
}
