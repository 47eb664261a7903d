//! One order, from the account to the certificate in the storage (RFC 8555 section 7.1).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use rustls::pki_types::Der;

use super::account;
use super::challenge::{Answers, Way};
use super::challenges::Challenges;
use super::client::Client;
use super::failure::{Failure, Outcome};
use super::storage::{Storage, Stored};
use crate::clock;
use crate::listen::Leaf;

/// How long an authority may look for the answers, and how long it may take to sign.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// What an order needs.
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a conf::Acme,
    pub(super) storage: &'a Storage,
    pub(super) challenges: &'a Arc<Challenges>,
    /// The certificate that the new one takes the place of, and the directory that it is from.
    pub(super) replaces: Option<(Leaf, String)>,
}

/// Asks one directory.
pub(super) async fn obtain(
    wanted: &Wanted<'_>,
    directory: &conf::AcmeDirectory,
    client: &Client,
) -> Result<Stored, Failure> {
    let patience = client.patience();
    patience.forget();
    let obtained = try_obtain(wanted, directory, client).await;
    obtained.map_err(|failure| failure.patiently(patience.until(), clock::wall()))
}

async fn try_obtain(
    wanted: &Wanted<'_>,
    directory: &conf::AcmeDirectory,
    client: &Client,
) -> Result<Stored, Failure> {
    let settings = wanted.settings;
    let way = Way::of(&settings.challenge);
    let storage = wanted.storage;
    let account = account::open(settings, directory, storage, client).await?;
    let order = match place(wanted, directory, &account).await {
        Err(error) if account::is_unknown(&error) => {
            tracing::warn!(
                directory = directory.url,
                "the authority does not know the ACME account in the storage; another one is opened"
            );
            storage
                .forget_account(directory)
                .map_err(Failure::storage)?;
            let account = account::create(settings, directory, storage, client).await?;
            place(wanted, directory, &account).await
        }
        placed => placed,
    };
    let mut order = order.map_err(|error| Failure::of(&error, way))?;
    let mut answers = Answers::new(&settings.challenge, wanted.challenges, storage);
    let validated = validate(&mut order, &mut answers, way).await;
    answers.withdraw().await;
    validated?;
    finish(order, wanted, directory, way).await
}

/// Makes the order; as a replacement where the authority takes that (RFC 9773 section 5).
async fn place(
    wanted: &Wanted<'_>,
    directory: &conf::AcmeDirectory,
    account: &Account,
) -> Result<Order, Error> {
    let names: Vec<Identifier> = wanted
        .settings
        .hosts
        .iter()
        .map(|host| Identifier::Dns(host.clone()))
        .collect();
    let new = || match &wanted.settings.profile {
        Some(profile) => NewOrder::new(&names).profile(profile),
        None => NewOrder::new(&names),
    };
    let replaced = wanted
        .replaces
        .as_ref()
        .filter(|(_, from)| *from == directory.url);
    if let Some(id) = replaced.and_then(|(leaf, _)| identifier(leaf)) {
        match account.new_order(&new().replaces(id)).await {
            Err(error) if is_about_the_replaced(&error) => {}
            placed => return placed,
        }
    }
    account.new_order(&new()).await
}

/// Whether the same order may go well without saying what it replaces.
fn is_about_the_replaced(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        Error::Other(inner) => !inner.is::<super::client::NotReached>(),
        Error::Api(problem) => {
            let kind = problem.r#type.as_deref().unwrap_or_default();
            let kind = kind.rsplit(':').next().unwrap_or_default();
            ["alreadyReplaced", "malformed", "conflict"].contains(&kind)
        }
        _ => false,
    }
}

/// What a certificate is called towards the authority (RFC 9773 section 4.1).
pub(super) fn identifier(leaf: &Leaf) -> Option<CertificateIdentifier<'static>> {
    let key = leaf.authority_key.as_ref()?;
    let id = CertificateIdentifier::new(Der::from_slice(key), Der::from_slice(&leaf.serial));
    Some(id.into_owned())
}

