//! Which certificate a handshake is answered with.
//!
//! Those from files are as they were when the configuration was loaded. Those that are obtained from
//! an authority ([`crate::acme`]) come and are renewed while handshakes go on: what changes is one
//! pointer, so neither sessions nor tickets notice.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::live::Live;
use super::tls::{TlsError, load_pair};
use crate::acme::{ALPN, Challenges};
use crate::clock;

/// Certificates by the names they carry.
pub(crate) struct Certificates {
    files: Table<Arc<Live>>,
    obtained: Table<Arc<Obtained>>,
    /// The first file, and those of other kinds for the same names.
    first_files: Vec<Arc<Live>>,
    each_obtained: Vec<Arc<Obtained>>,
    each_file: Vec<(conf::Certificate, Arc<Live>)>,
    challenges: Arc<Challenges>,
    /// Handshakes carry OCSP responses.
    staples: bool,
}

/// By exact name, and by wildcard: `*.shop.example` as `shop.example`, with exactly one label in
/// front (RFC 6125 section 6.4.3). Those for one name are in the order of the file: clients differ in
/// what they can verify.
struct Table<T> {
    exact: HashMap<String, Vec<T>>,
    wildcard: HashMap<String, Vec<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<T: Clone> Table<T> {
    fn add(&mut self, name: &str, value: &T) {
        let (table, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        let known = table.entry(name.to_owned()).or_default();
        known.push(value.clone());
    }
}

/// A certificate and its key that are not there from the beginning, and are replaced later.
pub(crate) struct Obtained {
    /// Lower-case, with wildcards as `*.shop.example`.
    names: Vec<String>,
    current: ArcSwapOption<Live>,
}

impl Obtained {
    /// For these names; there is none yet.
    pub(crate) fn new(names: &[String]) -> Self {
        Self {
            names: names.to_vec(),
            current: ArcSwapOption::empty(),
        }
    }

    /// The one in use.
    pub(crate) fn current(&self) -> Option<Arc<Live>> {
        self.current.load_full()
    }

    /// From now on this one is used.
    pub(crate) fn put(&self, live: Live) {
        self.current.store(Some(Arc::new(live)));
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("exact", &self.files.exact.keys())
            .field("wildcard", &self.files.wildcard.keys())
            .field("obtained", &self.each_obtained.len())
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads every pair of files. `obtained` are those that come without files.
    pub(crate) fn load(
        pairs: &[conf::Certificate],
        obtained: Vec<Arc<Obtained>>,
        challenges: Arc<Challenges>,
        staples: bool,
    ) -> Result<Self, TlsError> {
        let mut all = Self {
            files: Table::default(),
            obtained: Table::default(),
            first_files: Vec::new(),
            each_obtained: Vec::new(),
            each_file: Vec::new(),
            challenges,
            staples,
        };
        for pair in pairs {
            let live = Live::new(load_pair(&pair.cert, &pair.key)?);
            let live = live.map_err(|reason| TlsError::Certificate {
                path: pair.cert.clone(),
                reason,
            })?;
            let live = Arc::new(live);
            for name in &live.leaf.names {
                all.files.add(name, &live);
            }
            let first = all.each_file.first();
            if first.is_none_or(|(_, first)| first.leaf.names == live.leaf.names) {
                all.first_files.push(live.clone());
            }
            all.each_file.push((pair.clone(), live));
        }
        for one in &obtained {
            for name in &one.names {
                all.obtained.add(name, one);
            }
        }
        all.each_obtained = obtained;
        Ok(all)
    }

    /// Certificates from files, in file order.
    pub(crate) fn files(&self) -> &[(conf::Certificate, Arc<Live>)] {
        &self.each_file
    }

    /// All that handshakes may be answered with now.
    pub(crate) fn lives(&self) -> impl Iterator<Item = Arc<Live>> {
        let files = self.each_file.iter().map(|(_, live)| live.clone());
        let obtained = self.each_obtained.iter();
        files.chain(obtained.filter_map(|one| one.current()))
    }

    /// Whether handshakes carry OCSP responses.
    pub(crate) fn staples(&self) -> bool {
        self.staples
    }

    /// Staples of certificates that are in use before and after a reload go on.
    pub(crate) fn keep_staples(&self, before: &Self) {
        for live in self.lives() {
            let mut known = before.lives();
            if let Some(known) = known.find(|known| known.key.cert == live.key.cert)
                && !Arc::ptr_eq(&known, &live)
            {
                live.staple.adopt(&known.staple);
            }
        }
    }

    /// Exact names come before wildcards; at the same name what was obtained comes before a file,
    /// which may be an old one that bridges the time until then. Of several the first that `fits`.
    fn find(&self, name: &str, fits: Fits<'_>) -> Option<Arc<Live>> {
        let (obtained, files) = (&self.obtained, &self.files);
        let exact = first(obtained.exact.get(name), files.exact.get(name), fits);
        exact.or_else(|| {
            let (_, parent) = name.split_once('.')?;
            let (obtained, files) = (&obtained.wildcard, &files.wildcard);
            first(obtained.get(parent), files.get(parent), fits)
        })
    }

    /// For names that none carries, and clients that name none.
    fn default(&self, fits: Fits<'_>) -> Option<Arc<Live>> {
        let file = first(None, Some(&self.first_files), fits);
        file.or_else(|| first(Some(&self.each_obtained), None, fits))
    }
}

/// Whether a client can verify what a key signs.
type Fits<'a> = &'a dyn Fn(&CertifiedKey) -> bool;

/// The first that fits; where none does, the first.
fn first(
    obtained: Option<&Vec<Arc<Obtained>>>,
    files: Option<&Vec<Arc<Live>>>,
    fits: Fits<'_>,
) -> Option<Arc<Live>> {
    let obtained = obtained.into_iter().flatten();
    let obtained = obtained.filter_map(|one| one.current());
    let mut each = obtained.chain(files.into_iter().flatten().cloned());
    let first = each.next()?;
    match fits(&first.key) {
        true => Some(first),
        false => each.find(|live| fits(&live.key)).or(Some(first)),
    }
}

impl ResolvesServerCert for Certificates {
    /// `None` ends the handshake with an alert.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name validated and in lower case.
        let name = hello.server_name();
        // RFC 8737 section 3: an authority that validates offers this protocol and nothing else.
        let is_validation = hello
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(ALPN) && offered.next().is_none());
        if is_validation {
            return self.challenges.certificate(name?);
        }
        // Those schemes that no suite of the client's goes with were taken out.
        let schemes = hello.signature_schemes();
        let fits = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        let live = name
            .and_then(|name| self.find(name, &fits))
            .or_else(|| self.default(&fits))?;
        Some(match self.staples {
            true => live.stapled(clock::wall()),
            false => live.key.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pair(folder: &Path, name: &str, names: &[&str]) -> conf::Certificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("signed");
        let (cert, private) = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        std::fs::write(&cert, certificate.pem()).expect("written");
        std::fs::write(&private, key.serialize_pem()).expect("written");
        conf::Certificate { cert, key: private }
    }

    fn live(pair: &conf::Certificate) -> Live {
        Live::new(load_pair(&pair.cert, &pair.key).expect("fits")).expect("read")
    }

    fn names(live: Option<Arc<Live>>) -> Vec<String> {
        live.map_or_else(Vec::new, |live| live.leaf.names.clone())
    }

    #[test]
    fn without_any_there_is_none_and_what_comes_is_used_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let obtained = Arc::new(Obtained::new(&["shop.example".to_owned()]));
        let all =
            Certificates::load(&[], vec![obtained.clone()], Arc::default(), true).expect("loads");
        assert!(all.find("shop.example", &|_| true).is_none() && all.default(&|_| true).is_none());
        obtained.put(live(&pair(folder.path(), "a", &["shop.example", "one"])));
        assert_eq!(
            names(all.find("shop.example", &|_| true)),
            ["shop.example", "one"]
        );
        assert_eq!(names(all.default(&|_| true)), ["shop.example", "one"]);
        obtained.put(live(&pair(folder.path(), "b", &["shop.example", "two"])));
        assert_eq!(
            names(all.find("shop.example", &|_| true)),
            ["shop.example", "two"]
        );
    }

    #[test]
    fn a_file_stands_in_until_then_and_exact_names_come_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = pair(folder.path(), "file", &["shop.example", "*.shop.example"]);
        let names_of = ["shop.example".to_owned(), "*.shop.example".to_owned()];
        let obtained = Arc::new(Obtained::new(&names_of));
        let exact = pair(folder.path(), "exact", &["a.shop.example"]);
        let pairs = [file, exact];
        let all = Certificates::load(&pairs, vec![obtained.clone()], Arc::default(), true)
            .expect("loads");
        assert_eq!(names(all.find("shop.example", &|_| true)).len(), 2);
        let new = ["shop.example", "*.shop.example", "new"];
        obtained.put(live(&pair(folder.path(), "new", &new)));
        assert_eq!(names(all.find("shop.example", &|_| true)), new);
        assert_eq!(names(all.find("b.shop.example", &|_| true)), new);
        assert_eq!(
            names(all.find("a.shop.example", &|_| true)),
            ["a.shop.example"]
        );
        assert!(all.find("a.b.shop.example", &|_| true).is_none());
        assert_eq!(names(all.default(&|_| true)).len(), 2, "the first file");
    }
}
