//! Answers of authorities and of others, made here: what is believed, and what is not.

use super::super::question::{Not, Question, Read};
use super::*;
use der::asn1::{BitString, Ia5String, Null, OctetString};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SigningKey as _, date_time_ymd,
};
use x509_cert::ext::pkix::AuthorityInfoAccessSyntax;
use x509_cert::ext::pkix::name::GeneralName;
use x509_ocsp::{
    AsResponseBytes as _, BasicOcspResponse, OcspGeneralizedTime, ResponderId, RevokedInfo,
    SingleResponse, Version,
};

const HOUR: Duration = Duration::from_secs(3600);
const URL: &str = "http://ocsp.example/";

/// Some day in 2026.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let der = params.self_signed(&key).expect("signed").der().clone();
    Authority {
        issuer: Issuer::new(params, key),
        der,
    }
}

/// A leaf that names these responders, with extensions besides.
fn leaf(by: &Authority, urls: &[&str], more: Vec<CustomExtension>) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).expect("a name");
    params.custom_extensions = more;
    params.use_authority_key_identifier_extension = true;
    if !urls.is_empty() {
        let descriptions = urls
            .iter()
            .map(|url| x509_cert::ext::pkix::AccessDescription {
                access_method: ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1"),
                access_location: GeneralName::UniformResourceIdentifier(
                    Ia5String::new(url).expect("ASCII"),
                ),
            });
        let access = AuthorityInfoAccessSyntax(descriptions.collect());
        let octets = access.to_der().expect("encoded");
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        let extension = CustomExtension::from_oid_content(&oid, octets);
        params.custom_extensions.push(extension);
    }
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, &by.issuer).expect("signed");
    leaf.der().clone()
}

/// The certificate of one that may sign, or not.
fn delegate(by: &Authority, may: bool, until: i32) -> (KeyPair, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.not_after = date_time_ymd(until, 1, 1);
    params.extended_key_usages = vec![match may {
        true => ExtendedKeyUsagePurpose::OcspSigning,
        false => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    let der = params.signed_by(&key, &by.issuer).expect("signed");
    (key, der.der().clone())
}

fn asked(by: &Authority) -> Question {
    let read = Read::chain(&[leaf(by, &[URL], Vec::new()), by.der.clone()]);
    read.question.expect("a question")
}

fn time(at: SystemTime) -> OcspGeneralizedTime {
    OcspGeneralizedTime::try_from(at).expect("a time")
}

struct Said<'a> {
    question: &'a Question,
    status: CertStatus,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    certificates: Option<Vec<CertificateDer<'static>>>,
}

impl<'a> Said<'a> {
    fn good(question: &'a Question) -> Self {
        Self {
            question,
            status: CertStatus::good(),
            this_update: now() - HOUR,
            next_update: Some(now() + HOUR),
            certificates: None,
        }
    }

    fn signed(&self, key: &KeyPair) -> Vec<u8> {
        let data = ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(OctetString::new(vec![7; 20]).expect("octets")),
            produced_at: time(self.this_update),
            responses: vec![SingleResponse {
                cert_id: self.question.id.clone(),
                cert_status: self.status,
                this_update: time(self.this_update),
                next_update: self.next_update.map(time),
                single_extensions: None,
            }],
            response_extensions: None,
        };
        let signature = key.sign(&data.to_der().expect("encoded")).expect("signed");
        let certificates = self.certificates.as_ref().map(|all| {
            let all = all.iter();
            let read = all.map(|der| x509_cert::Certificate::from_der(der).expect("read"));
            read.collect()
        });
        let basic = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: x509_cert::spki::AlgorithmIdentifierOwned {
                // ecdsa-with-SHA256, without parameters.
                oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
                parameters: None,
            },
            signature: BitString::from_bytes(&signature).expect("bits"),
            certs: certificates,
        };
        let whole = OcspResponse {
            response_status: OcspResponseStatus::Successful,
            response_bytes: Some(basic.to_response_bytes().expect("encoded")),
        };
        whole.to_der().expect("encoded")
    }
}

