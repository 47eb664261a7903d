//! A certificate authority and one certificate, made a moment before they are used.
//!
//! The authority's key is thrown away at once, so a user who trusts `ca.pem`
//! trusts this one certificate and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the certificate holds: longer than anybody lets a demo run.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is made, as PEM.
#[derive(Debug)]
pub(crate) struct Made {
    /// For clients: `curl --cacert`.
    pub(crate) ca: String,
    /// Certificate for `localhost`, 127.0.0.1 and ::1.
    pub(crate) cert: String,
    /// Its private key.
    pub(crate) key: String,
}

/// Makes all three; valid from a day before `now`, for clocks that disagree.
///
/// # Errors
/// When a key cannot be made or used.
pub(crate) fn make(now: SystemTime) -> Result<Made, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = params("Tidegate demo authority", now);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = authority.self_signed(&authority_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = params("Tidegate demo", now);
    leaf.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let cert = leaf
        .signed_by(&key, &Issuer::new(authority, authority_key))?
        .pem();

    Ok(Made {
        ca,
        cert,
        key: key.serialize_pem(),
    })
}

fn params(name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - DAY).into();
    params.not_after = (now + LIFETIME).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_a_certificate_and_a_key_are_made() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let made = make(now).expect("keys can be made");
        for pem in [&made.ca, &made.cert] {
            assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
        }
        assert!(made.key.contains("PRIVATE KEY"), "a key in PEM");
        assert_ne!(made.ca, made.cert);
    }
}
