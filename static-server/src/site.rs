//! A directory as a site: which file answers a request.
//!
//! The way of a request: method, path, the resource behind the path (from memory, or looked
//! up), the coding, and then the representation's own conditions and ranges. The outcome
//! depends on the request and on the facts of the files alone.

mod differences;
mod pictures;
mod prepare;

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use http::Method;
use http::header::LOCATION;

use crate::answer::{Answer, Outcome, plain};
use crate::confine::{Target, directory_reference};
use crate::encoding::{self, Encoding};
use crate::fields::Fields;
use crate::files::{Disk, Facts, Files, Found, Sign, Trouble};
use crate::images::{self, Images};
use crate::keeper::Keeper;
use crate::listing::{self, Listings};
use crate::memory::Memory;
use crate::mime;
use crate::releases::Older;
use crate::representation::{Content, Representation, Sending};
use crate::resource::{Named, Resource, Seen, Variant};
use crate::settings::{SiteError, SiteSettings};
use crate::value;

use pictures::{Picture, picture};
pub(crate) use prepare::Preparation;
use prepare::Rules;

/// One request, as far as a file server cares.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path, without the query; escapes that are left are decoded here, once.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The header fields.
    pub fields: &'a dyn Fields,
    /// How the answer will be sent.
    pub sending: Sending,
}

/// What a site holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many paths.
    pub entries: u64,
    /// How many bytes, bookkeeping included.
    pub bytes: u64,
}

/// See the module.
pub struct Site {
    files: Arc<dyn Files>,
    older: Option<Older>,
    index: Vec<String>,
    listings: Option<Listings>,
    fallback: Option<String>,
    precompressed: Vec<Encoding>,
    images: Option<Images>,
    /// What is shared with the keeper.
    preparation: Arc<Preparation>,
    keeper: Keeper,
}

/// What listings may take, beside `memory`, is this part of it.
const LISTINGS_SHARE: u64 = 8;

/// What the fallback is called in memory. No path has two slashes in a row: it is apart from the
/// file under its own name, whose answers may say where it is.
const FALLBACK: &str = "//fallback";

/// What stands behind a path.
enum Located {
    File(Arc<Resource>),
    /// A directory that can be shown, named without its slash.
    Directory,
}

impl Site {
    /// A site over the file system, whose changes are watched for.
    ///
    /// # Errors
    ///
    /// Where the root is no directory that can be reached, or a setting is impossible.
    pub fn new(settings: SiteSettings) -> Result<Self, SiteError> {
        match std::fs::metadata(&settings.root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(SiteError::NotADirectory(settings.root)),
            Err(error) => {
                let root = settings.root;
                return Err(SiteError::Root { root, error });
            }
        }
        Self::over(Disk::watched(settings.root.clone()), settings)
    }

    /// A site over any files; `settings.root` is not looked at, but for older releases.
    ///
    /// # Errors
    ///
    /// Where a setting is impossible.
    pub fn over(files: Arc<dyn Files>, settings: SiteSettings) -> Result<Self, SiteError> {
        for name in &settings.index {
            if !is_relative(name) || name.contains('/') {
                return Err(SiteError::Index(name.clone()));
            }
        }
        if let Some(path) = &settings.fallback {
            if !is_relative(path) {
                return Err(SiteError::Fallback(path.clone()));
            }
            let reason = match files.look(path) {
                Ok(Found::File(_)) => None,
                Ok(Found::Directory) => Some("it is a directory".to_owned()),
                Err(trouble) => Some(trouble.to_string()),
            };
            if let Some(reason) = reason {
                let path = path.clone();
                return Err(SiteError::FallbackMissing { path, reason });
            }
        }
        let older = settings
            .releases
            .map(|releases| Older::new(&settings.root, releases));
        let preparation = Arc::new(Preparation::new(
            Memory::new(settings.memory),
            Rules {
                cache_control: settings.cache_control,
                immutable: settings.immutable,
                by_accept: settings
                    .images
                    .as_ref()
                    .is_some_and(|i| !i.formats.is_empty()),
                dictionaries: settings.dictionaries,
                memory: settings.memory,
                max_memory_file: settings.max_memory_file,
            },
        ));
        Ok(Self {
            files,
            older: older.transpose()?,
            index: settings.index,
            listings: settings
                .listing
                .then(|| Listings::new(settings.memory / LISTINGS_SHARE)),
            fallback: settings.fallback,
            precompressed: distinct(settings.precompressed),
            images: settings.images.as_ref().map(Images::new).transpose()?,
            keeper: Keeper::new(&preparation),
            preparation,
        })
    }

