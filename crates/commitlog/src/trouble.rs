//! What an error of a file means to the log.
//!
//! For: telling a full disk and a process without file descriptors, which both pass, from what ends
//! the log.
//! Holds: a failed sync ends the log, whatever the system gave as its reason; never is a sync that
//! said ENOSPC taken for a full disk and tried again.

use std::io;

use rustix::io::Errno;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// Nothing was taken that could not be written again once there is space.
    Full,
    /// The process, or the machine, has too many files open: nothing was opened, nothing written.
    Descriptors,
    /// The log must stop.
    Broken,
}

impl Trouble {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ if lacks_descriptors(error) => Self::Descriptors,
            _ => Self::Broken,
        }
    }
}

/// EMFILE or ENFILE.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Makes of a failed sync an error that is [`Trouble::Broken`].
pub(crate) fn sync_failed(error: io::Error) -> io::Error {
    io::Error::other(SyncFailed(error))
}

#[derive(Debug, thiserror::Error)]
#[error("sync failed: {0}")]
struct SyncFailed(io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_never_a_full_disk() {
        for (errno, write, name) in [
            (Errno::NOSPC, Trouble::Full, "ENOSPC"),
            (Errno::DQUOT, Trouble::Full, "EDQUOT"),
            (Errno::IO, Trouble::Broken, "EIO"),
            (Errno::MFILE, Trouble::Descriptors, "EMFILE"),
            (Errno::NFILE, Trouble::Descriptors, "ENFILE"),
        ] {
            assert_eq!(Trouble::of(&io::Error::from(errno)), write, "{name}");
            let synced = sync_failed(io::Error::from(errno));
            assert_eq!(Trouble::of(&synced), Trouble::Broken, "sync: {name}");
        }
    }
}
