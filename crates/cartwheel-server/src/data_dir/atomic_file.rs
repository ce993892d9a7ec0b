//! Files that are replaced as a whole: after a crash the file has the old or the new contents.
//!
//! A node must be able to replace its files on a full disk: otherwise it could not even start, to serve what it holds. So it keeps a spare
//! file, deletes it when there is no other room, and writes it again afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The spare file.
pub(crate) const SPARE_FILE: &str = "spare";
/// Room for the largest of a node's files, the history of a large cluster.
const SPARE_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Replaces the file `path` with `bytes`, durably. Only the owner may read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    let mut temporary_name = name.to_os_string();
    temporary_name.push(".new");
    let temporary = dir.join(temporary_name);
    let mut written = write(&temporary, bytes);
    let gives_room = written.as_ref().is_err_and(is_full) && fs::remove_file(dir.join(SPARE_FILE)).is_ok();
    if gives_room {
        written = write(&temporary, bytes);
    }
    written?;
    fs::rename(&temporary, path)?;
    if gives_room {
        keep_room(dir);
    }
    super::sync_dir(dir)
}

/// Writes the spare file in `dir`, or as much of it as there is room for.
pub(crate) fn keep_room(dir: &Path) {
    let path = dir.join(SPARE_FILE);
    let held = fs::metadata(&path).map_or(0, |held| held.len() as usize);
    if held >= SPARE_BYTES {
        return;
    }
    // Where there is no room now, there may be the next time.
    let _ = filled(&path, held);
}

fn filled(spare: &Path, held: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(spare)?;
    // Random bytes, so that a file system cannot compress them.
    let (mut random, mut piece) = (fastrand::Rng::new(), vec![0; PIECE_BYTES]);
    for _ in held / PIECE_BYTES..SPARE_BYTES / PIECE_BYTES {
        random.fill(&mut piece);
        file.write_all(&piece)?;
    }
    file.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_spare_file_is_written_again_where_some_of_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let spare = dir.path().join(SPARE_FILE);
        keep_room(dir.path());
        assert_eq!(fs::metadata(&spare).unwrap().len(), SPARE_BYTES as u64);
        File::options().write(true).open(&spare).unwrap().set_len(3 * PIECE_BYTES as u64 + 1).unwrap();
        keep_room(dir.path());
        assert!(fs::metadata(&spare).unwrap().len() >= SPARE_BYTES as u64);
        replace(&dir.path().join("file"), b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"new");
        assert!(spare.exists(), "the spare file is kept while there is other room");
    }
}