    /// Answers one request.
    ///
    /// A file that is in memory and whose changes are told costs no system call, and where they
    /// are not told, none within a second. Otherwise a few quick ones are made; no more than
    /// `max_memory_file` bytes are read.
    pub fn answer(&self, request: &Request<'_>, now: Instant) -> Answer {
        let head = request.method == Method::HEAD;
        if !head && request.method != Method::GET {
            return plain(for_method(request.method), head);
        }
        let target = match Target::parse(request.path) {
            Ok(target) => target,
            Err(refusal) => return plain(Outcome::Refused(refusal), head),
        };
        let at = self.memory().millis(now);
        let answer = match self.locate(target.as_str(), target.as_str(), at) {
            Ok(Located::Directory) => redirect(&target, head),
            Ok(Located::File(resource)) => {
                match self.difference(request, target.as_str(), &resource, at) {
                    Some(answer) => Ok(answer),
                    None => self.represent(request, target.as_str(), &resource, at),
                }
            }
            Err(Trouble::Missing) if target.is_directory() => {
                match self.list(request, target.as_str(), at) {
                    Err(trouble) => self.without(request, &target, trouble, at),
                    listed => listed,
                }
            }
            Err(trouble) => self.without(request, &target, trouble, at),
        };
        match answer {
            Ok(answer) if answer.outcome == Outcome::Redirect => answer.with_query(request.query),
            Ok(answer) => answer,
            Err(trouble) => {
                if let Trouble::Io(error) = &trouble {
                    tracing::warn!(path = target.as_str(), %error, "a file cannot be read");
                }
                plain(Outcome::from(&trouble), head)
            }
        }
    }

    /// What is in memory at present.
    pub fn held(&self) -> Held {
        let (entries, bytes) = self.memory().held();
        Held { entries, bytes }
    }

    /// What became of pictures, where smaller forms of them are made.
    pub fn images(&self) -> Option<images::Counts> {
        self.images.as_ref().map(Images::counts)
    }

    fn memory(&self) -> &Memory {
        self.preparation.memory()
    }

    /// The resource behind `path`, from memory, where it is called `key`, or from the disk.
    fn locate(&self, key: &str, path: &str, at: u64) -> Result<Located, Trouble> {
        let held = self.memory().find(key, at);
        if let Some(resource) = held.as_ref().filter(|held| held.trusted(at)) {
            return Ok(Located::File(Arc::clone(resource)));
        }
        let found = self
            .find(path, at)
            .map(|found| match (found, key == FALLBACK) {
                (Some(found), true) => Some(found.named_as(Named::Fallback)),
                (found, _) => found,
            });
        match (found, held) {
            (Ok(Some(found)), Some(held)) if held.is_as_good_as(&found) => Ok(Located::File(held)),
            (Ok(Some(found)), Some(held)) => {
                let found = Arc::new(found.adopt(&held));
                self.memory().keep(key, &found);
                Ok(Located::File(found))
            }
            (Ok(Some(found)), None) => Ok(Located::File(Arc::new(found))),
            (other, held) => {
                if held.is_some() {
                    self.memory().forget(key);
                }
                other.map(|_| Located::Directory)
            }
        }
    }

    /// Looks `path` up on the disk; `None` is a directory that wants a slash. What is not there is
    /// looked for in older releases.
    fn find(&self, path: &str, at: u64) -> Result<Option<Resource>, Trouble> {
        let found = self.find_in(&self.files, path, at);
        match (&found, &self.older) {
            (Err(Trouble::Missing), Some(older)) if !is_directory(path) => {
                let older = older.files(at).into_iter();
                let mut older = older.map(|files| self.find_in(&files, path, at));
                // A directory that is gone has no address any more: only files are taken.
                let found_there = older.find(|found| matches!(found, Ok(Some(_))));
                found_there.unwrap_or(found)
            }
            _ => found,
        }
    }