fn judged(octets: &[u8], question: &Question) -> Result<Verdict, Wrong> {
    let algorithms = crate::listen::provider().signature_verification_algorithms;
    judge(octets, &question.id, &question.issuer, &algorithms, now())
}

const GOOD: &str = "a good answer is believed";

#[test]
fn what_the_issuer_signed_is_believed() {
    let ours = authority("ours");
    let question = asked(&ours);
    let key = ours.issuer.key();
    let good = judged(&Said::good(&question).signed(key), &question).expect(GOOD);
    let life = Verdict::Good {
        this_update: now() - HOUR,
        next_update: now() + HOUR,
    };
    assert_eq!(good, life);
    let revoked = Said {
        status: CertStatus::Revoked(RevokedInfo {
            revocation_time: time(now() - 2 * HOUR),
            revocation_reason: None,
        }),
        ..Said::good(&question)
    };
    let since = now() - 2 * HOUR;
    assert_eq!(
        judged(&revoked.signed(key), &question).expect("believed"),
        Verdict::Revoked {
            this_update: now() - HOUR,
            since
        }
    );
    let unknown = Said {
        status: CertStatus::Unknown(Null),
        ..Said::good(&question)
    };
    assert_eq!(
        judged(&unknown.signed(key), &question).expect("believed"),
        Verdict::Unknown
    );
}

#[test]
fn no_octet_of_an_answer_can_be_another() {
    let ours = authority("ours");
    let question = asked(&ours);
    let octets = Said::good(&question).signed(ours.issuer.key());
    let good = judged(&octets, &question).expect(GOOD);
    for at in 0..octets.len() {
        for bit in [1, 0x80] {
            let mut other = octets.clone();
            other[at] ^= bit;
            let judged = judged(&other, &question);
            assert!(
                judged.is_err(),
                "octet {at} of {}: {judged:?}, and it was {good:?}",
                octets.len()
            );
        }
    }
    for length in 0..octets.len() {
        assert!(judged(&octets[..length], &question).is_err());
    }
}

#[test]
fn what_somebody_else_signed_is_not() {
    let (ours, other) = (authority("ours"), authority("ours"));
    let question = asked(&ours);
    let octets = Said::good(&question).signed(other.issuer.key());
    let wrong = judged(&octets, &question).expect_err("another key");
    assert!(matches!(wrong, Wrong::Signature(_)), "{wrong}");
}

#[test]
fn a_delegate_of_the_issuer_may_sign_and_nobody_else_s() {
    let (ours, other) = (authority("ours"), authority("other"));
    let question = asked(&ours);
    let signed = |(key, der): (KeyPair, CertificateDer<'static>)| {
        let said = Said {
            certificates: Some(vec![ours.der.clone(), der]),
            ..Said::good(&question)
        };
        judged(&said.signed(&key), &question)
    };
    signed(delegate(&ours, true, 4000)).expect(GOOD);
    for (who, why) in [
        (delegate(&ours, false, 4000), "not for this purpose"),
        (delegate(&other, true, 4000), "of another authority"),
        (delegate(&ours, true, 2001), "over"),
    ] {
        let wrong = signed(who).expect_err(why);
        assert!(matches!(wrong, Wrong::Signature(_)), "{why}: {wrong}");
    }
    // Its certificate is there, the signature is somebody else's.
    let said = Said {
        certificates: Some(vec![delegate(&ours, true, 4000).1]),
        ..Said::good(&question)
    };
    let wrong = judged(&said.signed(other.issuer.key()), &question);
    assert!(matches!(wrong, Err(Wrong::Signature(_))), "{wrong:?}");
}

