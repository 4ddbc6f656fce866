//! One listener's certificate files: read whole, checked against each other, made a configuration.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::validity::{next_update_s, not_after_s};
use crate::config::{ClientCertificates, Listener};

/// What a listener reads.
pub(super) struct Files {
    /// The chain, the listener's own certificate first.
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Whose clients are let in.
    pub(super) client_ca: Option<PathBuf>,
    pub(super) client_certificates: ClientCertificates,
    pub(super) crls: Vec<PathBuf>,
}

/// What has been read.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends, in seconds since 1970.
    pub(super) expires_s: i64,
    /// When the first revocation list is outdated.
    pub(super) crls_until_s: Option<i64>,
}

/// Which state of the files was seen; another one is another state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stamps(Vec<Option<(u64, u64, i64, i64)>>);

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is no PEM file: {source}", path.display())]
    Pem {
        key: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("{} holds no {what} in PEM form", path.display())]
    Empty {
        key: &'static str,
        path: PathBuf,
        what: &'static str,
    },
    #[error("{} holds something else than a {what}: {reason}", path.display())]
    Malformed {
        key: &'static str,
        path: PathBuf,
        what: &'static str,
        reason: String,
    },
    #[error("the key in {} does not belong to the certificate in {}", path.display(), certificate.display())]
    Mismatch { path: PathBuf, certificate: PathBuf },
}

impl FileError {
    /// The key of the listener's table that names the file.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Read { key, .. }
            | Self::Pem { key, .. }
            | Self::Empty { key, .. }
            | Self::Malformed { key, .. } => key,
            Self::Mismatch { .. } => "key_file",
        }
    }
}

/// Whether what `listener` names can be used.
pub(super) fn check(listener: &Listener) -> Result<(), FileError> {
    match Files::of(listener) {
        Some(files) => files.load(&[]).map(drop),
        None => {
            let files = Files::of_clients(listener);
            files
                .verifier(&Arc::new(ring::default_provider()))
                .map(drop)
        }
    }
}

impl Files {
    pub(super) fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let of = |one: Metadata| (one.ino(), one.len(), one.mtime(), one.mtime_nsec());
            path.metadata().ok().map(of)
        };
        let named = [&self.certificate, &self.key].into_iter();
        let all = named.chain(&self.client_ca).chain(&self.crls);
        Stamps(all.map(stamp).collect())
    }

    /// Reads all of them.
    pub(super) fn load(&self, protocols: &[&[u8]]) -> Result<Loaded, FileError> {
        let provider = Arc::new(ring::default_provider());
        let chain: Vec<CertificateDer<'static>> =
            objects("certificate_file", &self.certificate, "certificate")?;
        let key: PrivateKeyDer<'static> = objects("key_file", &self.key, "private key")?
            .into_iter()
            .next()
            .ok_or_else(|| self.mismatch())?;
        let ends = chain.iter().map(|one| {
            not_after_s(one)
                .ok_or_else(|| self.no_certificate("its validity cannot be read".to_owned()))
        });
        let expires_s = ends.collect::<Result<Vec<i64>, FileError>>()?;
        let (verifier, crls_until_s) = self.verifier(&provider)?;
        let verifies_clients = verifier.offer_client_auth();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| self.no_certificate(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| self.pair(&error))?;
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        // Resumption costs no memory here: the client keeps its session, sealed with keys of this
        // configuration. No early data: what it carries could be sent again by others.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        // Who comes back with a ticket is not verified again, however long ago its certificate ended
        // or was revoked: where clients are verified there are no tickets.
        if !verifies_clients && let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Loaded {
            config: Arc::new(config),
            expires_s: expires_s.into_iter().min().unwrap_or_default(),
            crls_until_s,
        })
    }

    /// What verifies clients, and until when its revocation lists say how things are.
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Arc<dyn ClientCertVerifier>, Option<i64>), FileError> {
        let ca = match (&self.client_ca, self.client_certificates) {
            (None, _) | (_, ClientCertificates::None) => {
                return Ok((WebPkiClientVerifier::no_client_auth(), None));
            }
            (Some(ca), _) => ca,
        };
        let malformed = |what, reason| FileError::Malformed {
            key: "client_ca_file",
            path: ca.clone(),
            what,
            reason,
        };
        let mut roots = RootCertStore::empty();
        for one in objects::<CertificateDer<'static>>("client_ca_file", ca, "certificate")? {
            let added = roots.add(one);
            added.map_err(|error| malformed("certificate", error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let (mut crls, mut until_s) = (Vec::new(), None::<i64>);
        for path in &self.crls {
            let what = "revocation list";
            let lists = objects::<CertificateRevocationListDer<'static>>("crl_files", path, what)?;
            for list in lists {
                // Each alone first, so that the one that is wrong can be named.
                let alone = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(&roots),
                    Arc::clone(provider),
                );
                if let Err(VerifierBuilderError::InvalidCrl(error)) =
                    alone.with_crls([list.clone()]).build()
                {
                    return Err(FileError::Malformed {
                        key: "crl_files",
                        path: path.clone(),
                        what,
                        reason: format!("{error:?}"),
                    });
                }
                until_s = until_s.into_iter().chain(next_update_s(&list)).min();
                crls.push(list);
            }
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .with_crls(crls)
            // Whether a certificate was revoked is not known from a list that is outdated.
            .enforce_revocation_expiration();
        if self.client_certificates == ClientCertificates::Optional {
            builder = builder.allow_unauthenticated();
        }
        let built = builder.build();
        let built = built.map_err(|error| malformed("CA's certificate", error.to_string()))?;
        Ok((built, until_s))
    }

    fn pair(&self, error: &rustls::Error) -> FileError {
        match error {
            rustls::Error::InconsistentKeys(_) => self.mismatch(),
            rustls::Error::InvalidCertificate(reason) => self.no_certificate(format!("{reason:?}")),
            other => FileError::Malformed {
                key: "key_file",
                path: self.key.clone(),
                what: "private key for TLS",
                reason: other.to_string(),
            },
        }
    }

    fn mismatch(&self) -> FileError {
        FileError::Mismatch {
            path: self.key.clone(),
            certificate: self.certificate.clone(),
        }
    }

    fn no_certificate(&self, reason: String) -> FileError {
        FileError::Malformed {
            key: "certificate_file",
            path: self.certificate.clone(),
            what: "certificate",
            reason,
        }
    }
}

/// All objects of a kind in a PEM file; at least one.
pub(super) fn objects<T: PemObject>(
    key: &'static str,
    path: &Path,
    what: &'static str,
) -> Result<Vec<T>, FileError> {
    let text = std::fs::read(path).map_err(|source| FileError::Read {
        key,
        path: path.to_owned(),
        source,
    })?;
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    let found = found.map_err(|source| FileError::Pem {
        key,
        path: path.to_owned(),
        source,
    })?;
    if found.is_empty() {
        return Err(FileError::Empty {
            key,
            path: path.to_owned(),
            what,
        });
    }
    Ok(found)
}
