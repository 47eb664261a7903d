//! A test authority by `openssl`, its responder, and one that says whatever a test wants.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use der::asn1::{BitString, Null, ObjectIdentifier, OctetString};
use der::{DateTime, Decode, Encode};
use rcgen::{KeyPair, SigningKey};
use rustls::pki_types::UnixTime;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    AsResponseBytes, BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    OcspResponseStatus, ResponderId, ResponseData, RevokedInfo, SingleResponse, Version,
};

use super::tools::{Finished, Running, run};
use super::wait;

/// Serial number of every certificate for `shop.test`.
const SERIAL: &str = "1001";

/// An authority in a folder, and certificates of it: `ocsp.pem` (and `ocsp.key`) for `shop.test`, the
/// issuer behind it.
pub(crate) struct Authority {
    openssl: PathBuf,
    folder: PathBuf,
}

impl Authority {
    /// Makes one whose certificates name a responder at this address.
    #[track_caller]
    pub(crate) fn new(openssl: &Path, folder: &Path, responder: SocketAddr) -> Self {
        let this = Self {
            openssl: openssl.to_owned(),
            folder: folder.to_owned(),
        };
        this.root("issuer");
        this.leaf(
            "ocsp",
            &format!("authorityInfoAccess=OCSP;URI:http://{responder}/\n"),
        );
        this
    }

    /// `STEM.pem` and `STEM.key` of a root.
    #[track_caller]
    pub(crate) fn root(&self, stem: &str) {
        let (pem, key) = (format!("{stem}.pem"), format!("{stem}.key"));
        let subject = format!("/CN=Test {stem}");
        self.run(
            &[
                &[
                    "req", "-x509", "-days", "90", "-subj", &subject, "-out", &pem, "-keyout", &key,
                ],
                NEW_KEY,
                &[
                    "-addext",
                    "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
                ],
            ]
            .concat(),
        );
    }

    /// `STEM.pem`, the issuer behind it, and `STEM.key` for `shop.test` with these extensions besides.
    #[track_caller]
    pub(crate) fn leaf(&self, stem: &str, extensions: &str) {
        let extensions = format!(
            "subjectAltName=DNS:shop.test\nbasicConstraints=CA:false\n\
             keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n{extensions}"
        );
        self.issue("issuer", stem, "/CN=shop.test", SERIAL, &extensions);
        let chain = self.read(stem) + &self.read("issuer");
        std::fs::write(self.folder.join(format!("{stem}.pem")), chain).expect("write the chain");
    }

    /// A certificate for one that signs answers.
    #[track_caller]
    pub(crate) fn delegate(&self, stem: &str) {
        let extensions = "extendedKeyUsage=OCSPSigning\nbasicConstraints=CA:false\n";
        self.issue("issuer", stem, "/CN=Test responder", "2002", extensions);
    }

    #[track_caller]
    fn issue(&self, issuer: &str, stem: &str, subject: &str, serial: &str, extensions: &str) {
        let file = |ending: &str| format!("{stem}.{ending}");
        let (pem, key, asked, said) = (file("pem"), file("key"), file("csr"), file("ext"));
        std::fs::write(self.folder.join(&said), extensions).expect("write the extensions");
        let new = [
            "req", "-new", "-subj", subject, "-keyout", &key, "-out", &asked,
        ];
        self.run(&[&new, NEW_KEY].concat());
        let (ca, ca_key) = (format!("{issuer}.pem"), format!("{issuer}.key"));
        let serial = format!("0x{serial}");
        self.run(&[
            "x509",
            "-req",
            "-in",
            &asked,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-days",
            "90",
            "-set_serial",
            &serial,
            "-extfile",
            &said,
            "-out",
            &pem,
        ]);
    }