#[test]
fn an_answer_about_another_certificate_says_nothing() {
    let ours = authority("ours");
    let (question, other) = (asked(&ours), asked(&ours));
    let octets = Said::good(&other).signed(ours.issuer.key());
    let wrong = judged(&octets, &question).expect_err("another serial number");
    assert!(matches!(wrong, Wrong::Other), "{wrong}");
}

#[test]
fn times_count_with_a_little_patience_for_clocks() {
    let ours = authority("ours");
    let question = asked(&ours);
    let second = Duration::from_secs(1);
    let said = |this_update, next_update| {
        let said = Said {
            this_update,
            next_update,
            ..Said::good(&question)
        };
        judged(&said.signed(ours.issuer.key()), &question)
    };
    said(now() + AHEAD, Some(now() + HOUR)).expect(GOOD);
    let wrong = said(now() + AHEAD + second, Some(now() + HOUR));
    assert!(matches!(wrong, Err(Wrong::Future(_))), "{wrong:?}");
    said(now() - HOUR, Some(now() + second)).expect(GOOD);
    let wrong = said(now() - HOUR, Some(now()));
    assert!(matches!(wrong, Err(Wrong::Over(_))), "{wrong:?}");
    // Without an end it has one all the same.
    let open = said(now() - 60 * second, None).expect(GOOD);
    let life = Verdict::Good {
        this_update: now() - 60 * second,
        next_update: now() - 60 * second + ASSUMED,
    };
    assert_eq!(open, life);
    let wrong = said(now() - ASSUMED, None);
    assert!(matches!(wrong, Err(Wrong::Over(_))), "{wrong:?}");
}

#[test]
fn a_responder_may_refuse() {
    let ours = authority("ours");
    let question = asked(&ours);
    let octets = OcspResponse::try_later().to_der().expect("encoded");
    let wrong = judged(&octets, &question).expect_err("no answer");
    let status = OcspResponseStatus::TryLater;
    assert!(
        matches!(wrong, Wrong::Refused(it) if it == status),
        "{wrong}"
    );
    let wrong = judged(b"<html>", &question).expect_err("a page");
    assert!(matches!(wrong, Wrong::Broken(_)), "{wrong}");
}

#[test]
fn a_chain_says_who_is_asked() {
    let (ours, other) = (authority("ours"), authority("other"));
    let read = |urls: &[&str], rest: &[&Authority]| {
        let mut chain = vec![leaf(&ours, urls, Vec::new())];
        chain.extend(rest.iter().map(|one| one.der.clone()));
        Read::chain(&chain).question
    };
    assert_eq!(read(&[], &[&ours]).expect_err("none"), Not::Unnamed);
    assert_eq!(read(&[URL], &[]).expect_err("none"), Not::NoIssuer);
    assert_eq!(read(&[URL], &[&other]).expect_err("none"), Not::NoIssuer);
    let twin = authority("ours");
    assert_eq!(read(&[URL], &[&twin]).expect_err("none"), Not::NoIssuer);
    let safe = "https://ocsp.example/";
    let not = Not::NoHttp(safe.to_owned());
    assert_eq!(read(&[safe], &[&ours]).expect_err("none"), not);
    let question = read(&[safe, URL], &[&other, &ours]).expect("a question");
    assert_eq!(question.responder, URL);
    assert_eq!(question.issuer, ours.der);
    let request = x509_ocsp::OcspRequest::from_der(&question.request).expect("a request");
    assert_eq!(request.tbs_request.request_list[0].req_cert, question.id);
}

#[test]
fn a_certificate_may_ask_for_a_staple() {
    let ours = authority("ours");
    let read = |features: &[u16]| {
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 24];
        let octets = features.to_vec().to_der().expect("encoded");
        let extension = CustomExtension::from_oid_content(&oid, octets);
        Read::chain(&[leaf(&ours, &[], vec![extension])]).must_staple
    };
    assert!(read(&[5]) && read(&[17, 5]));
    assert!(!read(&[17]) && !read(&[]));
    assert!(!Read::chain(&[leaf(&ours, &[], Vec::new())]).must_staple);
}
