//! Pages from the disk into memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use static_server::mime;

use crate::exchange::maintenance::{Maintenance, Switch};
use crate::exchange::pages::{Page, Pages};

/// Bytes of a page: it is kept in memory, and sent in one piece.
const MOST: u64 = 256 * 1024;

/// A page that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Its file cannot be read.
    #[error("cannot read the page {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is larger than a page may be.
    #[error("the page {} is larger than {} KiB", path.display(), MOST / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Reads all pages of each `[error_pages.NAME]`.
///
/// # Errors
/// The first one that cannot be used.
pub(super) fn all(config: &conf::Config) -> Result<Vec<Arc<Pages>>, PageError> {
    let read = |settings: &conf::ErrorPages| {
        let pages = settings.pages.iter();
        let pages = pages.map(|(status, path)| Ok((*status, page(path)?)));
        let pages = pages.collect::<Result<Vec<_>, PageError>>()?;
        Ok(Arc::new(Pages::new(pages, settings.upstream)))
    };
    config.error_pages.iter().map(read).collect()
}

/// What closes the site. The switch of `before` goes on where the file is the same; another one is
/// looked at here.
///
/// # Errors
/// Its page cannot be used.
pub(super) fn closed(
    config: &conf::Config,
    before: Option<&Maintenance>,
) -> Result<Option<Maintenance>, PageError> {
    let Some(settings) = &config.server.maintenance else {
        return Ok(None);
    };
    let page = settings.page.as_deref().map(page).transpose()?;
    let known = before.map(Maintenance::switch);
    let switch = match known.filter(|switch| switch.file() == settings.file) {
        Some(switch) => switch.clone(),
        None => Arc::new(Switch::new(settings.file.clone())),
    };
    switch.look();
    Ok(Some(Maintenance::new(settings, page, switch)))
}

/// Reads one page; its name says what it is.
///
/// # Errors
/// It cannot be read, or is too large.
pub(super) fn page(path: &Path) -> Result<Page, PageError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut content))
        .map_err(|source| PageError::File {
            path: path.to_owned(),
            source,
        })?;
    if content.len() as u64 > MOST {
        return Err(PageError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(Page::new(mime::of(&path.to_string_lossy()), &content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_up_to_its_bound() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("404.html");
        let most = usize::try_from(MOST).expect("a size");
        std::fs::write(&path, vec![b'x'; most]).expect("written");
        assert!(page(&path).is_ok());
        std::fs::write(&path, vec![b'x'; most + 1]).expect("written");
        let error = page(&path).expect_err("too large").to_string();
        assert!(error.ends_with("is larger than 256 KiB"), "{error}");
        let error = page(&folder.path().join("none")).expect_err("not there");
        assert!(error.to_string().contains("none: "), "{error}");
    }
}
