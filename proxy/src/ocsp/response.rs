//! What a responder said, read and judged (RFC 6960 section 3.2). Pure: octets come from the network,
//! `now` is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode as _, Encode as _, Sequence, Tag, Tagged as _};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_ocsp::{CertId, CertStatus, OcspResponse, OcspResponseStatus, ResponseData};

/// id-pkix-ocsp-basic (RFC 6960 section 4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9 (RFC 6960 section 4.2.2.2), the content octets.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// How far a responder's clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(300);
/// The life of an answer without nextUpdate, of which there is always a newer one (RFC 6960 section
/// 4.2.2.1).
const ASSUMED: Duration = Duration::from_secs(3600);
/// More certificates than anybody sends with an answer; each costs a signature to verify.
const MOST_SIGNERS: usize = 4;

/// What is said of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good {
        this_update: SystemTime,
        next_update: SystemTime,
    },
    Revoked {
        this_update: SystemTime,
        since: SystemTime,
    },
    /// The responder does not know the certificate.
    Unknown,
}

/// Why an answer says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error("what came is no OCSP response: {0}")]
    Broken(#[from] der::Error),
    /// RFC 6960 section 2.3.
    #[error("the responder answers {0:?}")]
    Refused(OcspResponseStatus),
    #[error("the answer is of another kind: {0}")]
    Kind(ObjectIdentifier),
    #[error("the answer is about another certificate")]
    Other,
    #[error("the issuer's certificate cannot be used: {0}")]
    Issuer(webpki::Error),
    #[error(
        "the answer is signed neither by the certificate's issuer nor by one that the issuer lets sign (id-kp-OCSPSigning): {0}"
    )]
    Signature(webpki::Error),
    #[error("the answer is of the future, by {0:?}; look at this machine's clock")]
    Future(Duration),
    #[error("the answer is over since {0:?}; look at this machine's clock")]
    Over(Duration),
}

/// `BasicOCSPResponse` with what is signed as it came: encoded anew, it might be other octets.
#[derive(Sequence)]
struct Basic<'a> {
    data: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

/// What `octets` say of the certificate with this `id` at this time.
///
/// # Errors
/// They say nothing, or nothing that can be believed.
pub(super) fn judge(
    octets: &[u8],
    id: &CertId,
    issuer: &CertificateDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
    now: SystemTime,
) -> Result<Verdict, Wrong> {
    let outer = OcspResponse::from_der(octets)?;
    let bytes = match (outer.response_status, outer.response_bytes) {
        (OcspResponseStatus::Successful, Some(bytes)) => bytes,
        (status, _) => return Err(Wrong::Refused(status)),
    };
    if bytes.response_type != BASIC {
        return Err(Wrong::Kind(bytes.response_type));
    }
    let basic = Basic::from_der(bytes.response.as_bytes())?;
    // The signature does not cover it, and clients are strict.
    basic.algorithm.tag().assert_eq(Tag::Sequence)?;
    let signed = basic.data.to_der()?;
    let data = ResponseData::from_der(&signed)?;
    let mut all = data.responses.iter();
    let ours = all.find(|one| is_same(&one.cert_id, id));
    let ours = ours.ok_or(Wrong::Other)?;
    verify(&basic, &signed, issuer, algorithms, now)?;
    let this_update = at(ours.this_update.0);
    let next_update = match ours.next_update {
        Some(next_update) => at(next_update.0),
        None => this_update + ASSUMED,
    };
    match this_update.duration_since(now) {
        Ok(ahead) if ahead > AHEAD => return Err(Wrong::Future(ahead)),
        _ => {}
    }
    if let Ok(over) = now.duration_since(next_update) {
        return Err(Wrong::Over(over));
    }
    Ok(match ours.cert_status {
        CertStatus::Good(_) => Verdict::Good {
            this_update,
            next_update,
        },
        CertStatus::Revoked(revoked) => Verdict::Revoked {
            this_update,
            since: at(revoked.revocation_time.0),
        },
        CertStatus::Unknown(_) => Verdict::Unknown,
    })
}

/// Parameters of the hash do not count: some write NULL, some nothing.
fn is_same(one: &CertId, other: &CertId) -> bool {
    one.hash_algorithm.oid == other.hash_algorithm.oid
        && one.issuer_name_hash == other.issuer_name_hash
        && one.issuer_key_hash == other.issuer_key_hash
        && one.serial_number.to_der() == other.serial_number.to_der()
}

/// RFC 6960 section 4.2.2.2: the issuer, or one that it issued a certificate for just this.
fn verify(
    basic: &Basic<'_>,
    signed: &[u8],
    issuer: &CertificateDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
    now: SystemTime,
) -> Result<(), Wrong> {
    let signature = basic.signature.as_bytes().unwrap_or_default();
    let is_signer = |signer: &EndEntityCert<'_>| {
        let mut last = Err(webpki::Error::InvalidSignatureForPublicKey);
        let algorithm = basic.algorithm.value();
        let ones = algorithms.all.iter();
        for one in ones.filter(|one| one.signature_alg_id().as_ref() == algorithm) {
            last = signer.verify_signature(*one, signed, signature);
            if last.is_ok() {
                break;
            }
        }
        last
    };
    let by_issuer = EndEntityCert::try_from(issuer).map_err(Wrong::Issuer)?;
    let Err(mut why) = is_signer(&by_issuer) else {
        return Ok(());
    };
    let anchors = [anchor_from_trusted_cert(issuer).map_err(Wrong::Issuer)?];
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let sent = basic.certificates.iter().flatten().take(MOST_SIGNERS);
    for certificate in sent {
        let certificate = CertificateDer::from(certificate.to_der()?);
        let judged = EndEntityCert::try_from(&certificate).and_then(|delegate| {
            is_signer(&delegate)?;
            delegate.verify_for_usage(
                algorithms.all,
                &anchors,
                &[],
                UnixTime::since_unix_epoch(since),
                KeyUsage::required(OCSP_SIGNING),
                None,
                None,
            )?;
            Ok(())
        });
        match judged {
            Ok(()) => return Ok(()),
            Err(error) => why = error,
        }
    }
    Err(Wrong::Signature(why))
}

fn at(time: der::asn1::GeneralizedTime) -> SystemTime {
    UNIX_EPOCH + time.to_unix_duration()
}

#[cfg(test)]
mod tests;
