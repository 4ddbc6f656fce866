//! The end of a process that cannot know any more what its disk holds (contract, Always 5).

use std::io::Write;

/// Says loudly what has failed and ends with 1. Never returns, never tries again: the restart trusts
/// only what reads back.
pub(crate) fn end(what: &str, reason: &str) -> ! {
    writeln!(
        std::io::stderr(),
        "headwater: {what} HAS FAILED: {reason}. Nothing more is acknowledged; this process ends now. \
         Check the disk, then start it again: it recovers by itself."
    )
    .ok();
    std::process::exit(1)
}
