//! `[listeners.*]`: one table for each door, all with the same keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ByteSize, DurationMs, NO_TIME, Network};
use crate::tls::carries_tls;

/// One table for each door. All parse from the first version on; a door that is not built yet is
/// named in the start block.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listeners {
    pub(crate) tcp: Listener,
    pub(crate) tls: Listener,
    pub(crate) ws: Listener,
    pub(crate) wss: Listener,
    pub(crate) quic: Listener,
    pub(crate) kafka: Listener,
    pub(crate) http: Listener,
    pub(crate) https: Listener,
}

/// One door.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listener {
    /// Address and port; port 0 takes a free one. Default: loopback and the door's usual port.
    pub(crate) bind: Option<SocketAddr>,
    /// Whether it opens. Default true.
    pub(crate) enabled: bool,
    /// Lets anybody in on an address other than loopback. Default false: such an address is refused.
    pub(crate) allow_anonymous: bool,
    /// Path of the WebSocket, on ws and wss. Default `/mqtt`.
    pub(crate) path: Option<String>,
    /// Web pages whose scripts may connect, as `https://host:port`, on ws and wss; `*` is all. What is
    /// no browser is not asked. Default: on loopback without `allow_anonymous` the pages of this
    /// computer, else all.
    pub(crate) origins: Option<Vec<String>>,
    /// Its certificate and those that lead to the CA, in PEM form. On tls, wss, quic and https.
    /// Default: the development certificate.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The certificate's private key, in PEM form.
    pub(crate) key_file: Option<PathBuf>,
    /// Certificates of the CAs whose clients are let in, in PEM form.
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate. Default `none`.
    pub(crate) client_certificates: ClientCertificates,
    /// Revocation lists of those CAs, in PEM form. Where there are any, each CA of a client's chain
    /// needs one, and an outdated one lets nobody in. Default none.
    pub(crate) crl_files: Vec<PathBuf>,
    /// Addresses whose connections begin with a PROXY protocol header (v1 or v2). On tcp, tls, ws and
    /// wss. Default none.
    pub(crate) proxy_protocol: Vec<Network>,
    /// Connections of this door; one more is closed at once. Default none. This and all below: on tcp,
    /// tls, ws, wss and quic.
    pub(crate) connections_max: Option<usize>,
    /// Connections from one address, of IPv6 from one /64; one more is closed at once. Loopback and
    /// who sends a PROXY header are not counted. 0 is without limit. Default 0.
    pub(crate) connections_per_address_max: u32,
    /// Sockets accepted a second; those that come faster wait in the system's queue. 0 is without
    /// limit. Default 0.
    pub(crate) connect_rate: u32,
    /// Sockets accepted at once after a time of few; 0 takes a second's worth. Default 0.
    pub(crate) connect_burst: u32,
    /// Instead of `mqtt.connect_timeout`, at this door.
    pub(crate) connect_timeout: Option<DurationMs>,
    /// Instead of `mqtt.messages_per_second`, at this door.
    pub(crate) messages_per_second: Option<u32>,
    /// Instead of `mqtt.messages_burst`, at this door.
    pub(crate) messages_burst: Option<u32>,
    /// Instead of `mqtt.bytes_per_second`, at this door.
    pub(crate) bytes_per_second: Option<ByteSize>,
    /// Instead of `mqtt.bytes_burst`, at this door.
    pub(crate) bytes_burst: Option<ByteSize>,
}

/// Whether a listener's clients show a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Nobody gets in without one.
    Required,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: None,
            enabled: true,
            allow_anonymous: false,
            path: None,
            origins: None,
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            client_certificates: ClientCertificates::None,
            crl_files: Vec::new(),
            proxy_protocol: Vec::new(),
            connections_max: None,
            connections_per_address_max: 0,
            connect_rate: 0,
            connect_burst: 0,
            connect_timeout: None,
            messages_per_second: None,
            messages_burst: None,
            bytes_per_second: None,
            bytes_burst: None,
        }
    }
}

impl Listener {
    /// Path of its WebSocket.
    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/mqtt")
    }
}

impl Default for Listeners {
    fn default() -> Self {
        let door = Listener::default;
        Self {
            tcp: door(),
            tls: door(),
            ws: door(),
            wss: door(),
            quic: door(),
            kafka: door(),
            http: door(),
            https: door(),
        }
    }
}