    fn find_in(
        &self,
        files: &Arc<dyn Files>,
        path: &str,
        at: u64,
    ) -> Result<Option<Resource>, Trouble> {
        files.refresh();
        let mut signs = signs(&**files, path);
        let (path, facts, named) = if is_directory(path) {
            let (path, facts) = self.index(&**files, path, &mut signs)?;
            (path, facts, Named::Index)
        } else {
            match files.look(path)? {
                Found::File(facts) => (path.to_owned(), facts, Named::Itself),
                Found::Directory => {
                    match self.index(&**files, &format!("{path}/"), &mut signs) {
                        Ok(_) => {}
                        Err(Trouble::Missing) if self.listings.is_some() => {}
                        Err(trouble) => return Err(trouble),
                    }
                    return Ok(None);
                }
            }
        };
        let seen = Seen {
            files: Arc::clone(files),
            packed: match signs.as_ref().and_then(|signs| signs.last()) {
                Some(sign) if !sign.may_be_packed() => Vec::new(),
                _ => self.siblings(&**files, &path, &facts),
            },
            plain: Variant {
                encoding: None,
                path: path.into(),
                facts,
                ready: None,
            },
            named,
            signs,
        };
        Ok(Some(Resource::new(seen, at)))
    }

    /// The first index that stands in `directory`, which ends with a slash or is the root.
    fn index(
        &self,
        files: &dyn Files,
        directory: &str,
        signs: &mut Option<Vec<Sign>>,
    ) -> Result<(String, Facts), Trouble> {
        for name in &self.index {
            if let Some(all) = signs {
                match files.sign(directory.trim_end_matches('/'), name) {
                    Some(sign) => all.push(sign),
                    None => *signs = None,
                }
            }
            let path = format!("{directory}{name}");
            match files.look(&path) {
                Ok(Found::File(facts)) => return Ok((path, facts)),
                Ok(Found::Directory) | Err(Trouble::Missing) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Missing)
    }

    fn siblings(&self, files: &dyn Files, path: &str, plain: &Facts) -> Vec<Variant> {
        let packed: &[Encoding] = if mime::packs(mime::of(path)) {
            &self.precompressed
        } else {
            &[]
        };
        let packed = packed.iter();
        let packed = packed.filter_map(|&encoding| sibling(files, path, plain, encoding));
        packed.collect()
    }

    /// Chooses the form of a picture, and lets what was chosen answer.
    fn represent(
        &self,
        request: &Request<'_>,
        key: &str,
        resource: &Arc<Resource>,
        at: u64,
    ) -> Result<Answer, Trouble> {
        let picture = match &self.images {
            Some(images) => picture(images, &self.preparation, request, resource, at),
            None => Picture::Original,
        };
        match picture {
            Picture::Made(answer) => Ok(answer),
            Picture::ForNow => Ok(self.as_it_is(request, key, resource)?.for_now()),
            Picture::Original => self.as_it_is(request, key, resource),
        }
    }

    /// Chooses the coding and lets its representation answer.
    fn as_it_is(
        &self,
        request: &Request<'_>,
        key: &str,
        resource: &Arc<Resource>,
    ) -> Result<Answer, Trouble> {
        let wanted = match resource.packed() {
            [] => None,
            packed => encoding::negotiate(request.fields, packed.iter().filter_map(|v| v.encoding)),
        };
        let variant = resource.variant(wanted);
        if let Some(ready) = variant.ready.as_deref().filter(|ready| is_current(ready)) {
            if matches!(ready.content(), Content::File(_)) && ready.becomes_popular() {
                self.keeper.freeze(key, resource, wanted);
            }
            return Ok(ready.answer(request.method, request.fields, request.sending));
        }
        let prepare = |variant| {
            let ready = self.preparation.prepare(key, resource, variant)?;
            if !ready.is_tagged() {
                self.keeper.hash(key, resource, variant.encoding);
            }
            Ok(ready.answer(request.method, request.fields, request.sending))
        };
        match prepare(variant) {
            Ok(answer) => Ok(answer),
            // A sibling that went away since it was seen; the file itself is as good.
            Err(_) if wanted.is_some() => prepare(resource.plain()),
            // Gone since it was seen, so that what is in memory is of no use either.
            Err(trouble) => {
                self.memory().forget(key);
                Err(trouble)
            }
        }
    }

    /// Shows a directory without an index.
    fn list(&self, request: &Request<'_>, directory: &str, at: u64) -> Result<Answer, Trouble> {
        let listings = self.listings.as_ref().ok_or(Trouble::Missing)?;
        let asked = listing::Asked {
            method: request.method,
            directory,
            query: request.query,
            fields: request.fields,
        };
        listings.answer(&*self.files, &asked, at)
    }

    /// Answers for a path that leads to no file.
    fn without(
        &self,
        request: &Request<'_>,
        target: &Target<'_>,
        trouble: Trouble,
        at: u64,
    ) -> Result<Answer, Trouble> {
        // A page of an application has no ending, or none that is a file type: a script or
        // picture that is missing must not arrive as a page.
        let is_page = matches!(trouble, Trouble::Missing) && mime::known(target.name()).is_none();
        let Some(fallback) = self.fallback.as_deref().filter(|_| is_page) else {
            return Err(trouble);
        };
        match self.locate(FALLBACK, fallback, at)? {
            Located::File(resource) => self.represent(request, FALLBACK, &resource, at),
            Located::Directory => Err(Trouble::Missing),
        }
    }
}

/// A sign of every name on the way to `path`; `None` where nobody tells of changes.
fn signs(files: &dyn Files, path: &str) -> Option<Vec<Sign>> {
    let mut signs = Vec::new();
    let mut from = 0;
    loop {
        let rest = path.get(from..)?;
        let name = rest.split('/').next()?;
        let directory = path.get(..from)?.trim_end_matches('/');
        if !name.is_empty() {
            signs.push(files.sign(directory, name)?);
        }
        from += name.len() + 1;
        if from >= path.len() {
            return Some(signs);
        }
    }
}

/// The precompressed form of `path`, unless it is older than the file: then it packs what
/// the file once was.
fn sibling(files: &dyn Files, path: &str, plain: &Facts, encoding: Encoding) -> Option<Variant> {
    let path = format!("{path}{}", encoding.suffix());
    match files.look(&path) {
        Ok(Found::File(facts)) if facts.len > 0 && second(&facts) >= second(plain) => {
            Some(Variant {
                encoding: Some(encoding),
                path: path.into(),
                facts,
                ready: None,
            })
        }
        _ => None,
    }
}

/// Whether a path names a directory.
fn is_directory(path: &str) -> bool {
    path.is_empty() || path.ends_with('/')
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("memory", self.memory())
            .finish_non_exhaustive()
    }
}

