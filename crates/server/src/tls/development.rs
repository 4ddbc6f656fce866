//! The development certificate: for a first try over TLS on this machine, without a CA of one's own.
//!
//! For: DIR/tls with a CA of its own, and a certificate of that CA for the loopback names.
//! Not for: anything that other machines reach: the CA may sign loopback names only.
//! Holds: each file is whole or not there. What is damaged, near its end or does not fit is made
//!   anew; the CA stays as long as it is good, so that who trusts it goes on doing so.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

const DAY: Duration = Duration::from_secs(86_400);
const VALID: Duration = Duration::from_secs(90 * 86_400);
/// Ten years: who has trusted it once need not do so again.
const CA_VALID: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Made anew when less than this is left: before anybody is warned that it ends.
pub(super) const LEFT: Duration = Duration::from_secs(31 * 86_400);
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevelopmentError {
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Make(#[from] rcgen::Error),
}

pub(super) fn ca(own: &Path) -> PathBuf {
    own.join("ca.pem")
}

fn ca_key(own: &Path) -> PathBuf {
    own.join("ca.key")
}

pub(super) fn certificate(own: &Path) -> PathBuf {
    own.join("server.pem")
}

pub(super) fn key(own: &Path) -> PathBuf {
    own.join("server.key")
}

/// Makes what is missing or no longer good in the folder `own`.
pub(super) fn ensure(own: &Path) -> Result<(), DevelopmentError> {
    ensure_for(own, LEFT)
}

fn ensure_for(own: &Path, left: Duration) -> Result<(), DevelopmentError> {
    if is_good(own, left) {
        return Ok(());
    }
    let failed = |source| DevelopmentError::Write {
        path: own.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(own)
        .and_then(|()| std::fs::set_permissions(own, Permissions::from_mode(0o700)))
        .map_err(failed)?;
    if certificate(own).exists() {
        info!(
            "the development certificate ends soon, is damaged or does not fit, and is made anew"
        );
    }
    let issuer = match read_issuer(own) {
        Some(issuer) => issuer,
        None => make_issuer(own)?,
    };
    let server_key = KeyPair::generate()?;
    let signed = server_params()?.signed_by(&server_key, &issuer)?;
    // The certificate last: a key without its certificate is no good pair, and made anew.
    write(&key(own), &server_key.serialize_pem(), 0o600)?;
    write(&certificate(own), &signed.pem(), 0o644)
}

/// Whether all of it is there, fits together, and does so for `left` at least.
fn is_good(own: &Path, left: Duration) -> bool {
    check(own, left).is_some() && ca_key_fits(own)
}

fn check(own: &Path, left: Duration) -> Option<()> {
    let chain = CertificateDer::from_pem_file(certificate(own)).ok()?;
    let secret = PrivateKeyDer::from_pem_file(key(own)).ok()?;
    let provider = ring::default_provider();
    CertifiedKey::from_der(vec![chain.clone()], secret, &provider).ok()?;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca(own)).ok()?)
        .ok()?;
    let parsed = ParsedCertificate::try_from(&chain).ok()?;
    let algorithms = provider.signature_verification_algorithms.all;
    for at in [since_1970(), since_1970() + left] {
        let at = UnixTime::since_unix_epoch(at);
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, algorithms).ok()?;
    }
    for name in NAMES {
        verify_server_name(&parsed, &ServerName::try_from(name).ok()?).ok()?;
    }
    Some(())
}

/// The CA that is there, if it is whole and will outlive a certificate that it signs now.
fn read_issuer(own: &Path) -> Option<Issuer<'static, KeyPair>> {
    if !ca_key_fits(own) {
        if ca(own).exists() {
            warn!("the development CA is damaged and is made anew: clients need the new one");
        }
        return None;
    }
    let text = std::fs::read_to_string(ca_key(own)).ok()?;
    let secret = KeyPair::from_pem(&text).ok()?;
    let ends_s = super::validity::not_after_s(&CertificateDer::from_pem_file(ca(own)).ok()?)?;
    let until = since_1970() + VALID;
    if u64::try_from(ends_s).ok()? <= until.as_secs() {
        warn!("the development CA ends soon and is made anew: clients need the new one");
        return None;
    }
    Some(Issuer::new(ca_params(&secret), secret))
}

fn ca_key_fits(own: &Path) -> bool {
    let read = || {
        let chain = CertificateDer::from_pem_file(ca(own)).ok()?;
        let secret = PrivateKeyDer::from_pem_file(ca_key(own)).ok()?;
        CertifiedKey::from_der(vec![chain], secret, &ring::default_provider()).ok()
    };
    read().is_some()
}

