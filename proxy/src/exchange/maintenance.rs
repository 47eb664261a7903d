//! A site that is closed for a while: by what, to whom, and what is said then.
//!
//! A file's presence closes it. The file is looked at off the request's way; a
//! request reads one flag.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::pages::{Cover, Facts, Page, prefers_json};

/// `[server] maintenance`.
#[derive(Debug)]
pub(crate) struct Maintenance {
    switch: Arc<Switch>,
    page: Option<Page>,
    retry_after: HeaderValue,
    allow: Vec<IpNet>,
}

/// Whether the file is there, as last seen. It outlives reloads that leave the file the same.
#[derive(Debug)]
pub(crate) struct Switch {
    file: PathBuf,
    on: AtomicBool,
    /// Why the file cannot be looked at, if so.
    trouble: Mutex<Option<String>>,
}

impl Maintenance {
    /// By the configuration; `page` is its page, read.
    pub(crate) fn new(
        settings: &conf::Maintenance,
        page: Option<Page>,
        switch: Arc<Switch>,
    ) -> Self {
        Self {
            switch,
            page,
            retry_after: HeaderValue::from(settings.retry_after.as_secs().max(1)),
            allow: settings.allow.clone(),
        }
    }

    pub(crate) fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }

    /// Whether this client sees the site as usual.
    pub(crate) fn lets_in(&self, client: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&client))
    }

    /// When to come again, in seconds.
    pub(crate) fn retry_after(&self) -> HeaderValue {
        self.retry_after.clone()
    }

    /// What stands in for the site, for a client that asked with these fields; `None`: what stands in
    /// for any error.
    pub(crate) fn cover(&self, asked: &HeaderMap, facts: Facts<'_>) -> Option<Cover> {
        let page = self.page.as_ref()?;
        Some(match prefers_json(asked) {
            true => Cover::json(facts),
            false => page.cover(facts),
        })
    }
}

impl Switch {
    /// Off, until somebody looks.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self {
            file,
            on: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// As last seen.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Why the file cannot be looked at, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Looks at the file, and says in the log what changed. Not for an event loop: it asks the disk.
    pub(crate) fn look(&self) {
        self.take(self.file.symlink_metadata().map(drop));
    }

    /// `found`: what the system says of the file. Where it does not say, all stays as it is.
    fn take(&self, found: io::Result<()>) {
        let mut trouble = self.lock();
        let on = match found {
            Ok(()) => true,
            Err(error) if is_absence(error.kind()) => false,
            Err(error) => {
                let why = error.to_string();
                if trouble.as_ref() != Some(&why) {
                    let file = self.file.display();
                    tracing::warn!(%file, why, "the maintenance file cannot be looked at");
                    *trouble = Some(why);
                }
                return;
            }
        };
        *trouble = None;
        if self.on.swap(on, Ordering::Relaxed) != on {
            let file = self.file.display();
            match on {
                true => tracing::warn!(%file, "maintenance begins: the site is closed"),
                false => tracing::info!(%file, "maintenance is over: the site is open"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_absence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{StatusCode, header};

    use super::*;

    #[test]
    fn the_switch_follows_the_file() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("sub/maintenance");
        let switch = Switch::new(file.clone());
        switch.look();
        assert!(!switch.is_on(), "no folder, no file");
        std::fs::create_dir(folder.path().join("sub")).expect("a folder");
        std::fs::write(&file, "").expect("written");
        switch.look();
        assert!(switch.is_on());
        std::fs::remove_file(&file).expect("removed");
        switch.look();
        assert!(!switch.is_on());
    }

    #[test]
    fn what_cannot_be_seen_changes_nothing() {
        let switch = Switch::new("/file".into());
        switch.take(Ok(()));
        switch.take(Err(ErrorKind::PermissionDenied.into()));
        assert!(switch.is_on(), "as it was");
        assert!(switch.trouble().is_some());
        switch.take(Err(ErrorKind::NotFound.into()));
        assert!(!switch.is_on());
        assert_eq!(switch.trouble(), None);
    }

    #[test]
    fn the_page_is_for_people_and_machines_get_json() {
        let settings = conf::Maintenance {
            file: "/file".into(),
            page: None,
            retry_after: Duration::from_secs(600),
            allow: vec!["10.0.0.0/8".parse().expect("a network")],
        };
        let switch = Arc::new(Switch::new("/file".into()));
        let facts = Facts {
            status: StatusCode::SERVICE_UNAVAILABLE,
            id: "1",
        };
        let page = Page::new("text/html", b"back soon");
        let with = Maintenance::new(&settings, Some(page), switch.clone());
        let anything = HeaderMap::new();
        let body = |cover: Option<Cover>| cover.map(|cover| cover.body);
        assert_eq!(body(with.cover(&anything, facts)), Some("back soon".into()));
        let json =
            HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        let machine = body(with.cover(&json, facts)).expect("a body");
        assert!(machine.starts_with(b"{"), "{machine:?}");
        let without = Maintenance::new(&settings, None, switch);
        assert!(without.cover(&anything, facts).is_none());
        assert_eq!(without.retry_after(), "600");
        assert!(without.lets_in(IpAddr::from([10, 1, 2, 3])));
        assert!(!without.lets_in(IpAddr::from([192, 0, 2, 1])));
    }
}
