//! Certificates of clients: which are accepted, and what upstreams learn of one.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::der_parser::asn1_rs::ToDer as _;
use x509_parser::oid_registry::{self, Oid};
use x509_parser::x509::X509Name;

use super::tickets::Audience;
use super::{TlsError, provider, read};

/// Who may come in, and for whom tickets are then good.
pub(super) struct Admission {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) audience: Audience,
}

impl Admission {
    /// Reads the files that `settings` names.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(settings: &conf::ClientAuth) -> Result<Self, TlsError> {
        let mut audience = Context::new(&SHA256);
        audience.update(&[u8::from(settings.required)]);
        let mut roots = RootCertStore::empty();
        for path in &settings.ca {
            let text = take(path, &mut audience)?;
            let broken = |reason: String| TlsError::Certificate {
                path: path.clone(),
                reason,
            };
            let before = roots.len();
            for authority in CertificateDer::pem_slice_iter(&text) {
                let authority = authority.map_err(|error| broken(error.to_string()))?;
                roots
                    .add(authority)
                    .map_err(|error| broken(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(broken("the file has no CERTIFICATE section".into()));
            }
        }
        let mut lists = Vec::new();
        for path in &settings.crl {
            let text = take(path, &mut audience)?;
            let broken = |reason: String| TlsError::Revocations {
                path: path.clone(),
                reason,
            };
            let before = lists.len();
            for list in CertificateRevocationListDer::pem_slice_iter(&text) {
                lists.push(list.map_err(|error| broken(error.to_string()))?);
            }
            if lists.len() == before {
                return Err(broken("the file has no X509 CRL section".into()));
            }
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls(lists);
        if !settings.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| TlsError::Revocations {
            path: settings
                .crl
                .first()
                .or(settings.ca.first())
                .cloned()
                .unwrap_or_default(),
            reason: error.to_string(),
        })?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(audience.finish().as_ref());
        Ok(Self {
            verifier,
            audience: Audience(bytes),
        })
    }
}

fn take(path: &Path, audience: &mut Context) -> Result<Vec<u8>, TlsError> {
    let text = read(path)?;
    audience.update(&(text.len() as u64).to_be_bytes());
    audience.update(&text);
    Ok(text)
}

/// A client's certificate, as upstreams are told of it.
#[derive(Debug)]
pub(crate) struct ClientCert {
    /// Its subject, as RFC 4514 writes it.
    pub(crate) subject: HeaderValue,
    /// SHA-256 of it, in hexadecimal digits.
    pub(crate) fingerprint: HeaderValue,
    /// The certificate (RFC 9440 section 2.1).
    pub(crate) encoded: HeaderValue,
}

impl ClientCert {
    /// `None` for what is no certificate; such a one was not accepted.
    pub(in crate::listen) fn new(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let mut fingerprint = String::with_capacity(64);
        for byte in digest(&SHA256, der).as_ref() {
            // Writing to a string does not fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Some(Self {
            subject: HeaderValue::try_from(subject(certificate.subject())).ok()?,
            fingerprint: HeaderValue::try_from(fingerprint).ok()?,
            encoded: HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()?,
        })
    }
}

/// A name as RFC 4514 writes it: the most particular part first, all that could be taken for
/// something else escaped, in ASCII.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter().collect();
    for part in parts.into_iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        for (nth, attribute) in part.iter().enumerate() {
            if nth > 0 {
                text.push('+');
            }
            match short(attribute.attr_type()) {
                Some(short) => text.push_str(short),
                None => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            match (short(attribute.attr_type()), attribute.as_str()) {
                (Some(_), Ok(value)) => escape(value, &mut text),
                // In the form for what has no other: its encoding (section 2.4).
                _ => {
                    text.push('#');
                    for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
                        let _ = write!(text, "{byte:02x}");
                    }
                }
            }
        }
    }
    text
}

/// Short names of RFC 4514 section 3.
fn short(kind: &Oid<'_>) -> Option<&'static str> {
    let known = [
        (oid_registry::OID_X509_COMMON_NAME, "CN"),
        (oid_registry::OID_X509_LOCALITY_NAME, "L"),
        (oid_registry::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (oid_registry::OID_X509_ORGANIZATION_NAME, "O"),
        (oid_registry::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (oid_registry::OID_X509_COUNTRY_NAME, "C"),
        (oid_registry::OID_X509_STREET_ADDRESS, "STREET"),
        (oid_registry::OID_DOMAIN_COMPONENT, "DC"),
        (oid_registry::OID_USERID, "UID"),
        (oid_registry::OID_X509_SERIALNUMBER, "serialNumber"),
        (oid_registry::OID_PKCS9_EMAIL_ADDRESS, "emailAddress"),
    ];
    let found = known.iter().find(|(oid, _)| oid == kind);
    found.map(|(_, short)| *short)
}

/// RFC 4514 section 2.4, and all that is no printable ASCII in hexadecimal pairs.
fn escape(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b'#' if at == 0 => text.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        escape(value, &mut text);
        text
    }

    #[test]
    fn what_could_be_another_part_is_escaped() {
        for (value, text) in [
            ("shop", "shop"),
            ("a, CN=admin", "a\\, CN=admin"),
            (" padded ", "\\ padded\\ "),
            (" ", "\\ "),
            ("#1", "\\#1"),
            ("1#", "1#"),
            ("a+b;c<d>e\"f\\", "a\\+b\\;c\\<d\\>e\\\"f\\\\"),
            ("Müller\r\nX: 1", "M\\C3\\BCller\\0D\\0AX: 1"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), text, "{value:?}");
        }
    }

    #[test]
    fn the_most_particular_part_comes_first() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CountryName, "DE"),
            (rcgen::DnType::OrganizationName, "A, B & Co"),
            (rcgen::DnType::CommonName, "till 7"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let cert = ClientCert::new(&der).unwrap();
        assert_eq!(cert.subject, "CN=till 7,O=A\\, B & Co,C=DE");
        assert_eq!(cert.fingerprint.len(), 64);
        let encoded = cert.encoded.to_str().unwrap();
        let inner = encoded
            .strip_prefix(':')
            .and_then(|it| it.strip_suffix(':'));
        assert_eq!(STANDARD.decode(inner.unwrap()).unwrap(), der);
        assert!(ClientCert::new(b"none").is_none());
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let settings = conf::ClientAuth {
            ca: vec!["/no/such.pem".into()],
            crl: Vec::new(),
            required: true,
        };
        let error = Admission::new(&settings).err().unwrap().to_string();
        assert!(error.starts_with("/no/such.pem: "), "{error}");
    }
}
