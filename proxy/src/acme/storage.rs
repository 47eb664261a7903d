//! The folder that accounts and certificates live in.
//!
//! Every file is written whole beside its place, synchronised, and renamed into it: whoever reads,
//! and whatever breaks off, sees an old one or a new one. A certificate and its key are one file, so
//! that they cannot come apart. Several processes may share the folder: orders are made by whoever
//! holds its lock, and the others find what came of them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::OFlags;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::listen::{Live, provider};

/// In front of the URL of the directory that a certificate is from; text outside of the encapsulated
/// parts is for people (RFC 7468 section 2).
const FROM: &str = "Directory: ";

/// What concerns one certificate and one account in the folder.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    folder: PathBuf,
    /// File name without its ending.
    name: String,
}

/// A certificate as it is kept.
pub(super) struct Stored {
    pub(super) live: Live,
    /// The directory that it is from.
    pub(super) directory: String,
    /// When it was put there.
    pub(super) written: SystemTime,
}

/// An account at a directory.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) credentials: instant_acme::AccountCredentials,
    pub(super) contact: Option<String>,
}

/// What is remembered of orders that failed, so that a process that is started again and again does
/// not ask again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// In a row.
    pub(super) failures: u32,
    /// Seconds since 1970.
    pub(super) next: u64,
    pub(super) reason: String,
    /// With which settings: others are tried at once.
    #[serde(default)]
    pub(super) settings: String,
}

impl Failed {
    pub(super) fn next(&self) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.next))
            .unwrap_or(UNIX_EPOCH)
    }
}

impl Storage {
    /// The place of a certificate. Another authority, other names, another kind of key: another
    /// certificate.
    pub(super) fn of(settings: &conf::Acme) -> Self {
        let mut hosts = settings.hosts.clone();
        hosts.sort();
        let first = settings.directories.first();
        let mut parts = vec![first.map_or("", |directory| directory.url.as_str())];
        parts.extend(hosts.iter().map(String::as_str));
        parts.push(settings.key_type.as_str());
        parts.extend(settings.profile.as_deref());
        let title = hosts.first().map_or("", String::as_str);
        Self {
            folder: settings.storage.clone(),
            name: named(title, &parts),
        }
    }

