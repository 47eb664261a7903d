//! What is done for large files beside the way of requests, by one thread of a site: hashing
//! them, and copying those that are sent often to where they can be sent from without copying.
//!
//! Until a hash is known its file has no ETag; until a copy is there it is read piece by piece. What
//! there is no room for in the queue is asked for again by a later request.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sha2::{Digest, Sha256};

use crate::encoding::Encoding;
use crate::files::{Facts, pread, unchanged};
use crate::frozen::Frozen;
use crate::hash::Hash;
use crate::representation::Content;
use crate::resource::Resource;
use crate::site::Preparation;

/// Files that may wait.
const QUEUE: usize = 1_024;

/// Bytes read at a time.
const PIECE: usize = 256 * 1_024;

/// See the module.
pub(crate) struct Keeper {
    preparation: Arc<Preparation>,
    /// Made with the first task: a site of small files needs no thread.
    queue: OnceLock<SyncSender<Task>>,
    waiting: Arc<Mutex<HashSet<Box<str>>>>,
}

/// A variant to be read.
struct Task {
    key: Box<str>,
    resource: Arc<Resource>,
    encoding: Option<Encoding>,
    freeze: bool,
}

impl Keeper {
    pub(crate) fn new(preparation: &Arc<Preparation>) -> Self {
        Self {
            preparation: Arc::clone(preparation),
            queue: OnceLock::new(),
            waiting: Arc::default(),
        }
    }

    /// Has the tag of a variant found out.
    pub(crate) fn hash(&self, key: &str, resource: &Arc<Resource>, encoding: Option<Encoding>) {
        self.ask(key, resource, encoding, false);
    }

    /// Has a variant copied to where it can be sent from, if it is not too large for that.
    pub(crate) fn freeze(&self, key: &str, resource: &Arc<Resource>, encoding: Option<Encoding>) {
        if resource.variant(encoding).facts.len <= self.preparation.most_frozen() {
            self.ask(key, resource, encoding, true);
        }
    }

    fn ask(&self, key: &str, resource: &Arc<Resource>, encoding: Option<Encoding>, freeze: bool) {
        let path = resource.variant(encoding).path.clone();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains(&path) {
            return;
        }
        let task = Task {
            key: key.into(),
            resource: Arc::clone(resource),
            encoding,
            freeze,
        };
        let queue = self.queue.get_or_init(|| self.start());
        if queue.try_send(task).is_ok() {
            waiting.insert(path);
        }
    }

    /// Starts the thread; it ends when the queue's end is dropped.
    fn start(&self) -> SyncSender<Task> {
        let (queue, tasks) = sync_channel(QUEUE);
        let preparation = Arc::clone(&self.preparation);
        let waiting = Arc::clone(&self.waiting);
        let name = "file-keeper".to_owned();
        let work = move || work(&preparation, &waiting, &tasks);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::warn!(%error, "no thread to hash large files: they have no ETag");
        }
        queue
    }
}

fn work(preparation: &Preparation, waiting: &Mutex<HashSet<Box<str>>>, tasks: &Receiver<Task>) {
    while let Ok(task) = tasks.recv() {
        let path = task.resource.variant(task.encoding).path.clone();
        if let Err(error) = carry_out(preparation, &task) {
            // Requests go on as before, and those that come find out by themselves what is wrong.
            tracing::debug!(path = &*path, %error, "a file was not read ahead");
        }
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&path);
    }
}

fn carry_out(preparation: &Preparation, task: &Task) -> io::Result<()> {
    let variant = task.resource.variant(task.encoding);
    let opened = task
        .resource
        .files()
        .open(&variant.path)
        .map_err(io::Error::other)?;
    let (file, facts) = opened;
    // Where no copy can be made, the hash is still worth having.
    let (hash, frozen) = match read_through(&file, &facts, task.freeze) {
        Err(error) if task.freeze && error.kind() == io::ErrorKind::QuotaExceeded => {
            read_through(&file, &facts, false)?
        }
        other => other?,
    };
    preparation.learn(&variant.path, &facts, hash);
    let content = match frozen {
        Some(frozen) => Content::Frozen(Arc::new(frozen)),
        None => Content::File(file),
    };
    // What took the place of the resource meanwhile knows better.
    let held = preparation.memory().find_shared(&task.key);
    let resource = held.as_ref().unwrap_or(&task.resource);
    if Arc::ptr_eq(resource.files(), task.resource.files())
        && resource.variant(task.encoding).facts.identical(&facts)
    {
        let variant = resource.variant(task.encoding);
        preparation.keep(&task.key, resource, variant, (content, facts, Some(hash)));
    }
    Ok(())
}

/// Reads the whole file: its hash, and a copy if one is wanted.
fn read_through(file: &File, facts: &Facts, copy: bool) -> io::Result<(Hash, Option<Frozen>)> {
    let mut digest = Sha256::new();
    let mut pieces = |mut copy: Option<&mut File>| {
        let mut at = 0;
        while at < facts.len {
            let most = usize::try_from(facts.len - at).unwrap_or(PIECE).min(PIECE);
            let piece = pread(file, at, most)?;
            digest.update(&piece);
            if let Some(copy) = &mut copy {
                copy.write_all(&piece)?;
            }
            at += piece.len() as u64;
        }
        match unchanged(file, facts) {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    let frozen = match copy {
        true => Some(Frozen::filled(|copy| pieces(Some(copy)))?),
        false => {
            pieces(None)?;
            None
        }
    };
    Ok((Hash::finish(digest), frozen))
}
