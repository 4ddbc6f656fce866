//! Certificates of the doors that carry TLS: read at start, watched, and swapped under new handshakes.
//!
//! For: one `rustls` configuration a listener, made of its files or of the development certificate,
//!   and made again when the files change; saying in time that a certificate ends.
//! Not for: handshakes (`mqtt::handshake`), which listener is there (`serve`).
//! Calls: `files`, `development`, `validity`. Called by: `serve`, `verbs::check`, the metrics.
//! Holds: what does not load never replaces what works. A handshake sees one configuration, whole; a
//!   connection that stands never sees another. A session ticket ends with the configuration that
//!   gave it; a listener that verifies clients gives none, so that each handshake verifies them.

mod development;
mod files;
mod validity;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, Listener};
use files::{Files, Stamps};

pub(crate) use development::DevelopmentError;
pub(crate) use files::FileError;

/// How often the files' times are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Days before its end at which a certificate is warned of.
const WARNED_AT_DAYS: [i64; 3] = [1, 7, 30];
const DAY_S: i64 = 86_400;
/// Tries to make the development certificate anew.
const RENEW_EVERY_S: i64 = 3_600;

/// Why a listener has no certificate to start with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("listeners.{listener}.{}: {source}", source.key())]
    Files {
        listener: &'static str,
        source: FileError,
    },
    #[error("the development certificate cannot be made: {0}")]
    Development(#[from] DevelopmentError),
}

/// All listeners' certificates.
pub(crate) struct Certificates {
    kept: Vec<Kept>,
    /// DIR/tls, where a listener uses the development certificate.
    development: Option<PathBuf>,
    /// When it was tried last to make that anew, in seconds since 1970.
    renewed_s: AtomicI64,
}

/// One listener's.
struct Kept {
    listener: &'static str,
    files: Files,
    current: watch::Sender<Arc<ServerConfig>>,
    state: Mutex<State>,
    /// When the first certificate of the chain ends, in seconds since 1970.
    expires_s: AtomicI64,
    /// Whether the files were good when they were read last.
    good: AtomicBool,
}

struct State {
    /// As of the last look.
    seen: Stamps,
    /// As of the last time they were read.
    read: Stamps,
    /// The last warning, in days before the end.
    warned_at_days: Option<i64>,
    /// A revocation list that has ended was said.
    said_outdated: bool,
    crls_until_s: Option<i64>,
}

/// What a listener's clients offer where they offer a protocol at all. Others are refused: what
/// speaks HTTP to a door of MQTT was led astray. Over TCP, where most servers do not look, clients
/// have more names for MQTT than the registered one: their own, or what AWS wants on its port 443.
fn protocols(listener: &str) -> &'static [&'static [u8]] {
    match listener {
        "wss" | "https" => &[b"http/1.1"],
        "tls" => &[
            b"mqtt",
            b"mqttv5",
            b"mqttv3.1.1",
            b"mqttv3.1",
            b"x-amzn-mqtt-ca",
        ],
        _ => &[b"mqtt"],
    }
}

