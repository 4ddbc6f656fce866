//! The end of a process that cannot know any more what its disk holds (contract, Always 5), or that has
//! lost a thread which others wait for.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

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

/// Starts a thread whose panic aborts the process: those that wait for it would wait for good, and the
/// restart knows everything.
pub(crate) fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // What it was is said by the panic itself.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            std::process::abort()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "HEADWATER_TEST_PANICS";

    #[test]
    fn panic_on_a_thread_that_others_wait_for_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let thread = super::thread("lost", || panic!("a bug")).unwrap();
            thread.join().ok();
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("failure::tests::panic_on_a_thread_that_others_wait_for_ends_the_process")
            .env(CHILD, "")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(6), "SIGABRT: {said}");
        assert!(said.contains("thread 'lost'"), "{said}");
        assert!(said.contains("a bug"), "{said}");
    }
}
