//! Starts `headwater serve` in a folder of its own and ends it again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for anything; a slow machine under load must pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The line that `serve` logs once every door accepts and the ready file is there.
const DOORS: [&str; 8] = ["tcp", "tls", "ws", "wss", "quic", "kafka", "http", "https"];
const READY: &str = "every door is open";

/// Where a program keeps its data and its configuration; outlives its processes.
#[derive(Clone)]
pub(crate) struct Home {
    folder: Arc<TempDir>,
    /// How many files `serve` may have open, where that is less than usual.
    files_max: Option<u32>,
    /// Whether `serve` logs connections.
    verbose: bool,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self {
            folder,
            files_max: None,
            verbose: false,
        }
    }

    /// As [`Self::new`], on a machine that allows so many open files.
    pub(crate) fn with_files(files_max: u32) -> Self {
        let files_max = Some(files_max);
        Self {
            files_max,
            ..Self::new()
        }
    }

    /// As [`Self::new`], with a log of what connections do.
    pub(crate) fn verbose() -> Self {
        Self {
            verbose: true,
            ..Self::new()
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path("headwater.toml"), text).unwrap();
    }

    /// `headwater` with an environment that says nothing.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.env_clear().env("HOME", self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    fn serve(&self, doors: &BTreeMap<String, SocketAddr>, more: &[&str]) -> Command {
        let mut command = self.command();
        if let Some(files_max) = self.files_max {
            let program = std::mem::replace(&mut command, Command::new("/bin/sh"));
            let limited = format!("ulimit -n {files_max} && exec \"$0\" \"$@\"");
            command.arg("-c").arg(limited).arg(program.get_program());
            command.env_clear().env("HOME", self.folder.path());
            command.stdin(Stdio::null());
        }
        if self.verbose {
            command.env("HEADWATER_LOG", "debug");
        }
        command.arg("--data-dir").arg(self.data());
        command.arg("--ready-file").arg(self.path("ready.json"));
        for door in DOORS {
            let free = SocketAddr::from(([127, 0, 0, 1], 0));
            let bind = doors.get(door).unwrap_or(&free);
            command
                .arg("--set")
                .arg(format!("listeners.{door}.bind={bind}"));
        }
        let file = self.path("headwater.toml");
        if file.exists() {
            command.arg("-c").arg(file);
        }
        command.args(more);
        command
    }

    /// Starts the program and waits until it is ready.
    pub(crate) fn start(&self) -> Program {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, more: &[&str]) -> Program {
        self.start_on(&BTreeMap::new(), more)
    }

    /// As [`Self::start_with`], with the doors where they were before.
    pub(crate) fn start_on(&self, doors: &BTreeMap<String, SocketAddr>, more: &[&str]) -> Program {
        let ready = self.path("ready.json");
        std::fs::remove_file(&ready).ok();
        let mut command = self.serve(doors, more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut program = Program {
            child,
            lines,
            said: String::new(),
            doors: BTreeMap::new(),
            home: self.clone(),
        };
        program.wait_for_line(READY);
        program.doors = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        program
    }

    /// `headwater check` of the configuration.
    pub(crate) fn check(&self) -> Answer {
        let mut command = self.command();
        command
            .arg("check")
            .arg("-c")
            .arg(self.path("headwater.toml"));
        Answer::of(&finish(command, &[]))
    }

    /// Runs `serve` that must end by itself: its exit code and what it said.
    pub(crate) fn refused(&self, more: &[&str]) -> (i32, String) {
        let output = finish(self.serve(&BTreeMap::new(), more), &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    }
}

/// A running `headwater serve`; killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    said: String,
    pub(crate) doors: BTreeMap<String, SocketAddr>,
    home: Home,
}

/// What a verb answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Program {
    /// Everything on standard error so far.
    pub(crate) fn said(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            writeln!(self.said, "{line}").unwrap();
        }
        &self.said
    }

    /// Waits until a line with `part` was logged after what is known already.
    pub(crate) fn wait_for_line(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    writeln!(self.said, "{line}").unwrap();
                    if line.contains(part) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("never said {part:?}; it said:\n{}", self.said)
                }
            }
        }
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.doors["tcp"]
    }

    /// Runs a verb against this program: `line` is split at spaces, `|` stands for one in a word.
    pub(crate) fn verb(&self, line: &str) -> Answer {
        let words: Vec<String> = line.split(' ').map(|word| word.replace('|', " ")).collect();
        self.verb_with(&words, b"")
    }

    /// Runs a verb that must end with 0, and gives its output.
    pub(crate) fn done(&self, line: &str) -> String {
        let answer = self.verb(line);
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        answer.out
    }

    pub(crate) fn verb_with<S: AsRef<str>>(&self, words: &[S], input: &[u8]) -> Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.env_clear();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let url = match words.first() {
            Some(&("pub" | "sub" | "bench")) => format!("mqtt://{}", self.doors["tcp"]),
            _ => format!("http://{}", self.doors["http"]),
        };
        command.args(&words);
        if !words.contains(&"--url") {
            command.arg("--url").arg(url);
        }
        command.arg("--data-dir").arg(self.home.data());
        Answer::of(&finish(command, input))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the end of the program", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// SIGTERM: must end with 0 within 10 seconds.
    pub(crate) fn stop(mut self) -> String {
        let begin = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.said());
        assert!(begin.elapsed() < Duration::from_secs(10));
        self.said().to_owned()
    }

    /// kill -9; the doors as they were.
    pub(crate) fn kill(mut self) -> BTreeMap<String, SocketAddr> {
        self.signal(Signal::KILL);
        self.wait();
        std::mem::take(&mut self.doors)
    }

    /// Resident memory in bytes (VmRSS).
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kib.parse::<usize>().unwrap() << 10
    }

    /// One HTTP request by hand: status and body.
    pub(crate) fn http(&self, method: &str, path: &str, key: Option<&str>) -> (u16, String) {
        let (status, _, body) = self.http_whole(method, path, key, "");
        (status, body)
    }

    /// As [`Self::http`], with a body, and the head of the answer.
    pub(crate) fn http_whole(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.doors["http"]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let key = key.map_or(String::new(), |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(self.home.data().join("cli.key")).unwrap()
    }

    /// A sample of the metrics, 0 when there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (status, text) = self.http("GET", "/metrics", None);
        assert_eq!(status, 200);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the program said:\n{}", self.said());
        }
    }
}

impl Answer {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end, which must come.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input has ended its side by now.
    child.stdin.take().unwrap().write_all(input).ok();
    let pid = Pid::from_child(&child);
    let (sender, output) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()).ok());
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            kill_process(pid, Signal::KILL).ok();
            panic!("{command:?} did not end");
        }
    }
}

/// Asks again and again until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The permission bits of a path.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