impl Certificates {
    /// Reads the certificates of all `listeners`, and makes a development certificate in DIR/tls where
    /// one names none.
    pub(crate) fn load(
        config: &Config,
        dir: &Path,
        listeners: &[&'static str],
    ) -> Result<Self, TlsError> {
        let own = dir.join("tls");
        let (mut kept, mut development) = (Vec::new(), None);
        for (name, _, listener) in config.listeners.all() {
            if !carries_tls(name) || !listener.enabled || !listeners.contains(&name) {
                continue;
            }
            let files = match Files::of(listener) {
                Some(files) => files,
                None => {
                    if development.is_none() {
                        development::ensure(&own)?;
                        development = Some(own.clone());
                    }
                    Files {
                        certificate: development::certificate(&own),
                        key: development::key(&own),
                        ..Files::of_clients(listener)
                    }
                }
            };
            kept.push(Kept::load(name, files)?);
        }
        Ok(Self {
            kept,
            development,
            renewed_s: AtomicI64::new(i64::MIN),
        })
    }

    /// What new handshakes of `listener` take; `None` where it carries no TLS.
    pub(crate) fn of(&self, listener: &str) -> Option<watch::Receiver<Arc<ServerConfig>>> {
        let kept = self.kept.iter().find(|kept| kept.listener == listener)?;
        Some(kept.current.subscribe())
    }

    /// The file with the development CA, where a listener uses it.
    pub(crate) fn development_ca(&self) -> Option<PathBuf> {
        self.development.as_deref().map(development::ca)
    }

    /// Reads all files again; whether all were good.
    pub(crate) fn reload(&self, now_s: i64) -> bool {
        let mut good = true;
        for kept in &self.kept {
            kept.reload();
            kept.warn(now_s);
            good &= kept.good.load(Ordering::Relaxed);
        }
        good
    }

    /// Reads files again that have changed, and warns of what ends soon.
    pub(crate) fn look(&self, now_s: i64) {
        for kept in &self.kept {
            kept.look();
        }
        for kept in &self.kept {
            kept.warn(now_s);
        }
        if let Some(own) = &self.development {
            self.renew(own, now_s);
        }
    }

    /// Makes the development certificate in `own` anew when it ends soon, and tries again where that
    /// fails.
    fn renew(&self, own: &Path, now_s: i64) {
        let own_kept = (self.kept.iter()).filter(|kept| kept.files.certificate.starts_with(own));
        let ends_s = own_kept.map(|kept| kept.expires_s.load(Ordering::Relaxed));
        let until_s = now_s.saturating_add_unsigned(development::LEFT.as_secs());
        let tried_s = self.renewed_s.load(Ordering::Relaxed);
        if ends_s.min().is_none_or(|ends_s| ends_s >= until_s)
            || (0..RENEW_EVERY_S).contains(&now_s.saturating_sub(tried_s))
        {
            return;
        }
        self.renewed_s.store(now_s, Ordering::Relaxed);
        if let Err(error) = development::ensure(own) {
            error!(%error, "the development certificate could not be made anew");
        }
    }

    /// Listener, end in seconds since 1970, whether the files were good when last read.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, i64, bool)> {
        self.kept.iter().map(|kept| {
            let expires_s = kept.expires_s.load(Ordering::Relaxed);
            (kept.listener, expires_s, kept.good.load(Ordering::Relaxed))
        })
    }
}

/// Whether connections of this listener are encrypted.
pub(crate) fn carries_tls(listener: &str) -> bool {
    matches!(listener, "tls" | "wss" | "quic" | "https")
}

/// What is wrong with the files that a configuration names: key and sentence.
pub(crate) fn problems(config: &Config) -> Vec<(String, String)> {
    let listeners = config.listeners.all().into_iter();
    let used = listeners.filter(|(name, _, one)| carries_tls(name) && one.enabled);
    used.filter_map(|(name, _, listener)| {
        let error = files::check(listener).err()?;
        Some((
            format!("listeners.{name}.{}", error.key()),
            error.to_string(),
        ))
    })
    .collect()
}

impl Kept {
    fn load(listener: &'static str, files: Files) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let loaded = files
            .load(protocols(listener))
            .map_err(|source| TlsError::Files { listener, source })?;
        Ok(Self {
            listener,
            files,
            current: watch::Sender::new(loaded.config),
            state: Mutex::new(State {
                seen: stamps.clone(),
                read: stamps,
                warned_at_days: None,
                said_outdated: false,
                crls_until_s: loaded.crls_until_s,
            }),
            expires_s: AtomicI64::new(loaded.expires_s),
            good: AtomicBool::new(true),
        })
    }

    /// Reads the files again if they have changed and are not being changed any more: who replaces
    /// several is given the time between two looks.
    fn look(&self) {
        let stamps = self.files.stamps();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_still = state.seen == stamps;
        let is_due = is_still && state.read != stamps;
        state.seen = stamps;
        drop(state);
        if is_due {
            self.reload();
        }
    }