    fn read(&self, stem: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{stem}.pem"))).expect("a certificate")
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.openssl);
        command.args(arguments).current_dir(&self.folder);
        let done = run(command.stdin(Stdio::null()), wait::SOON);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done
    }

    /// `openssl ocsp` as the responder, whose answers `signer` signs.
    #[track_caller]
    pub(crate) fn responder(&self, address: SocketAddr, signer: &str, is_revoked: bool) -> Running {
        let state = match is_revoked {
            true => "R\t350101000000Z\t260101000000Z,keyCompromise",
            false => "V\t350101000000Z\t",
        };
        let index = format!("{state}\t{SERIAL}\tunknown\t/CN=shop.test\n");
        std::fs::write(self.folder.join("index.txt"), index).expect("write the index");
        let mut command = Command::new(&self.openssl);
        let signer = [format!("{signer}.pem"), format!("{signer}.key")];
        command
            .args([
                "ocsp",
                "-index",
                "index.txt",
                "-CA",
                "issuer.pem",
                "-ndays",
                "7",
            ])
            .args(["-rsigner", &signer[0], "-rkey", &signer[1]])
            .args(["-port", &address.port().to_string()])
            .current_dir(&self.folder);
        let running = Running::start(&mut command);
        // It waits for ever for a request on a connection that only looks whether it listens.
        running.await_stderr("waiting for OCSP client connections");
        running
    }

    /// The authority's key, to sign answers with.
    pub(crate) fn key(&self) -> KeyPair {
        let pem = std::fs::read_to_string(self.folder.join("issuer.key")).expect("a key");
        KeyPair::from_pem(&pem).expect("a key that can be used")
    }

    /// What `openssl s_client` sees stapled: everything it says.
    #[track_caller]
    pub(crate) fn status(&self, address: SocketAddr, version: &str) -> String {
        let address = address.to_string();
        let done = self.run(&[
            "s_client",
            "-connect",
            &address,
            "-servername",
            "shop.test",
            "-status",
            version,
        ]);
        done.stdout
    }
}

const NEW_KEY: &[&str] = &[
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-noenc",
];

/// The answer to `request` that its certificate is good, since when and for how long.
pub(crate) fn good(request: &[u8], key: &KeyPair, begun: Duration, left: Duration) -> Vec<u8> {
    tell(request, key, CertStatus::good(), (begun, left))
}

/// The answer to `request` that its certificate is revoked.
pub(crate) fn revoked(request: &[u8], key: &KeyPair) -> Vec<u8> {
    let hour = Duration::from_secs(3600);
    let at = Duration::from_secs(UnixTime::now().as_secs());
    let at = DateTime::from_unix_duration(at).expect("a time");
    let info = RevokedInfo {
        revocation_time: OcspGeneralizedTime::from(at),
        revocation_reason: None,
    };
    tell(
        request,
        key,
        CertStatus::Revoked(info),
        (Duration::ZERO, hour),
    )
}

/// An answer signed with `key`, ECDSA on P-256 or RSA.
fn tell(
    request: &[u8],
    key: &KeyPair,
    status: CertStatus,
    (begun, left): (Duration, Duration),
) -> Vec<u8> {
    let request = OcspRequest::from_der(request).expect("an OCSP request");
    let [asked] = &request.tbs_request.request_list[..] else {
        panic!("one certificate is asked for: {request:?}");
    };
    let now = Duration::from_secs(UnixTime::now().as_secs());
    let time = |at| OcspGeneralizedTime::from(DateTime::from_unix_duration(at).expect("a time"));
    let data = ResponseData {
        version: Version::V1,
        responder_id: ResponderId::ByKey(OctetString::new(vec![7; 20]).expect("octets")),
        produced_at: time(now - begun),
        responses: vec![SingleResponse {
            cert_id: asked.req_cert.clone(),
            cert_status: status,
            this_update: time(now - begun),
            next_update: Some(time(now + left)),
            single_extensions: None,
        }],
        response_extensions: None,
    };
    let signature = key.sign(&data.to_der().expect("encoded")).expect("signed");
    let algorithm = match key.algorithm() == &rcgen::PKCS_RSA_SHA256 {
        // sha256WithRSAEncryption.
        true => AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
            parameters: Some(Null.into()),
        },
        // ecdsa-with-SHA256.
        false => AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
            parameters: None,
        },
    };
    let basic = BasicOcspResponse {
        tbs_response_data: data,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature).expect("bits"),
        certs: None,
    };
    let whole = OcspResponse {
        response_status: OcspResponseStatus::Successful,
        response_bytes: Some(basic.to_response_bytes().expect("encoded")),
    };
    whole.to_der().expect("encoded")
}
