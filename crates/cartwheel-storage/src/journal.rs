//! Repair of the engine's journals after a failed sync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The file name extension of the engine's journals.
const EXTENSION: &str = "jnl";

/// The size of one read and write. It is small compared with a journal, so that the unused end of a journal stays unallocated.
const CHUNK_BYTES: usize = 64 << 10;

/// Rewrites the journals in `dir` in place with the same content, and syncs them.
///
/// After a failed sync, the operating system may hold pages in memory that it considers clean although they are not on the disk. A recovery
/// would read them, later syncs would succeed, and yet a power failure would lose them and all that was journaled after them. Rewriting makes
/// them dirty again, so that the next sync really writes them.
///
/// # Errors
/// If the disk still fails. The call changes nothing for the worse, and can be repeated.
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
        // A journal is allocated larger than its content, and the zeros at its end take no space.
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
    fn rewriting_changes_no_byte() {
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
