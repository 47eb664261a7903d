//! `images = { ... }` of a directory.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::config::{ImageFormat, Images};
use crate::defaults;
use crate::environment::FileKind;
use crate::keys::Kind;
use crate::read::{Finding, Table};

use super::rules;

/// In the order of the key's choices.
const FORMATS: [ImageFormat; 2] = [ImageFormat::Avif, ImageFormat::WebP];

/// Reads the table `images` of the `site` whose files are in `root`.
pub(super) fn images(table: &Table<'_>, site: &Table<'_>, root: Option<&Path>) -> Option<Images> {
    let formats = formats(table);
    let widths = widths(table);
    if formats.is_empty()
        && widths.is_empty()
        && let Some(node) = site.get("images")
    {
        table.cx.error(
            Finding::error(node.place, "images: neither a format nor a width is left")
                .label("name a format or a width, or delete `images`"),
        );
    }
    table.require("cache");
    let cache = cache(table, root)?;
    Some(Images {
        formats,
        widths,
        cache,
        size: table.size_or("size", defaults::IMAGES_SIZE),
        quality: table.integer_or("quality", defaults::IMAGES_QUALITY),
        workers: table.count("workers"),
        max_megapixels: table.count_or("max_megapixels", defaults::IMAGES_MAX_MEGAPIXELS),
    })
}

fn formats(table: &Table<'_>) -> Vec<ImageFormat> {
    let (Some(items), Kind::List { of, .. }) = (table.list("formats"), table.kind("formats"))
    else {
        return FORMATS.to_vec();
    };
    rules::distinct(table.cx, "formats", items, |item| {
        let index = table.cx.choice(item, "formats", of)?;
        FORMATS.get(index).copied()
    })
}

/// Rising, whatever the order they were written in.
fn widths(table: &Table<'_>) -> Vec<NonZeroU32> {
    let (Some(items), Kind::List { of, .. }) = (table.list("widths"), table.kind("widths")) else {
        return Vec::new();
    };
    let mut widths = rules::distinct(table.cx, "widths", items, |item| {
        let width = table.cx.integer(item, "widths", of)?;
        u32::try_from(width).ok().and_then(NonZeroU32::new)
    });
    widths.sort_unstable();
    widths
}

fn cache(table: &Table<'_>, root: Option<&Path>) -> Option<PathBuf> {
    let path = table.path("cache")?;
    let node = table.get("cache")?;
    if let Ok(kind) = table.cx.environment.kind(&path)
        && kind != FileKind::Directory
    {
        table.cx.error(
            Finding::error(
                node.place,
                format!("cache: {} is not a directory", path.display()),
            )
            .label("name a directory of its own; it is made where there is none"),
        );
    }
    if root.is_some_and(|root| path.starts_with(root)) {
        table.cx.error(
            Finding::error(node.place, "cache: this lies in root, and would be served")
                .label("name a directory outside of root: \"/var/cache/tidegate/images\""),
        );
    }
    Some(path)
}