fn make_issuer(own: &Path) -> Result<Issuer<'static, KeyPair>, DevelopmentError> {
    let secret = KeyPair::generate()?;
    let params = ca_params(&secret);
    let made = params.self_signed(&secret)?;
    write(&ca_key(own), &secret.serialize_pem(), 0o600)?;
    write(&ca(own), &made.pem(), 0o644)?;
    Ok(Issuer::new(params, secret))
}

/// What the CA's key alone decides: it signs the same way after a restart.
fn ca_params(secret: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    set_validity(&mut params, CA_VALID);
    // Two of them on one machine have two names.
    let bytes = secret.public_key_raw().iter().skip(1).take(4);
    let id: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    let name = format!("Headwater development CA {id}");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Whoever gets hold of its key can play no other machine to those who trust it.
    let loopback = [
        GeneralSubtree::DnsName("localhost".to_owned()),
        GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
            Ipv6Addr::LOCALHOST.octets(),
            128,
        )),
    ];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: loopback.to_vec(),
        excluded_subtrees: Vec::new(),
    });
    params
}

fn server_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, VALID);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// From an hour ago, for clocks that are late, for `valid` from now.
fn set_validity(params: &mut CertificateParams, valid: Duration) {
    let now = date_time_ymd(1970, 1, 1) + since_1970();
    (params.not_before, params.not_after) = (now - DAY / 24, now + valid);
}

fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Writes a file whole, or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let fresh = path.with_extension("new");
    let written = || -> io::Result<()> {
        // With the mode it shall have, also where a crash left one behind.
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        path.parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    written().map_err(|source| DevelopmentError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of CA and certificate stayed after `ensure_for`; all must be good then.
    fn stays(own: &Path, left: Duration) -> (bool, bool) {
        let before = [ca(own), certificate(own)].map(|path| std::fs::read(path).ok());
        ensure_for(own, left).unwrap();
        assert!(is_good(own, LEFT));
        let after = [ca(own), certificate(own)].map(|path| std::fs::read(path).ok());
        (before[0] == after[0], before[1] == after[1])
    }

    #[test]
    fn what_is_good_stays_and_what_is_not_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let own = &dir.path().join("tls");
        assert_eq!(stays(own, LEFT), (false, false), "the first start");
        assert_eq!(stays(own, LEFT), (true, true), "the second");
        assert_eq!(stays(own, 89 * DAY), (true, true), "89 of 90 days are left");
        assert_eq!(stays(own, 91 * DAY), (true, false), "91 are not");
        for (path, ca_stays) in [
            (key(own), true),
            (certificate(own), true),
            (ca(own), false),
            (ca_key(own), false),
        ] {
            let text = std::fs::read_to_string(&path).unwrap();
            for damage in ["", text.get(..text.len() / 2).unwrap(), "\0\0\0"] {
                std::fs::write(&path, damage).unwrap();
                assert_eq!(stays(own, LEFT), (ca_stays, false), "{}", path.display());
            }
            std::fs::remove_file(&path).unwrap();
            assert_eq!(stays(own, LEFT), (ca_stays, false), "{}", path.display());
        }
        let other = &dir.path().join("other");
        ensure(other).unwrap();
        for path in [key, certificate, ca, ca_key] {
            std::fs::copy(path(other), path(own)).unwrap();
            assert!(!is_good(own, LEFT), "files of two");
            ensure(own).unwrap();
        }
        // A crash between two of them.
        std::fs::write(key(own).with_extension("new"), "half").unwrap();
        std::fs::remove_file(certificate(own)).unwrap();
        assert_eq!(stays(own, LEFT), (true, false));
    }

    #[test]
    fn the_ca_signs_loopback_names_only() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path()).unwrap();
        let mut params = server_params().unwrap();
        params.subject_alt_names = vec![SanType::DnsName("example.org".try_into().unwrap())];
        let secret = KeyPair::generate().unwrap();
        let issuer = read_issuer(dir.path()).unwrap();
        let signed = params.signed_by(&secret, &issuer).unwrap();
        write(&certificate(dir.path()), &signed.pem(), 0o644).unwrap();
        write(&key(dir.path()), &secret.serialize_pem(), 0o600).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca(dir.path())).unwrap())
            .unwrap();
        let refused = verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(signed.der()).unwrap(),
            &roots,
            &[],
            UnixTime::since_unix_epoch(since_1970()),
            ring::default_provider()
                .signature_verification_algorithms
                .all,
        );
        assert!(
            format!("{refused:?}").contains("NameConstraint"),
            "{refused:?}"
        );
    }
}
