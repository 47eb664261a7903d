//! What a responder is asked, read from a chain.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use der::asn1::{Null, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _};
use http::Uri;
use rustls::pki_types::CertificateDer;
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// SHA-1: the one that all responders know (RFC 5019 section 2.1.1). Whether an answer is believed
/// does not rest on it.
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// id-pe-tlsfeature (RFC 7633 section 6).
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
/// id-ad-ocsp (RFC 5280 section 4.2.2.1).
const AD_OCSP: &str = "1.3.6.1.5.5.7.48.1";
/// The number of `status_request` (RFC 6066 section 8).
const STATUS_REQUEST: u16 = 5;

/// What is asked, and by what the answer is judged.
#[derive(Debug)]
pub(super) struct Question {
    /// An `http` URL with a host.
    pub(super) responder: Uri,
    /// An `OCSPRequest` (RFC 6960 section 4.1.1), DER.
    pub(super) request: Bytes,
    pub(super) id: CertId,
    pub(super) issuer: CertificateDer<'static>,
}

/// Why nobody is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Not {
    /// The certificate names no responder: its authority does not answer OCSP.
    #[error("the certificate names no OCSP responder")]
    Unnamed,
    /// None with a URL that is spoken.
    #[error(
        "the certificate names the OCSP responder {0}, and only http:// is spoken with responders"
    )]
    NoHttp(String),
    /// Without it neither a question nor an answer can be understood.
    #[error(
        "the certificate names an OCSP responder, and the chain does not have the certificate that issued it; put that behind the first one in the file"
    )]
    NoIssuer,
    /// The library does not read what is in the chain.
    #[error("the chain cannot be used for OCSP: {0}")]
    Unusable(String),
}

/// What a chain, leaf first, says of stapling.
pub(super) struct Read {
    pub(super) question: Result<Question, Not>,
    /// The certificate asks clients to refuse it without a staple (RFC 7633).
    pub(super) must_staple: bool,
}

impl Read {
    pub(super) fn chain(chain: &[CertificateDer<'static>]) -> Self {
        let nothing = |why| Self {
            question: Err(why),
            must_staple: false,
        };
        let Some((leaf, rest)) = chain.split_first() else {
            return nothing(Not::Unusable("it is empty".into()));
        };
        match x509_parser::parse_x509_certificate(leaf) {
            Ok((_, leaf)) => Self {
                question: question(&leaf, rest),
                must_staple: must_staple(&leaf),
            },
            Err(error) => nothing(Not::Unusable(error.to_string())),
        }
    }
}

fn question(leaf: &X509Certificate<'_>, rest: &[CertificateDer<'static>]) -> Result<Question, Not> {
    let responder = responder(leaf)?;
    let issuers = rest.iter().filter_map(|der| {
        let (_, issuer) = x509_parser::parse_x509_certificate(der).ok()?;
        let is_it = issuer.subject().as_raw() == leaf.issuer().as_raw();
        is_it.then_some((der, issuer))
    });
    // Of two with one name, of which only one signed it, the key decides.
    let mut issuers = issuers.filter(|(_, issuer)| signed(leaf, issuer));
    let (der, issuer) = issuers.next().ok_or(Not::NoIssuer)?;
    let unusable = |error: der::Error| Not::Unusable(error.to_string());
    let id = id(leaf, &issuer).map_err(unusable)?;
    let request = OcspRequest {
        tbs_request: TbsRequest {
            request_list: vec![Request {
                req_cert: id.clone(),
                single_request_extensions: None,
            }],
            ..TbsRequest::default()
        },
        optional_signature: None,
    };
    Ok(Question {
        responder,
        request: request.to_der().map_err(unusable)?.into(),
        id,
        issuer: der.clone(),
    })
}

/// Whether the key identifiers allow that `issuer` signed `leaf` (RFC 5280 section 4.2.1.1). Where
/// one says nothing, they do.
fn signed(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let wanted = leaf
        .iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
            _ => None,
        });
    let has = issuer
        .iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
            _ => None,
        });
    match (wanted, has) {
        (Some(wanted), Some(has)) => wanted.0 == has.0,
        _ => true,
    }
}

fn id(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Result<CertId, der::Error> {
    let hash = |octets: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref());
    Ok(CertId {
        hash_algorithm: x509_cert::spki::AlgorithmIdentifierOwned {
            oid: SHA1,
            parameters: Some(Null.into()),
        },
        issuer_name_hash: hash(issuer.subject().as_raw())?,
        issuer_key_hash: hash(&issuer.public_key().subject_public_key.data)?,
        serial_number: x509_cert::serial_number::SerialNumber::new(leaf.raw_serial())?,
    })
}

/// The first that can be asked.
fn responder(leaf: &X509Certificate<'_>) -> Result<Uri, Not> {
    let access = leaf
        .iter_extensions()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        });
    let named = access.into_iter().flat_map(|access| &access.accessdescs);
    let named = named.filter(|one| one.access_method.to_id_string() == AD_OCSP);
    let urls = named.filter_map(|one| match &one.access_location {
        GeneralName::URI(url) => Some(*url),
        _ => None,
    });
    let mut other = None;
    for url in urls {
        match url.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => return Ok(uri),
            _ => other = Some(url.to_owned()),
        }
    }
    Err(other.map_or(Not::Unnamed, Not::NoHttp))
}

fn must_staple(leaf: &X509Certificate<'_>) -> bool {
    let extension = leaf
        .iter_extensions()
        .find(|extension| extension.oid.to_id_string() == TLS_FEATURE);
    extension
        .and_then(|extension| Vec::<u16>::from_der(extension.value).ok())
        .is_some_and(|features| features.contains(&STATUS_REQUEST))
}