/// Shows that every name is ours.
async fn validate(order: &mut Order, answers: &mut Answers<'_>, way: Way) -> Result<(), Failure> {
    let failed = |error: Error| Failure::of(&error, way);
    let mut pending = false;
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Identifier::Dns(host) = authorization.identifier().identifier.clone() else {
            continue;
        };
        let Some(challenge) = authorization.challenge(way.kind()) else {
            let what = format!("the authority offers no {} for {host}", way.as_str());
            return Err(Failure::new(Outcome::Refused, what, "see `challenge`"));
        };
        let token = challenge.token.clone();
        answers
            .show(&host, &token, &challenge.key_authorization())
            .await?;
        pending = true;
    }
    if pending {
        answers.settle().await;
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            let mut authorization = authorization.map_err(failed)?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(way.kind()) {
                challenge.set_ready().await.map_err(failed)?;
            }
        }
    }
    match order.poll_ready(&POLLS).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(why_not(order, way, None).await),
        Err(Error::Api(problem)) => Err(why_not(order, way, Some(Error::Api(problem))).await),
        Err(error) => Err(failed(error)),
    }
}

/// What the authority found, name by name.
async fn why_not(order: &mut Order, way: Way, error: Option<Error>) -> Failure {
    let mut all = order.authorizations();
    while let Some(Ok(mut authorization)) = all.next().await {
        let host = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let refused = state
            .challenges
            .iter()
            .find(|challenge| challenge.status == ChallengeStatus::Invalid);
        if let Some(mut problem) = refused.and_then(|challenge| challenge.error.clone()) {
            let detail = problem.detail.unwrap_or_default();
            problem.detail = Some(format!("{host}: {detail}"));
            return Failure::refused(&problem, way);
        }
    }
    match error {
        Some(error) => Failure::of(&error, way),
        None => Failure::new(
            Outcome::Refused,
            "the authority gave the order up without a reason",
            "it is tried again by itself",
        ),
    }
}

/// Has the certificate signed, and keeps it.
async fn finish(
    mut order: Order,
    wanted: &Wanted<'_>,
    directory: &conf::AcmeDirectory,
    way: Way,
) -> Result<Stored, Failure> {
    let failed = |error: Error| Failure::of(&error, way);
    let (hosts, kind) = (wanted.settings.hosts.clone(), wanted.settings.key_type);
    // An RSA key takes a while.
    let made = tokio::task::spawn_blocking(move || request(hosts, kind)).await;
    let unusable = |reason: String| {
        let what = format!("no request for a certificate could be made: {reason}");
        Failure::new(Outcome::Unusable, what, "see `hosts` and `key_type`")
    };
    let (key, csr) = made
        .map_err(|error| unusable(error.to_string()))?
        .map_err(|error| unusable(error.to_string()))?;
    order.finalize_csr(&csr).await.map_err(failed)?;
    let chain = order.poll_certificate(&POLLS).await.map_err(failed)?;
    let (storage, from) = (wanted.storage.clone(), directory.url.clone());
    let kept = tokio::task::spawn_blocking(move || storage.keep(&from, &key, &chain)).await;
    kept.map_err(Failure::storage)?.map_err(Failure::storage)
}

/// A new key in PEM, and the request for a certificate on it in DER.
fn request(hosts: Vec<String>, kind: conf::AcmeKey) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = match kind {
        conf::AcmeKey::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        conf::AcmeKey::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        conf::AcmeKey::Rsa2048 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?
        }
    };
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), csr.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_makes_a_request() {
        for kind in [
            conf::AcmeKey::P256,
            conf::AcmeKey::P384,
            conf::AcmeKey::Rsa2048,
        ] {
            let hosts = vec!["shop.example".to_owned(), "*.shop.example".to_owned()];
            let (key, csr) = request(hosts, kind).expect("made");
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{kind:?}");
            assert!(csr.len() > 100);
        }
    }
}
