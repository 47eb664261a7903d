//! Making a challenge's answer be there, and taking it away again.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{ChallengeType, KeyAuthorization};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::challenges::{Challenges, Shown};
use super::failure::{Failure, Outcome};
use super::storage::Storage;
use super::update::{self, Change};
use crate::child::Child;
use crate::listen::provider;

/// One call of a program that makes records; some wait until the record is on all servers.
const HOOK_PATIENCE: Duration = Duration::from_secs(300);

/// How long what a program wrote is waited for when it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Octets of what a program wrote that are kept.
const MOST_SAID: usize = 16 * 1024;

const SEE_HOOK: &str =
    "call the program in `hook` by hand with these arguments, as the account that runs Tidegate";

/// Which challenge is used; for advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Http,
    TlsAlpn,
    Dns,
}

impl Way {
    pub(super) fn of(challenge: &conf::AcmeChallenge) -> Self {
        match challenge {
            conf::AcmeChallenge::Http01 => Self::Http,
            conf::AcmeChallenge::TlsAlpn01 => Self::TlsAlpn,
            conf::AcmeChallenge::Dns01 { .. } => Self::Dns,
        }
    }

    /// As authorities call it.
    pub(super) fn kind(self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Dns => ChallengeType::Dns01,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
        }
    }
}

/// The answers of one order. Those in this process go with it; records are to be taken away by
/// [`Answers::withdraw`].
pub(super) struct Answers<'a> {
    settings: &'a conf::AcmeChallenge,
    challenges: &'a Arc<Challenges>,
    storage: &'a Storage,
    shown: Vec<Shown>,
    /// Name and value, also of orders before that broke off; noted in the storage before they are
    /// made, so that they are taken away even if this process dies.
    records: Vec<(String, String)>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(
        settings: &'a conf::AcmeChallenge,
        challenges: &'a Arc<Challenges>,
        storage: &'a Storage,
    ) -> Self {
        Self {
            settings,
            challenges,
            storage,
            shown: Vec::new(),
            records: storage.records(),
        }
    }

    /// Makes the answer for `host` (without `*.`) be there.
    pub(super) async fn show(
        &mut self,
        host: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), Failure> {
        match self.settings {
            conf::AcmeChallenge::Http01 => {
                let shown = self.challenges.show_page(token, authorization.as_str());
                self.shown.push(shown);
            }
            conf::AcmeChallenge::TlsAlpn01 => {
                let digest = authorization.digest();
                let key = validation(host, digest.as_ref()).map_err(|reason| {
                    let what = format!("no certificate for the validation of {host}: {reason}");
                    Failure::new(Outcome::Unusable, what, "see `hosts`")
                })?;
                let host = host.to_ascii_lowercase();
                let shown = self.challenges.show_certificate(&host, Arc::new(key));
                self.shown.push(shown);
            }
            conf::AcmeChallenge::Dns01 { records, .. } => {
                let name = format!("_acme-challenge.{host}");
                let value = authorization.dns_value();
                // Also one that was made in part is to be taken away.
                self.records.push((name.clone(), value.clone()));
                let noted = self.storage.keep_records(&self.records);
                noted.map_err(Failure::storage)?;
                record(records, Change::Add, &name, &value).await?;
            }
        }
        Ok(())
    }

    /// Until all servers of the zone have the records.
    pub(super) async fn settle(&self) {
        if let conf::AcmeChallenge::Dns01 { wait, .. } = self.settings
            && !self.records.is_empty()
        {
            tokio::time::sleep(*wait).await;
        }
    }

    /// Takes away what was made.
    pub(super) async fn withdraw(self) {
        let conf::AcmeChallenge::Dns01 { records, .. } = self.settings else {
            // Of orders before the challenge was another.
            for (name, value) in &self.records {
                tracing::warn!(
                    name,
                    value,
                    file = %self.storage.records_file().display(),
                    "a TXT record of an order with dns-01 that broke off is left: take it away by hand and remove the file, or order with dns-01 once more"
                );
            }
            return;
        };
        let mut left = Vec::new();
        for (name, value) in self.records {
            if let Err(failure) = record(records, Change::Remove, &name, &value).await {
                tracing::warn!(
                    name,
                    "a record of an order that is over stays, and goes with the next order or start: {failure}"
                );
                left.push((name, value));
            }
        }
        if let Err(error) = self.storage.keep_records(&left) {
            tracing::warn!("the ACME storage cannot be written: {error}");
        }
    }
}

async fn record(
    records: &conf::DnsRecords,
    what: Change,
    name: &str,
    value: &str,
) -> Result<(), Failure> {
    let word = match what {
        Change::Add => "present",
        Change::Remove => "cleanup",
    };
    match records {
        conf::DnsRecords::Hook(words) => hook(words, [word, name, value]).await,
        conf::DnsRecords::Update(settings) => update::change(settings, what, name, value).await,
    }
}

