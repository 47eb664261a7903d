//! The demo's temporary folder: what the edge reads, and where it logs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use tempfile::{Builder, TempDir};

use super::{certs, config, random};

/// Bytes of one static file of the shop.
type Asset = (&'static str, &'static [u8]);

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("assets/", $name)))),*]
    };
}

/// The shop's static files, inside the binary.
const ASSETS: &[Asset] = assets![
    "shop.css",
    "shop.js",
    "logo.svg",
    "favicon.svg",
    "harbour.png",
    "lantern.svg",
    "mug.svg",
    "rope.svg",
    "clock.svg",
    "compass.svg",
    "blanket.svg",
    "boots.svg",
    "bottle.svg",
];

/// A folder that is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    temporary: TempDir,
}

impl Folder {
    /// Makes the folder and everything in it but the configuration.
    ///
    /// # Errors
    /// When the temporary directory cannot be written.
    pub(crate) fn create(now: SystemTime) -> Result<Self, anyhow::Error> {
        let temporary = Builder::new()
            .prefix("tidegate-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let folder = Self { temporary };
        let made = certs::make(now).context("cannot make a certificate")?;
        folder.write(config::CA, made.ca)?;
        folder.write(config::CERT, made.cert)?;
        folder.write(config::KEY, made.key)?;
        folder.write(config::TOKEN, random::hex()? + "\n")?;
        let root = folder.path().join(config::STATIC_ROOT);
        fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
        for (name, content) in ASSETS {
            folder.write(Path::new(config::STATIC_ROOT).join(name), content)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes the configuration and says where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_config(&self, text: &str) -> Result<PathBuf, anyhow::Error> {
        self.write(config::FILE, text)
    }

    /// Removes the folder now, to hear of it if that fails.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub(crate) fn remove(self) -> Result<(), anyhow::Error> {
        let path = self.path().to_owned();
        self.temporary
            .close()
            .with_context(|| format!("cannot remove {}", path.display()))
    }

    fn write(
        &self,
        name: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> Result<PathBuf, anyhow::Error> {
        let path = self.path().join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn the_folder_is_gone_at_the_end() {
        let folder = Folder::create(now()).expect("a folder");
        let path = folder.path().to_owned();
        assert!(path.join("static/shop.css").exists());
        folder.remove().expect("it can be removed");
        assert!(!path.exists());
    }

    #[test]
    fn every_file_in_the_assets_folder_is_embedded() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/assets");
        let mut there: Vec<_> = fs::read_dir(&source)
            .expect("src/demo/assets")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        let mut embedded: Vec<_> = ASSETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        there.sort();
        embedded.sort();
        assert_eq!(there, embedded);
    }
}
