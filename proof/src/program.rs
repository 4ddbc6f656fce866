//! The program under test: started, killed and started again on the same ports, over the same files.
//!
//! For: Headwater, and mosquitto for the row beside it. Not for: looking into either; `kafka` and `documents` read.
//! Holds: no process outlives its [`Program`]: dropping it kills the process it started, by its own id.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// From start to ready, recovery included.
const READY_WAIT: Duration = Duration::from_secs(60);

/// What is under test.
#[derive(Clone, Debug)]
pub enum Kind {
    Headwater {
        binary: PathBuf,
    },
    Mosquitto {
        binary: PathBuf,
        autosave_on_changes: bool,
    },
}

/// How to run it. Ports are chosen once, so that each restart must take them again.
#[derive(Clone, Debug)]
pub struct Setup {
    pub kind: Kind,
    /// Everything of this program: data directory, configuration, standard error.
    pub folder: PathBuf,
    pub mqtt: SocketAddr,
    pub kafka: SocketAddr,
    pub http: SocketAddr,
    /// The data directory, when it does not lie in `folder`.
    pub data: Option<PathBuf>,
    /// `--set` options for Headwater.
    pub settings: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A command that runs the program, for instance strace with its options.
    pub wrapper: Vec<String>,
}

impl Setup {
    pub fn new(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        // All three are held open at once, so that they differ.
        let listeners = [free_port()?, free_port()?, free_port()?];
        let [mqtt, kafka, http] = [
            listeners[0].local_addr()?,
            listeners[1].local_addr()?,
            listeners[2].local_addr()?,
        ];
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            kind,
            folder: folder.to_owned(),
            mqtt,
            kafka,
            http,
            data: None,
            settings: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        })
    }

    pub fn data_dir(&self) -> PathBuf {
        self.data
            .clone()
            .unwrap_or_else(|| self.folder.join("data"))
    }

    pub fn has_log(&self) -> bool {
        matches!(self.kind, Kind::Headwater { .. })
    }

    pub fn stderr_path(&self) -> PathBuf {
        self.folder.join("stderr.log")
    }

    fn ready_path(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    fn command_line(&self) -> anyhow::Result<Vec<String>> {
        let mut words = self.wrapper.clone();
        match &self.kind {
            Kind::Headwater { binary } => {
                words.push(binary.display().to_string());
                words.extend([
                    "--data-dir".to_owned(),
                    self.data_dir().display().to_string(),
                ]);
                words.extend([
                    "--ready-file".to_owned(),
                    self.ready_path().display().to_string(),
                ]);
                for (listener, address) in [
                    ("tcp", self.mqtt),
                    ("kafka", self.kafka),
                    ("http", self.http),
                ] {
                    words.extend([
                        "--set".to_owned(),
                        format!("listeners.{listener}.bind=\"{address}\""),
                    ]);
                }
                // Its usual ports may be somebody else's.
                for listener in ["tls", "ws", "wss", "quic", "https"] {
                    words.push("--set".to_owned());
                    words.push(format!("listeners.{listener}.enabled=false"));
                }
                for setting in &self.settings {
                    words.extend(["--set".to_owned(), setting.clone()]);
                }
            }
            Kind::Mosquitto {
                binary,
                autosave_on_changes,
            } => {
                std::fs::create_dir_all(self.data_dir())?;
                let configuration = self.folder.join("mosquitto.conf");
                let mut text = format!(
                    "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nuser root\n\
                     max_queued_messages 0\n",
                    self.mqtt.port(),
                    self.data_dir().display(),
                );
                if *autosave_on_changes {
                    text.push_str("autosave_on_changes true\nautosave_interval 1\n");
                }
                std::fs::write(&configuration, text)?;
                words.push(binary.display().to_string());
                words.extend(["-c".to_owned(), configuration.display().to_string()]);
            }
        }
        Ok(words)
    }

    /// Starts it without waiting; see [`Program::wait_until_ready`].
    pub fn spawn(&self) -> anyhow::Result<Program> {
        if self.ready_path().exists() {
            std::fs::remove_file(self.ready_path())?;
        }
        let words = self.command_line()?;
        let (binary, arguments) = words.split_first().context("an empty command")?;
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.stderr_path())?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(File::create(self.folder.join("stdout.log"))?)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("starting {binary}"))?;
        Ok(Program {
            setup: self.clone(),
            child,
            begun: Instant::now(),
            wrapped: !self.wrapper.is_empty(),
        })
    }

    /// The same program under a wrapper.
    pub fn wrapped_in(&self, wrapper: Vec<String>) -> Self {
        Self {
            wrapper,
            ..self.clone()
        }
    }

    pub fn start(&self) -> anyhow::Result<Program> {
        let mut program = self.spawn()?;
        program.wait_until_ready()?;
        Ok(program)
    }
}