    /// Makes the folder where it is not there. Only its owner may read what is in it.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for folder in [
            self.folder.clone(),
            self.folder.join("accounts"),
            self.folder.join("certificates"),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        self.open_lock().map(drop)
    }

    fn open_lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        // It may be root that opens it, in a folder that another account writes.
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options.open(self.folder.join("lock"))
    }

    /// Nobody else makes an order while what this returns is there; `None`: somebody does.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        let file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn certificate_file(&self) -> PathBuf {
        self.folder
            .join("certificates")
            .join(format!("{}.pem", self.name))
    }

    fn failed_file(&self) -> PathBuf {
        self.folder
            .join("certificates")
            .join(format!("{}.failed.json", self.name))
    }

    /// Where [`Storage::records`] are.
    pub(super) fn records_file(&self) -> PathBuf {
        self.folder
            .join("certificates")
            .join(format!("{}.records.json", self.name))
    }

    fn account_file(&self, directory: &conf::AcmeDirectory) -> PathBuf {
        let host = directory.url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        let mut parts = vec![directory.url.as_str()];
        parts.extend(directory.eab.as_ref().map(|eab| eab.key_id.as_str()));
        self.folder
            .join("accounts")
            .join(format!("{}.json", named(host, &parts)))
    }

    /// When the certificate was put there; `None`: there is none.
    pub(super) fn written(&self) -> Option<SystemTime> {
        fs::metadata(self.certificate_file()).ok()?.modified().ok()
    }

    /// The certificate; `None`: there is none.
    pub(super) fn certificate(&self) -> io::Result<Option<Stored>> {
        let path = self.certificate_file();
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let written = fs::metadata(&path)?.modified()?;
        let lines = String::from_utf8_lossy(&text);
        let directory = lines.lines().find_map(|line| line.strip_prefix(FROM));
        let directory = directory.unwrap_or_default().to_owned();
        let live = live(&text).map_err(|reason| {
            let what = format!("{}: {reason}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        Ok(Some(Stored {
            live,
            directory,
            written,
        }))
    }

    /// Keeps a certificate and its key, and gives it back as it will be read.
    pub(super) fn keep(&self, directory: &str, key: &str, chain: &str) -> io::Result<Stored> {
        let text = format!("{FROM}{directory}\n{key}\n{chain}");
        // What could not be read again must not take the place of what can.
        live(text.as_bytes())
            .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        write(&self.certificate_file(), text.as_bytes())?;
        self.certificate()?
            .ok_or_else(|| io::Error::other("what was written is not there"))
    }

    pub(super) fn account(
        &self,
        directory: &conf::AcmeDirectory,
    ) -> io::Result<Option<StoredAccount>> {
        let path = self.account_file(directory);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let account = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        Ok(Some(account))
    }

    pub(super) fn keep_account(
        &self,
        directory: &conf::AcmeDirectory,
        account: &StoredAccount,
    ) -> io::Result<()> {
        write(&self.account_file(directory), &serde_json::to_vec(account)?)
    }

    /// An account that the authority does not know is put aside.
    pub(super) fn forget_account(&self, directory: &conf::AcmeDirectory) -> io::Result<()> {
        let path = self.account_file(directory);
        fs::rename(&path, path.with_extension("json.unknown"))
    }

    pub(super) fn failed(&self) -> Option<Failed> {
        let text = read(&self.failed_file()).ok()??;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn keep_failed(&self, failed: Option<&Failed>) -> io::Result<()> {
        match failed {
            Some(failed) => write(&self.failed_file(), &serde_json::to_vec(failed)?),
            None => remove(&self.failed_file()),
        }
    }

    /// Records in the DNS, name and value, that are to be taken away again: those of an order that is
    /// under way, and of one that broke off.
    pub(super) fn records(&self) -> Vec<(String, String)> {
        let text = read(&self.records_file()).ok().flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(super) fn keep_records(&self, records: &[(String, String)]) -> io::Result<()> {
        match records {
            [] => remove(&self.records_file()),
            records => write(&self.records_file(), &serde_json::to_vec(records)?),
        }
    }
}

/// A chain and its key in one text, found to belong together.
fn live(text: &[u8]) -> Result<Live, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| error.to_string())?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())?;
    Live::new(key)
}

/// Twelve hexadecimal digits that stand for a text.
pub(super) fn short_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let first = hash.as_ref().iter().take(6);
    first.map(|byte| format!("{byte:02x}")).collect()
}

/// A file name that says what it is about, and differs where any of `parts` does.
fn named(title: &str, parts: &[&str]) -> String {
    let hash = short_hash(&parts.join("\n"));
    let title = title.replace('*', "_");
    let title: String = title.chars().take(100).collect();
    format!("{title}-{hash}")
}

/// It may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `None`: there is no such file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", path.display()),
        )),
    }
}