fn for_method(method: &Method) -> Outcome {
    if method == Method::OPTIONS {
        Outcome::Options
    } else {
        Outcome::MethodNotAllowed
    }
}

fn redirect(target: &Target<'_>, head: bool) -> Result<Answer, Trouble> {
    let mut answer = plain(Outcome::Redirect, head);
    let location = value::visible(&directory_reference(target));
    answer.headers.own.push((LOCATION, location));
    Ok(answer)
}

/// Whether what is ready can be sent. A descriptor is asked once more: between two looks its
/// file may have been written to, and what was promised could not be kept.
fn is_current(ready: &Representation) -> bool {
    match ready.content() {
        Content::Memory(_) | Content::Frozen(_) => true,
        Content::File(file) => crate::files::unchanged(file, ready.facts()),
    }
}

/// A path given by configuration: what a URL's path could lead to as well.
fn is_relative(path: &str) -> bool {
    let absolute = format!("/{}", path.replace('%', "%25"));
    Target::parse(&absolute).is_ok_and(|target| !target.is_directory())
}

fn distinct(mut codings: Vec<Encoding>) -> Vec<Encoding> {
    let mut seen = Vec::new();
    codings.retain(|coding| {
        let new = !seen.contains(coding);
        seen.push(*coding);
        new
    });
    codings
}

/// The second a file was last written in. Siblings are compared by it: a copied tree stamps
/// its files in any order within a moment.
fn second(facts: &Facts) -> i64 {
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match facts.modified.duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after.as_secs()),
        Err(before) => -signed(before.duration().as_secs()) - 1,
    }
}