pub(crate) fn free_port() -> anyhow::Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

#[derive(Debug)]
pub struct Program {
    setup: Setup,
    child: Child,
    begun: Instant,
    wrapped: bool,
}

impl Program {
    /// Time from start to ready; an error when it ended before.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<Duration> {
        match self.wait_until_ready_or_ended()? {
            Some(took) => Ok(took),
            None => bail!("it ended before it was ready; {}", self.last_words()),
        }
    }

    /// Time from start to ready, or `None` when it ended before.
    pub fn wait_until_ready_or_ended(&mut self) -> anyhow::Result<Option<Duration>> {
        while !self.is_ready() {
            if self.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if self.begun.elapsed() > READY_WAIT {
                bail!("not ready after {READY_WAIT:?}; {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Some(self.begun.elapsed()))
    }

    fn is_ready(&self) -> bool {
        match self.setup.kind {
            Kind::Headwater { .. } => self.setup.ready_path().exists(),
            Kind::Mosquitto { .. } => {
                TcpStream::connect_timeout(&self.setup.mqtt, Duration::from_millis(100)).is_ok()
            }
        }
    }

    /// Its whole standard error, of all starts.
    pub fn everything_said(&self) -> anyhow::Result<String> {
        let text = std::fs::read(self.setup.stderr_path())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The end of its standard error, for a person.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(self.setup.stderr_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().rev().take(12).collect();
        lines.reverse();
        format!("its last words:\n{}", lines.join("\n"))
    }

    /// Under a wrapper the program is the wrapper's child.
    fn pid(&self) -> anyhow::Result<Pid> {
        let own = self.child.id();
        let id = if self.wrapped {
            let path = format!("/proc/{own}/task/{own}/children");
            let children = std::fs::read_to_string(&path).with_context(|| path)?;
            let first = children
                .split_whitespace()
                .next()
                .context("the wrapper has no child")?;
            first.parse()?
        } else {
            i32::try_from(own)?
        };
        Pid::from_raw(id).context("process id 0")
    }

    /// Its resident memory, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most it ever was, in bytes.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    /// Its process id, for tools that ask the system about it.
    pub fn id(&self) -> anyhow::Result<String> {
        Ok(self.pid()?.as_raw_nonzero().to_string())
    }

    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?.as_raw_nonzero());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.context(path)?.parse()?;
        Ok(kilobytes << 10)
    }

    /// kill -9, and the end of the process awaited.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            // It may end by itself between the look and the signal; then there is nobody to kill.
            if let Ok(pid) = self.pid() {
                kill_process(pid, Signal::KILL).ok();
            }
        }
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; it must end with 0 within ten seconds.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.terminate()? {
            status if status.success() => Ok(()),
            status => bail!(
                "after SIGTERM it ended with {status}; {}",
                self.last_words()
            ),
        }
    }

    /// SIGTERM, and how it ended within the time it has for that.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        // It may end by itself between the look and the signal.
        if let Ok(pid) = self.pid() {
            kill_process(pid, Signal::TERM).ok();
        }
        // A wrapper makes it slower.
        let at_most = Duration::from_secs(if self.wrapped { 60 } else { 10 });
        match self.wait(at_most)? {
            Some(status) => Ok(status),
            None => bail!(
                "{at_most:?} after SIGTERM it still runs; {}",
                self.last_words()
            ),
        }
    }

    /// Waits for its end; `None` when it has not come by then.
    pub fn wait(&mut self, at_most: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.kill());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