impl Listener {
    /// Keys of the door `name` that do nothing there or miss another.
    pub(super) fn problems(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut wrong = |is_wrong: bool, key: &'static str, sentence: &str| {
            if is_wrong {
                found.push((key, sentence.to_owned()));
            }
        };
        let verifies = self.client_certificates != ClientCertificates::None;
        let tls = [
            (self.certificate_file.is_some(), "certificate_file"),
            (self.key_file.is_some(), "key_file"),
            (self.client_ca_file.is_some(), "client_ca_file"),
            (verifies, "client_certificates"),
            (!self.crl_files.is_empty(), "crl_files"),
        ];
        if !carries_tls(name) {
            let sentence =
                format!("{name} is not encrypted; this belongs to tls, wss, quic or https");
            for (is_set, key) in tls {
                wrong(is_set, key, &sentence);
            }
        } else {
            let (certificate, key) = (self.certificate_file.is_some(), self.key_file.is_some());
            wrong(
                certificate && !key,
                "certificate_file",
                "needs key_file beside it",
            );
            wrong(
                key && !certificate,
                "key_file",
                "needs certificate_file beside it",
            );
            let has_ca = self.client_ca_file.is_some();
            let sentence = "needs client_ca_file: the CAs whose clients are let in";
            wrong(verifies && !has_ca, "client_certificates", sentence);
            let sentence =
                "does nothing unless client_certificates is \"optional\" or \"required\"";
            wrong(has_ca && !verifies, "client_ca_file", sentence);
            wrong(
                !self.crl_files.is_empty() && !verifies,
                "crl_files",
                sentence,
            );
        }
        let is_websocket = matches!(name, "ws" | "wss");
        let sentence = format!("{name} has no path; ws and wss do");
        wrong(self.path.is_some() && !is_websocket, "path", &sentence);
        let begins = self.path.as_ref().is_none_or(|path| path.starts_with('/'));
        wrong(!begins, "path", "a path begins with /");
        let strange = |c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control();
        let has_strange = self
            .path
            .as_ref()
            .is_some_and(|path| path.contains(strange));
        let sentence = "no request has it: a path ends before ?, # and spaces";
        wrong(has_strange, "path", sentence);
        let sentence = format!("no web page reaches {name}; ws and wss it does");
        wrong(
            self.origins.is_some() && !is_websocket,
            "origins",
            &sentence,
        );
        let mut origins = self.origins.iter().flatten();
        let sentence =
            "no browser names it: an origin is https://host or https://host:port, without a path";
        wrong(!origins.all(|one| is_origin(one)), "origins", sentence);
        let takes_proxy = matches!(name, "tcp" | "tls" | "ws" | "wss");
        let sentence = format!("{name} takes no PROXY protocol; tcp, tls, ws and wss do");
        let has_proxies = !self.proxy_protocol.is_empty();
        wrong(has_proxies && !takes_proxy, "proxy_protocol", &sentence);
        let is_mqtt = takes_proxy || name == "quic";
        let sentence = format!("{name} does not keep this; tcp, tls, ws, wss and quic do");
        for (is_set, key) in [
            (self.connections_max.is_some(), "connections_max"),
            (
                self.connections_per_address_max > 0,
                "connections_per_address_max",
            ),
            (self.connect_rate > 0, "connect_rate"),
            (self.connect_burst > 0, "connect_burst"),
            (self.connect_timeout.is_some(), "connect_timeout"),
            (self.messages_per_second.is_some(), "messages_per_second"),
            (self.messages_burst.is_some(), "messages_burst"),
            (self.bytes_per_second.is_some(), "bytes_per_second"),
            (self.bytes_burst.is_some(), "bytes_burst"),
        ] {
            wrong(is_set && !is_mqtt, key, &sentence);
        }
        let has_burst = is_mqtt && self.connect_burst > 0;
        let sentence = "does nothing without connect_rate";
        wrong(
            has_burst && self.connect_rate == 0,
            "connect_burst",
            sentence,
        );
        let has_no_time = self.connect_timeout.is_some_and(|time| time.0 == 0);
        wrong(has_no_time && is_mqtt, "connect_timeout", NO_TIME);
        found
    }
}

/// What a browser may name in `Origin` (RFC 6454, 7), or `*`. An embedded browser whose pages are files
/// says `file://`.
fn is_origin(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@']);
    let named = text
        .split_once("://")
        .is_some_and(|(_, host)| is_host(host));
    named || matches!(text, "*" | "null" | "file://")
}

impl Listeners {
    /// Every door with its name and usual port.
    pub(crate) fn all(&self) -> [(&'static str, u16, &Listener); 8] {
        [
            ("tcp", 1883, &self.tcp),
            ("tls", 8883, &self.tls),
            ("ws", 8083, &self.ws),
            ("wss", 8084, &self.wss),
            ("quic", 14567, &self.quic),
            ("kafka", 9092, &self.kafka),
            ("http", 18083, &self.http),
            ("https", 18084, &self.https),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn all_listener_tables_parse() {
        for name in ["tcp", "tls", "ws", "wss", "quic", "kafka", "http", "https"] {
            let text = format!("[listeners.{name}]\nbind = \"127.0.0.1:0\"\nenabled = false\n");
            let config: Config = toml::from_str(&text).unwrap();
            let found = config
                .listeners
                .all()
                .into_iter()
                .find(|door| door.0 == name)
                .unwrap();
            assert!(!found.2.enabled);
        }
    }

    #[test]
    fn keys_of_tls_that_do_nothing_or_miss_another_are_named() {
        for (text, key) in [
            (
                "[listeners.tcp]\ncertificate_file = \"c\"\nkey_file = \"k\"",
                "tcp.certificate_file",
            ),
            (
                "[listeners.kafka]\nclient_certificates = \"required\"",
                "kafka.client_certificates",
            ),
            (
                "[listeners.tls]\ncertificate_file = \"c\"",
                "tls.certificate_file",
            ),
            ("[listeners.wss]\nkey_file = \"k\"", "wss.key_file"),
            (
                "[listeners.quic]\nclient_certificates = \"optional\"",
                "quic.client_certificates",
            ),
            (
                "[listeners.tls]\nclient_ca_file = \"c\"",
                "tls.client_ca_file",
            ),
            ("[listeners.tls]\ncrl_files = [\"c\"]", "tls.crl_files"),
            (
                "[listeners.quic]\nproxy_protocol = [\"::1\"]",
                "quic.proxy_protocol",
            ),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let found = config.problems();
            assert_eq!(found[0].0, format!("listeners.{key}"), "{text}: {found:?}");
        }
        let good = "[listeners.wss]\nclient_ca_file = \"c\"\nclient_certificates = \"required\"\n\
                    crl_files = [\"r\"]\nproxy_protocol = [\"10.0.0.0/8\"]";
        let config: Config = toml::from_str(good).unwrap();
        assert_eq!(config.problems(), []);
    }
}
