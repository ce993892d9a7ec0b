//! What a failed sync leaves behind in an engine's journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The engine's journals end so.
const EXTENSION: &str = "jnl";

/// How much is read and written at a time: a small part of a journal, whose unwritten rest is not to be filled up.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the journals in `dir` once more, in place, and syncs them.
///
/// After a sync has failed, the system may hold pages in memory that it calls clean though they are not on the disk. A recovery
/// would read them, and later syncs would succeed, and still a power failure would take them away, with all that was journaled
/// after them. Written again, they are dirty again, and the next sync is an honest one.
///
/// # Errors
/// If the disk still fails. Nothing is worse than before.
pub(crate) fn write_again(dir: &Path) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            write_file_again(&OpenOptions::new().read(true).write(true).open(path)?)?;
        }
    }
    Ok(())
}

fn write_file_again(file: &File) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let len = file.read_at(&mut chunk, offset)?;
        if len == 0 {
            return file.sync_all();
        }
        // A journal is made larger than it is, and that part takes up no room.
        if chunk[..len].iter().any(|&byte| byte != 0) {
            file.write_all_at(&chunk[..len], offset)?;
        }
        offset += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_no_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = vec![7; CHUNK_BYTES + 5];
        content.resize(4 * CHUNK_BYTES, 0);
        content.push(9);
        let (journal, other) = (dir.path().join("0.jnl"), dir.path().join("other"));
        std::fs::write(&journal, &content).unwrap();
        std::fs::write(&other, b"other").unwrap();
        write_again(dir.path()).unwrap();
        assert_eq!(std::fs::read(&journal).unwrap(), content);
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
        assert!(write_again(&dir.path().join("none")).is_err());
    }
}
