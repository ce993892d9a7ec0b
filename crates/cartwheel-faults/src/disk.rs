//! A small disk, so that a scenario can fill it without harm to the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::FaultsError;

/// A file system in memory. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk of `mib` MiB on a directory and moves the directory's content to it. Nothing may use the directory meanwhile.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn mount_on(dir: &Path, mib: u32) -> Result<Self, FaultsError> {
        let failed = || FaultsError::system(format!("mount a small disk on {}", dir.display()));
        let aside = dir.with_extension("aside");
        fs::rename(dir, &aside).map_err(failed())?;
        fs::create_dir(dir).map_err(failed())?;
        let size = std::ffi::CString::new(format!("size={mib}m")).unwrap_or_default();
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), size.as_c_str()).map_err(io::Error::from).map_err(failed())?;
        let disk = Self(dir.to_path_buf());
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(aside.join(".")).arg(dir).output();
        let copied = copied.map_err(failed())?;
        if !copied.status.success() {
            return Err(failed()(io::Error::other(String::from_utf8_lossy(&copied.stderr).into_owned())));
        }
        fs::remove_dir_all(&aside).map_err(failed())?;
        Ok(disk)
    }

    /// Fills the disk to the last byte.
    ///
    /// # Errors
    /// If it fails for another reason than a full disk.
    pub fn fill(&self) -> Result<(), FaultsError> {
        let failed = || FaultsError::system(format!("fill {}", self.0.display()));
        let ballast = fs::File::options().create(true).append(true).open(self.ballast()).map_err(failed())?;
        loop {
            let disk = statvfs(&self.0).map_err(io::Error::from).map_err(failed())?;
            let (free, filled) = (disk.f_bavail * disk.f_frsize, ballast.metadata().map_err(failed())?.len());
            if free == 0 {
                return Ok(());
            }
            match fallocate(&ballast, FallocateFlags::empty(), filled, free) {
                // The node may take the last page meanwhile.
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(failed()(error.into())),
            }
        }
    }

    /// Removes what [`Self::fill`] wrote.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn free(&self) -> Result<(), FaultsError> {
        fs::remove_file(self.ballast()).map_err(FaultsError::system(format!("free space on {}", self.0.display())))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Processes with open files on it keep it until they end.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