/// Calls the program. What it writes to standard error is for the log.
async fn hook(words: &[String], arguments: [&str; 3]) -> Result<(), Failure> {
    let Some((program, first)) = words.split_first() else {
        return Err(Failure::new(
            Outcome::Record,
            "there is no hook",
            "see `hook`",
        ));
    };
    let failed = |reason: String| {
        let shown = format!("hook {program} {}: {reason}", arguments.join(" "));
        Failure::new(Outcome::Record, shown, SEE_HOOK)
    };
    let mut command = Command::new(program);
    command
        .args(first)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = Child::start(&mut command);
    let child = child.map_err(|error| failed(format!("it cannot be started: {error}")))?;
    let ended = timeout(HOOK_PATIENCE, end(child)).await;
    let ended = ended.map_err(|_| failed(format!("not done within {HOOK_PATIENCE:?}")))?;
    let (status, said) = ended.map_err(|error| failed(format!("lost sight of it: {error}")))?;
    match status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&said);
            let last = said.trim().lines().last().unwrap_or_default();
            let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
            Err(failed(format!("{status}: {last}")))
        }
    }
}

/// How a program ended, and what it had written to standard error.
async fn end(mut child: Child) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut said = Vec::new();
    let Some(stderr) = child.take_stderr() else {
        return Ok((child.wait().await?, said));
    };
    let mut stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
    let status = {
        let mut reading = pin!(keep_last(&mut stderr, &mut said));
        tokio::select! {
            read = &mut reading => {
                read?;
                child.wait().await?
            }
            ended = child.wait() => {
                // What it left running may hold on to the pipe; what it said itself is there.
                let _ = timeout(LAST_WORDS, reading).await;
                ended?
            }
        }
    };
    Ok((status, said))
}

/// Reads to the end, and keeps what a program said last.
async fn keep_last(from: &mut pipe::Receiver, said: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 1024];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        said.extend_from_slice(&piece[..count]);
        said.drain(..said.len().saturating_sub(MOST_SAID));
    }
}

/// The certificate that answers a validating handshake (RFC 8737 section 3).
fn validation(host: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params =
        CertificateParams::new(vec![host.to_owned()]).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params
        .self_signed(&key)
        .map_err(|error| error.to_string())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not by way of what checks a pair: it refuses critical extensions that it does not know.
    let private = provider().key_provider.load_private_key(private);
    let private = private.map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validating_certificate_carries_the_digest_in_a_critical_extension() {
        let key = validation("shop.example", &[7; 32]).expect("made");
        let (_, leaf) = x509_parser::parse_x509_certificate(&key.cert[0]).expect("read");
        let found = leaf
            .iter_extensions()
            .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let extension = found.expect("acmeIdentifier");
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat());
    }

    #[tokio::test]
    async fn a_hook_that_fails_is_told_with_what_it_said() {
        let words = [
            "sh",
            "-c",
            "echo first >&2; echo no such zone >&2; exit 3",
            "hook",
        ];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let failure = hook(&words, ["present", "_acme-challenge.a", "v"]).await;
        let failure = failure.expect_err("it fails");
        assert_eq!(failure.outcome, Outcome::Record);
        let text = failure.to_string();
        assert!(
            text.contains("no such zone") && text.contains('3'),
            "{text}"
        );
        let absent = vec!["/no/such/program".to_owned()];
        let failure = hook(&absent, ["present", "a", "v"])
            .await
            .expect_err("it fails");
        assert!(
            failure.to_string().contains("cannot be started"),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn of_a_hook_that_says_much_the_last_line_is_told() {
        let script = "yes no such zone | head -c 3000000 >&2; echo >&2; echo the last >&2; exit 5";
        let words = ["sh", "-c", script, "hook"].map(str::to_owned);
        let failure = hook(&words, ["present", "_acme-challenge.a", "v"]).await;
        let text = failure.expect_err("it fails").to_string();
        assert!(text.contains("the last"), "{text}");
    }

    #[tokio::test]
    async fn what_a_hook_leaves_running_does_not_hold_the_order_up() {
        let words = ["sh", "-c", "sleep 60 & echo done >&2; exit 4", "hook"];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let called = hook(&words, ["present", "_acme-challenge.a", "v"]);
        let failure = timeout(Duration::from_secs(30), called).await;
        let text = failure.expect("in time").expect_err("it fails").to_string();
        assert!(text.contains("done"), "{text}");
    }

    #[tokio::test]
    async fn a_hook_gets_its_own_arguments_and_then_what_is_to_be_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("said");
        let script = format!("echo \"$@\" > {}", file.display());
        let words = ["sh", "-c", &script, "hook", "--zone", "z"];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        hook(&words, ["present", "_acme-challenge.a", "v"])
            .await
            .expect("done");
        let said = std::fs::read_to_string(file).expect("written");
        assert_eq!(said, "--zone z present _acme-challenge.a v\n");
    }
}
