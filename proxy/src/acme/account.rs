//! The account at an authority: opened once, kept, and used again.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, Error, ExternalAccountKey, NewAccount};

use super::challenge::Way;
use super::client::Client;
use super::failure::{Failure, Outcome};
use super::storage::{Storage, StoredAccount};

/// The account, from the storage or opened now.
pub(super) async fn open(
    settings: &conf::Acme,
    directory: &conf::AcmeDirectory,
    storage: &Storage,
    client: &Client,
) -> Result<Account, Failure> {
    let way = Way::of(&settings.challenge);
    match storage.account(directory).map_err(Failure::storage)? {
        Some(stored) => {
            let is_told = stored.contact == settings.email;
            let account = known(stored, client, way).await?;
            if !is_told {
                tell_contact(settings, directory, storage, &account, way).await?;
            }
            Ok(account)
        }
        None => create(settings, directory, storage, client).await,
    }
}

/// One that is there already; `None`: there is none.
pub(super) async fn existing(
    settings: &conf::Acme,
    directory: &conf::AcmeDirectory,
    storage: &Storage,
    client: &Client,
) -> Result<Option<Account>, Failure> {
    match storage.account(directory).map_err(Failure::storage)? {
        Some(stored) => known(stored, client, Way::of(&settings.challenge))
            .await
            .map(Some),
        None => Ok(None),
    }
}

async fn known(stored: StoredAccount, client: &Client, way: Way) -> Result<Account, Failure> {
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let account = builder.from_credentials(stored.credentials).await;
    account.map_err(|error| Failure::of(&error, way))
}

/// Whether the authority says that it does not know the account (RFC 8555 section 7.3.1).
pub(super) fn is_unknown(error: &Error) -> bool {
    match error {
        Error::Api(problem) => {
            let kind = problem.r#type.as_deref().unwrap_or_default();
            kind.ends_with(":accountDoesNotExist")
        }
        _ => false,
    }
}

pub(super) async fn create(
    settings: &conf::Acme,
    directory: &conf::AcmeDirectory,
    storage: &Storage,
    client: &Client,
) -> Result<Account, Failure> {
    let contact = contact(settings);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = directory.eab.as_ref().map(external).transpose()?;
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let created = builder
        .create(&wanted, directory.url.clone(), external.as_ref())
        .await;
    let (account, credentials) =
        created.map_err(|error| Failure::of(&error, Way::of(&settings.challenge)))?;
    let stored = StoredAccount {
        credentials,
        contact: settings.email.clone(),
    };
    storage
        .keep_account(directory, &stored)
        .map_err(Failure::storage)?;
    tracing::info!(
        directory = directory.url,
        account = account.id(),
        "ACME account opened"
    );
    Ok(account)
}

/// The address in the file is another one than the authority was told.
async fn tell_contact(
    settings: &conf::Acme,
    directory: &conf::AcmeDirectory,
    storage: &Storage,
    account: &Account,
    way: Way,
) -> Result<(), Failure> {
    let contact = contact(settings);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    match account.update_contacts(&contact).await {
        Ok(()) => {}
        // Whoever uses the account next finds out, and opens another one.
        Err(error) if is_unknown(&error) => return Ok(()),
        Err(error) => return Err(Failure::of(&error, way)),
    }
    if let Some(stored) = storage.account(directory).map_err(Failure::storage)? {
        let stored = StoredAccount {
            contact: settings.email.clone(),
            ..stored
        };
        storage
            .keep_account(directory, &stored)
            .map_err(Failure::storage)?;
    }
    Ok(())
}

fn contact(settings: &conf::Acme) -> Option<String> {
    settings
        .email
        .as_ref()
        .map(|email| format!("mailto:{email}"))
}

/// RFC 8555 section 7.3.4.
pub(super) fn external(eab: &conf::ExternalAccount) -> Result<ExternalAccountKey, Failure> {
    let key = eab.hmac_key.expose().trim_end_matches('=');
    let key = BASE64_URL_SAFE_NO_PAD.decode(key).map_err(|_| {
        let what = "the key in `eab` is not base64url";
        Failure::new(
            Outcome::Unusable,
            what,
            "write it as the authority shows it",
        )
    })?;
    Ok(ExternalAccountKey::new(eab.key_id.clone(), &key))
}