    fn reload(&self) {
        let stamps = self.files.stamps();
        let loaded = self.files.load(protocols(self.listener));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.seen, state.read) = (stamps.clone(), stamps);
        self.good.store(loaded.is_ok(), Ordering::Relaxed);
        match loaded {
            Ok(loaded) => {
                self.current.send_replace(loaded.config);
                self.expires_s.store(loaded.expires_s, Ordering::Relaxed);
                state.crls_until_s = loaded.crls_until_s;
                (state.warned_at_days, state.said_outdated) = (None, false);
                info!(listener = self.listener, "certificates were read again");
            }
            Err(refused) => error!(
                listener = self.listener,
                %refused,
                "NEW CERTIFICATES ARE REFUSED; what was there before stays in use"
            ),
        }
    }

    /// Says once a threshold that the certificate ends.
    fn warn(&self, now_s: i64) {
        let expires_s = self.expires_s.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.crls_until_s.is_some_and(|until_s| until_s < now_s) && !state.said_outdated {
            state.said_outdated = true;
            error!(
                listener = self.listener,
                "A REVOCATION LIST IS OUTDATED: clients are refused until crl_files holds a newer one"
            );
        }
        let Some(days) = due_warning(expires_s - now_s, state.warned_at_days) else {
            return;
        };
        state.warned_at_days = Some(days);
        let left_days = (expires_s - now_s).div_euclid(DAY_S);
        let listener = self.listener;
        match days {
            ..0 => error!(listener, "THE CERTIFICATE HAS EXPIRED: clients refuse it"),
            0..=1 => error!(listener, "THE CERTIFICATE EXPIRES within a day"),
            _ => warn!(listener, left_days, "the certificate expires soon"),
        }
    }
}

/// The threshold that has been passed and not been said: 30, 7, 1, or -1 when it is over.
fn due_warning(left_s: i64, warned_at_days: Option<i64>) -> Option<i64> {
    let passed = match left_s {
        ..0 => -1,
        _ => *(WARNED_AT_DAYS.iter()).find(|days| left_s <= **days * DAY_S)?,
    };
    warned_at_days
        .is_none_or(|warned| passed < warned)
        .then_some(passed)
}

impl Files {
    /// What `listener` names, if it names a certificate.
    fn of(listener: &Listener) -> Option<Self> {
        Some(Self {
            certificate: listener.certificate_file.clone()?,
            key: listener.key_file.clone()?,
            ..Self::of_clients(listener)
        })
    }

    /// What is there to verify clients.
    fn of_clients(listener: &Listener) -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: listener.client_ca_file.clone(),
            client_certificates: listener.client_certificates,
            crls: listener.crl_files.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_said_once() {
        for (left_s, warned, expected, why) in [
            (31 * DAY_S, None, None, "long to go"),
            (30 * DAY_S, None, Some(30), "30 days"),
            (20 * DAY_S, Some(30), None, "said"),
            (7 * DAY_S, Some(30), Some(7), "7 days"),
            (
                6 * DAY_S,
                None,
                Some(7),
                "started late: the nearest one alone",
            ),
            (DAY_S, Some(7), Some(1), "a day"),
            (1, Some(1), None, "said"),
            (-1, Some(1), Some(-1), "over"),
            (-DAY_S, Some(-1), None, "said"),
        ] {
            assert_eq!(due_warning(left_s, warned), expected, "{why}");
        }
    }

    #[test]
    fn development_certificate_is_made_anew_before_it_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let all = Certificates::load(&Config::default(), dir.path(), &["tls"]).unwrap();
        let file = development::certificate(&dir.path().join("tls"));
        let ends_s = all.states().next().unwrap().1;
        // Whether it is there shows whether it was made.
        let is_made_at = |now_s| {
            std::fs::remove_file(&file).ok();
            all.look(now_s);
            file.exists()
        };
        let due_s = ends_s - 31 * DAY_S + 1;
        assert!(!is_made_at(due_s - 2), "long to go");
        assert!(is_made_at(due_s));
        assert!(!is_made_at(due_s + 2), "tried just now");
        assert!(is_made_at(due_s + RENEW_EVERY_S), "tried again");
    }
}