/// Puts a file in its place whole, readable by its owner alone.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let written = write_to(&fresh, content).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        // It may not be there at all.
        let _ = fs::remove_file(&fresh);
        return Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", path.display()),
        ));
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn write_to(path: &Path, content: &[u8]) -> io::Result<()> {
    // Left behind by a process of the same number that was cut off.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings(folder: &Path) -> conf::Acme {
        conf::Acme {
            hosts: vec!["*.shop.example".into(), "shop.example".into()],
            email: None,
            challenge: conf::AcmeChallenge::Http01,
            storage: folder.join("deep/acme"),
            directories: vec![conf::AcmeDirectory {
                url: "https://acme.example:14000/dir".into(),
                eab: None,
            }],
            ca: None,
            profile: None,
            key_type: conf::AcmeKey::P256,
        }
    }

    fn certificate() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]);
        let certificate = params.expect("names").self_signed(&key).expect("signed");
        (key.serialize_pem(), certificate.pem())
    }

    #[test]
    fn what_is_kept_is_found_again_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::of(&settings(folder.path()));
        storage.prepare().expect("made");
        assert!(storage.certificate().expect("readable").is_none());
        let (key, chain) = certificate();
        storage
            .keep("https://acme.example/dir", &key, &chain)
            .expect("kept");
        let again = Storage::of(&settings(folder.path()));
        again.prepare().expect("is there");
        let stored = again.certificate().expect("readable").expect("there");
        assert_eq!(stored.live.leaf.names, ["shop.example"]);
        assert_eq!(stored.directory, "https://acme.example/dir");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&storage.certificate_file()), 0o600);
        for folder in ["", "certificates", "accounts"] {
            assert_eq!(mode(&storage.folder.join(folder)), 0o700, "{folder}");
        }
        let left = fs::read_dir(storage.folder.join("certificates")).expect("a folder");
        assert_eq!(left.count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_chain_that_does_not_fit_its_key_takes_nobodys_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::of(&settings(folder.path()));
        storage.prepare().expect("made");
        let (key, chain) = certificate();
        storage.keep("a", &key, &chain).expect("kept");
        assert!(storage.keep("b", &key, &certificate().1).is_err());
        assert!(storage.keep("b", &key, "no chain").is_err());
        let stored = storage.certificate().expect("readable").expect("there");
        assert_eq!(stored.directory, "a");
    }

    #[test]
    fn each_certificate_and_each_account_has_a_file_of_its_own() {
        let folder = Path::new("/nowhere");
        let one = settings(folder);
        let name = |change: &dyn Fn(&mut conf::Acme)| {
            let mut other = one.clone();
            change(&mut other);
            Storage::of(&other).certificate_file()
        };
        let same = name(&|it| it.hosts.reverse());
        assert_ne!(same, name(&|it| it.key_type = conf::AcmeKey::P384));
        assert_ne!(same, name(&|it| it.profile = Some("short".into())));
        assert_ne!(same, name(&|it| it.directories[0].url.push('2')));
        assert_ne!(same, name(&|it| it.hosts.push("more.example".into())));
        assert_eq!(
            same,
            name(&|it| {
                it.hosts.reverse();
                it.email = Some("ops@shop.example".into());
            })
        );
        let storage = Storage::of(&one);
        let mut directory = one.directories[0].clone();
        let account = storage.account_file(&directory);
        assert!(
            account.to_string_lossy().contains("acme.example-"),
            "{account:?}"
        );
        directory.eab = Some(conf::ExternalAccount {
            key_id: "kid-1".into(),
            hmac_key: conf::Secret::new("x".into()),
        });
        assert_ne!(account, storage.account_file(&directory));
    }

    #[test]
    fn one_process_holds_the_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::of(&settings(folder.path()));
        storage.prepare().expect("made");
        let held = storage.try_lock().expect("no error");
        assert!(held.is_some());
        assert!(storage.try_lock().expect("no error").is_none());
        drop(held);
        assert!(storage.try_lock().expect("no error").is_some());
    }

    #[test]
    fn failures_are_remembered_until_it_goes_well() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::of(&settings(folder.path()));
        storage.prepare().expect("made");
        assert_eq!(storage.failed(), None);
        storage.keep_failed(None).expect("nothing to take away");
        let failed = Failed {
            failures: 3,
            next: 1_700_000_000,
            reason: "no answer".into(),
            settings: "abc".into(),
        };
        storage.keep_failed(Some(&failed)).expect("written");
        assert_eq!(storage.failed().as_ref(), Some(&failed));
        storage.keep_failed(None).expect("taken away");
        assert_eq!(storage.failed(), None);
    }
}
