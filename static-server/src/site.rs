//! A directory as a site: which file answers a request.
//!
//! The way of a request: method, path, the resource behind the path (from memory, or looked
//! up), the coding, and then the representation's own conditions and ranges. The outcome
//! depends on the request and on the facts of the files alone.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use http::header::LOCATION;
use http::{HeaderValue, Method};

use crate::answer::{Answer, Outcome, plain};
use crate::confine::{Target, directory_reference};
use crate::encoding::{self, Encoding};
use crate::fields::Fields;
use crate::files::{Disk, Facts, Files, Found, Trouble};
use crate::memory::Memory;
use crate::mime;
use crate::representation::{Content, Representation, Source};
use crate::resource::{Resource, Variant};
use crate::settings::{SiteError, SiteSettings};
use crate::value;

/// One request, as far as a file server cares.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path, without the query; escapes that are left are decoded here, once.
    pub path: &'a str,
    /// The header fields.
    pub fields: &'a dyn Fields,
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
    files: Box<dyn Files>,
    memory: Memory,
    rules: Rules,
}

/// The settings that a request meets.
struct Rules {
    index: Vec<String>,
    fallback: Option<String>,
    precompressed: Vec<Encoding>,
    cache_control: Option<HeaderValue>,
    max_memory_file: u64,
}

/// What stands behind a path.
enum Located {
    File(Arc<Resource>),
    /// A directory with an index, named without its slash.
    Directory,
}

