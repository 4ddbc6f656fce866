//! Clients over TLS, and the CAs and certificates that they and the program are given.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::program::PATIENCE;

/// A connection over TLS.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// What a client brings.
pub(crate) struct Client {
    pub(crate) roots: RootCertStore,
    pub(crate) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pub(crate) protocols: Vec<Vec<u8>>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

impl Client {
    /// Trusts the CAs in a file, and shows nothing.
    pub(crate) fn trusting(ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for one in CertificateDer::pem_file_iter(ca).unwrap() {
            roots.add(one.unwrap()).unwrap();
        }
        Self {
            roots,
            own: None,
            protocols: Vec::new(),
            versions: rustls::DEFAULT_VERSIONS,
        }
    }

    pub(crate) fn showing(mut self, pair: &Pair) -> Self {
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        self.own = Some((vec![chain], key));
        self
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .unwrap(),
        };
        config.alpn_protocols = self.protocols.clone();
        config
    }

    /// A finished handshake, or what the program said to it.
    pub(crate) fn connect(&self, address: SocketAddr) -> Result<Stream, std::io::Error> {
        let socket = TcpStream::connect(address)?;
        self.connect_over(socket)
    }

    pub(crate) fn connect_over(&self, socket: TcpStream) -> Result<Stream, std::io::Error> {
        shake(socket, &Arc::new(self.config()))
    }

    /// Whether the program lets this client speak MQTT.
    pub(crate) fn gets_in(&self, address: SocketAddr) -> bool {
        gets_in(address, &Arc::new(self.config()))
    }
}

/// Whether the program lets a client speak MQTT.
pub(crate) fn gets_in(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    enter(address, config).is_some()
}

/// The connection of a client that may speak MQTT. In TLS 1.3 a client learns only after its own
/// handshake that its certificate is refused.
pub(crate) fn enter(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<Stream> {
    let socket = TcpStream::connect(address).unwrap();
    let mut stream = shake(socket, config).ok()?;
    // CONNECT of 3.1.1 with client id `c`, and the CONNACK's four bytes.
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
    let mut answer = [0; 4];
    let answered = stream.write_all(connect).and_then(|()| stream.flush());
    match answered.and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) => (answer == [0x20, 2, 0, 0]).then_some(stream),
        Err(error) => {
            assert_ne!(
                error.kind(),
                ErrorKind::WouldBlock,
                "neither let in nor refused"
            );
            None
        }
    }
}

/// Shakes hands over `socket`, as a client with this configuration.
pub(crate) fn shake(
    socket: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<Stream, std::io::Error> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The certificate that a finished handshake showed.
pub(crate) fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// A CA made for a test.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for `localhost` that servers and clients may show.
    pub(crate) fn issue(&self, serial: u64) -> Pair {
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue_for(serial, &usages)
    }

    pub(crate) fn issue_for(&self, serial: u64, usages: &[ExtendedKeyUsagePurpose]) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list of what was revoked, good until the end of that year.
    pub(crate) fn revoke(&self, serials: &[u64], until_year: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 2),
            next_update: date_time_ymd(until_year, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Pair {
    /// Writes both files, each in one step.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("c.pem"), folder.join("k.pem"));
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }
}

/// Writes a file in one step.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}
