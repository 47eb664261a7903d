//! `[static.NAME]`.

use std::path::Path;

use http::HeaderValue;

use crate::config::{ImmutableFiles, Precompressed, Releases, StaticSite};
use crate::defaults;
use crate::environment::FileKind;
use crate::keys::Kind;
use crate::read::{Finding, Table, not_empty, size_text};
use crate::text::{self, Wrong, quoted};

use super::images::images;
use super::rules;

pub(super) fn site(table: &Table<'_>, name: &str) -> Option<StaticSite> {
    let root = table
        .require("root")
        .and_then(|_| rules::directory(table, "root"));
    let fallback = table.text("fallback", |text| inside(text, "a fallback"));
    if let (Some(root), Some(fallback), Some(node)) = (&root, &fallback, table.get("fallback")) {
        let path = root.join(fallback);
        if !matches!(table.cx.environment.kind(&path), Ok(FileKind::File)) {
            table.cx.error(
                Finding::error(
                    node.place,
                    format!("fallback: there is no file {}", path.display()),
                )
                .label("a fallback is relative to root"),
            );
        }
    }
    let memory = table.size_or("memory", defaults::STATIC_MEMORY);
    let index = match table.get("index") {
        None => vec![defaults::INDEX.to_owned()],
        Some(_) => rules::strings(table, "index", file_name),
    };
    let releases = table
        .table("releases")
        .and_then(|inner| releases(&inner, table, root.as_deref()));
    let images = table
        .table("images")
        .and_then(|inner| images(&inner, table, root.as_deref()));
    Some(StaticSite {
        name: name.to_owned(),
        root: root?,
        index,
        listing: table.flag("listing", false),
        fallback,
        precompressed: precompressed(table),
        cache_control: cache_control(table, "cache_control", defaults::STATIC_CACHE_CONTROL),
        immutable: immutable(table),
        releases,
        images,
        dictionaries: table.flag("dictionaries", false),
        memory,
        max_memory_file: part_of(table, "max_memory_file", defaults::MAX_MEMORY_FILE, memory),
    })
}

fn cache_control(table: &Table<'_>, name: &'static str, default: &'static str) -> HeaderValue {
    let written = table.text(name, |text| text::header_value(&not_empty(text)?));
    written.unwrap_or(HeaderValue::from_static(default))
}

fn immutable(table: &Table<'_>) -> Option<ImmutableFiles> {
    let files = ImmutableFiles {
        paths: rules::strings(table, "immutable_paths", pattern),
        cache_control: cache_control(
            table,
            "immutable_cache_control",
            defaults::IMMUTABLE_CACHE_CONTROL,
        ),
    };
    if table.choice("immutable", &[true, false], true) {
        return Some(files);
    }
    for name in ["immutable_paths", "immutable_cache_control"] {
        if table.get(name).is_some() {
            table.no_effect(name, "immutable is \"off\"", "delete one of the two");
        }
    }
    None
}

fn pattern(text: &str) -> Result<glob::Pattern, Wrong> {
    let text = not_empty(text)?;
    if let Some(relative) = text.strip_prefix('/') {
        return Err(Wrong::new(
            "patterns are relative to root",
            format!("write {}", quoted(relative)),
        ));
    }
    glob::Pattern::new(&text).map_err(|wrong| {
        Wrong::new(
            format!("{} is no shell pattern: {}", quoted(&text), wrong.msg),
            "`*` stands for anything, `?` for one character, `[ab]` for one of these",
        )
    })
}

fn releases(table: &Table<'_>, site: &Table<'_>, root: Option<&Path>) -> Option<Releases> {
    let folder = table
        .get("folder")
        .map(|_| rules::directory(table, "folder"));
    let is_link = root.is_none_or(|root| table.cx.environment.is_link(root));
    if folder.is_none()
        && !is_link
        && let Some(node) = site.get("root")
    {
        table.cx.error(
            Finding::error(
                node.place,
                "releases: root is no symbolic link, so that it does not say where older releases are",
            )
            .label("let root be a link to the current release")
            .help("or write where releases are: releases = { keep = 3, folder = \"releases\" }"),
        );
    }
    table.require("keep");
    Some(Releases {
        keep: table.count("keep")?,
        folder: match folder {
            Some(folder) => Some(folder?),
            None => None,
        },
    })
}

/// A size that cannot be more than `memory`; its default gives way, what is written does not.
pub(super) fn part_of(table: &Table<'_>, name: &'static str, default: u64, memory: u64) -> u64 {
    let Some(size) = table.size(name) else {
        return default.min(memory);
    };
    if size > memory
        && let Some(node) = table.get(name)
    {
        table.cx.error(
            Finding::error(
                node.place,
                format!(
                    "{name} is more than the whole memory of {}",
                    size_text(memory)
                ),
            )
            .label("write a smaller size, or a larger `memory`"),
        );
    }
    size
}

fn precompressed(table: &Table<'_>) -> Vec<Precompressed> {
    let (Some(items), Kind::List { of, .. }) =
        (table.list("precompressed"), table.kind("precompressed"))
    else {
        return defaults::PRECOMPRESSED.to_vec();
    };
    rules::distinct(table.cx, "precompressed", items, |item| {
        let index = table.cx.choice(item, "precompressed", of)?;
        defaults::PRECOMPRESSED.get(index).copied()
    })
}

/// A file below the root: relative, and without `..`. `what` is what it is called, with its article.
pub(super) fn inside(text: &str, what: &str) -> Result<String, Wrong> {
    let text = not_empty(text)?;
    if let Some(relative) = text.strip_prefix('/') {
        return Err(Wrong::new(
            format!("{what} is a file relative to root"),
            format!("write {}", quoted(relative)),
        ));
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(Wrong::new(
            format!("{what} must not lead out of root"),
            "write a plain path such as \"index.html\"",
        ));
    }
    Ok(text)
}

fn file_name(text: &str) -> Result<String, Wrong> {
    let text = not_empty(text)?;
    if text.contains('/') || text == ".." || text == "." {
        return Err(Wrong::new(
            format!("{} is not a file name", quoted(&text)),
            "a name without slashes: \"index.html\"",
        ));
    }
    Ok(text)
}
