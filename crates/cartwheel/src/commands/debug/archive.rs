//! A tar archive (ustar, POSIX.1-1988), compressed by gzip.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;
/// How long a name may be in the header's main field.
const NAME_BYTES_MAX: usize = 100;

/// An archive that is being written.
pub(super) struct Archive {
    file: GzEncoder<File>,
    /// The time of all files, in seconds since 1970.
    made: u64,
}

impl Archive {
    /// Creates the file, which only its owner may read.
    pub(super) fn create(path: &Path, made: u64) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file: GzEncoder::new(file, Compression::default()), made })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(&header(path, bytes.len(), self.made)?)?;
        self.file.write_all(bytes)?;
        self.file.write_all(&[0; BLOCK][..bytes.len().next_multiple_of(BLOCK) - bytes.len()])
    }

    /// Ends the archive, and waits until it is on the disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&[0; 2 * BLOCK])?;
        self.file.finish()?.sync_all()
    }
}

fn header(path: &str, length: usize, made: u64) -> io::Result<[u8; BLOCK]> {
    let (folder, name) =
        if path.len() > NAME_BYTES_MAX { path.rsplit_once('/').unwrap_or(("", path)) } else { ("", path) };
    let too_long =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("the name {path} is too long for an archive"));
    let mut header = [0; BLOCK];
    let mut put = |from: usize, room: usize, text: &[u8]| -> io::Result<()> {
        header
            .get_mut(from..from + text.len())
            .filter(|_| text.len() <= room)
            .ok_or_else(too_long)?
            .copy_from_slice(text);
        Ok(())
    };
    put(0, NAME_BYTES_MAX, name.as_bytes())?;
    put(100, 8, b"0000600\0")?;
    put(108, 8, b"0000000\0")?;
    put(116, 8, b"0000000\0")?;
    put(124, 12, format!("{length:011o}\0").as_bytes())?;
    put(136, 12, format!("{made:011o}\0").as_bytes())?;
    // The checksum counts as spaces while it is computed.
    put(148, 8, b"        ")?;
    put(156, 1, b"0")?;
    put(257, 8, b"ustar\x0000")?;
    put(345, 155, folder.as_bytes())?;
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let mut archive = Archive::create(&path, 1_700_000_000).unwrap();
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(70));
        let files = [("a/empty", Vec::new()), ("a/block", vec![7; BLOCK]), (&long, b"text".repeat(1_000))];
        for (path, bytes) in &files {
            archive.add(path, bytes).unwrap();
        }
        archive.finish().unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(File::open(&path).unwrap()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain.len() % BLOCK, 0);
        assert!(header(&"n".repeat(101), 1, 0).is_err());
        let status = Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(dir.path()).status();
        // Where there is no tar, the form was checked.
        if status.is_ok_and(|status| status.success()) {
            for (path, bytes) in files {
                assert_eq!(std::fs::read(dir.path().join(path)).unwrap(), bytes);
            }
        }
    }
}