impl Site {
    /// A site over the file system.
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
        let disk = Disk::new(settings.root.clone());
        Self::over(Box::new(disk), settings)
    }

    /// A site over any files; `settings.root` is not looked at.
    ///
    /// # Errors
    ///
    /// Where a setting is impossible.
    pub fn over(files: Box<dyn Files>, settings: SiteSettings) -> Result<Self, SiteError> {
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
        Ok(Self {
            files,
            memory: Memory::new(settings.memory),
            rules: Rules {
                index: settings.index,
                fallback: settings.fallback,
                precompressed: distinct(settings.precompressed),
                cache_control: settings.cache_control,
                max_memory_file: settings.max_memory_file,
            },
        })
    }

    /// Answers one request.
    ///
    /// A file that is in memory and was checked within the last second costs no system call.
    /// Otherwise a few quick ones are made; no more than `max_memory_file` bytes are read.
    pub fn answer(&self, request: &Request<'_>, now: Instant) -> Answer {
        let head = request.method == Method::HEAD;
        if !head && request.method != Method::GET {
            return plain(for_method(request.method), head);
        }
        let target = match Target::parse(request.path) {
            Ok(target) => target,
            Err(refusal) => return plain(Outcome::Refused(refusal), head),
        };
        let at = self.memory.millis(now);
        match self.locate(target.as_str(), at) {
            Ok(Located::Directory) => redirect(&target, head),
            Ok(Located::File(resource)) => self.represent(request, target.as_str(), &resource),
            Err(trouble) => self.without(request, &target, trouble, at),
        }
        .unwrap_or_else(|trouble| {
            if let Trouble::Io(error) = &trouble {
                tracing::warn!(path = target.as_str(), %error, "a file cannot be read");
            }
            plain(Outcome::from(&trouble), head)
        })
    }

    /// What is in memory at present.
    pub fn held(&self) -> Held {
        let (entries, bytes) = self.memory.held();
        Held { entries, bytes }
    }

    /// The resource behind `path`, from memory or from the disk.
    fn locate(&self, path: &str, at: u64) -> Result<Located, Trouble> {
        let held = self.memory.find(path);
        if let Some(resource) = held.as_ref().filter(|held| held.trusted(at)) {
            return Ok(Located::File(Arc::clone(resource)));
        }
        let found = self.find(path, at);
        match (found, held) {
            (Ok(Some(found)), Some(held)) if held.still(&found) => Ok(Located::File(held)),
            (Ok(Some(found)), Some(held)) => {
                let found = Arc::new(found.adopt(&held));
                self.memory.keep(path, &found);
                Ok(Located::File(found))
            }
            (Ok(Some(found)), None) => Ok(Located::File(Arc::new(found))),
            (other, held) => {
                if held.is_some() {
                    self.memory.forget(path);
                }
                other.map(|_| Located::Directory)
            }
        }
    }

    /// Looks `path` up on the disk; `None` is a directory that wants a slash.
    fn find(&self, path: &str, at: u64) -> Result<Option<Resource>, Trouble> {
        self.files.refresh();
        if path.is_empty() || path.ends_with('/') {
            let (path, facts) = self.index(path)?;
            return Ok(Some(self.resource(path, facts, at)));
        }
        match self.files.look(path)? {
            Found::File(facts) => Ok(Some(self.resource(path.to_owned(), facts, at))),
            Found::Directory => {
                self.index(&format!("{path}/"))?;
                Ok(None)
            }
        }
    }

    /// The first index that stands in `directory`, which ends with a slash or is the root.
    fn index(&self, directory: &str) -> Result<(String, Facts), Trouble> {
        for name in &self.rules.index {
            let path = format!("{directory}{name}");
            match self.files.look(&path) {
                Ok(Found::File(facts)) => return Ok((path, facts)),
                Ok(Found::Directory) | Err(Trouble::Missing) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Missing)
    }

    fn resource(&self, path: String, facts: Facts, at: u64) -> Resource {
        let packed: &[Encoding] = if mime::packs(mime::of(&path)) {
            &self.rules.precompressed
        } else {
            &[]
        };
        let packed = packed.iter();
        let packed = packed.filter_map(|&encoding| self.sibling(&path, &facts, encoding));
        let packed = packed.collect();
        let plain = Variant {
            encoding: None,
            path: path.into(),
            facts,
            ready: None,
        };
        Resource::new(plain, packed, at)
    }

    /// The precompressed form of `path`, unless it is older than the file: then it packs what
    /// the file once was.
    fn sibling(&self, path: &str, plain: &Facts, encoding: Encoding) -> Option<Variant> {
        let path = format!("{path}{}", encoding.suffix());
        match self.files.look(&path) {
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

    /// Chooses the coding and lets its representation answer.
    fn represent(
        &self,
        request: &Request<'_>,
        key: &str,
        resource: &Resource,
    ) -> Result<Answer, Trouble> {
        let wanted = match resource.packed() {
            [] => None,
            packed => encoding::negotiate(request.fields, packed.iter().filter_map(|v| v.encoding)),
        };
        let variant = resource.variant(wanted);
        if let Some(ready) = variant.ready.as_deref().filter(|ready| is_current(ready)) {
            return Ok(ready.answer(request.method, request.fields));
        }
        match self.prepare(key, resource, variant) {
            Ok(ready) => Ok(ready.answer(request.method, request.fields)),
            // A sibling that went away since it was seen; the file itself is as good.
            Err(_) if wanted.is_some() => self
                .prepare(key, resource, resource.plain())
                .map(|ready| ready.answer(request.method, request.fields)),
            // Gone since it was seen, so that what is in memory is of no use either.
            Err(trouble) => {
                self.memory.forget(key);
                Err(trouble)
            }
        }
    }

    /// Reads or opens a variant, and keeps it for the next request.
    fn prepare(
        &self,
        key: &str,
        resource: &Resource,
        variant: &Variant,
    ) -> Result<Arc<Representation>, Trouble> {
        let (content, facts) = self.content(variant)?;
        let plain = resource.plain();
        let ready = Arc::new(Representation::new(Source {
            content,
            facts,
            content_type: HeaderValue::from_static(mime::of(&plain.path)),
            encoding: variant.encoding,
            modified: if variant.encoding.is_some() {
                plain.facts
            } else {
                facts
            },
            negotiable: !resource.packed().is_empty(),
            cache_control: self.rules.cache_control.clone(),
        }));
        self.memory
            .keep(key, &Arc::new(resource.with(variant.encoding, &ready)));
        Ok(ready)
    }

    /// The bytes of a small file, the descriptor of a large one.
    fn content(&self, variant: &Variant) -> Result<(Content, Facts), Trouble> {
        let limit = self.rules.max_memory_file;
        if variant.facts.len <= limit {
            match self.files.read(&variant.path, limit) {
                Ok((bytes, facts)) => return Ok((Content::Memory(bytes), facts)),
                // It has grown beyond the limit since it was looked at, or keeps changing.
                Err(Trouble::Unstable) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let (file, facts) = self.files.open(&variant.path)?;
        Ok((Content::File(file), facts))
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
        let Some(fallback) = self.rules.fallback.as_deref().filter(|_| is_page) else {
            return Err(trouble);
        };
        match self.locate(fallback, at)? {
            Located::File(resource) => self.represent(request, fallback, &resource),
            Located::Directory => Err(Trouble::Missing),
        }
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("memory", &self.memory)
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
        Content::Memory(_) => true,
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
