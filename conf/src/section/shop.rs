//! `[static.NAME]`.

use crate::config::{Precompressed, StaticSite};
use crate::defaults;
use crate::environment::FileKind;
use crate::keys::Kind;
use crate::read::{Finding, Table, not_empty, size_text};
use crate::text::{self, Wrong, quoted};

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
    Some(StaticSite {
        name: name.to_owned(),
        root: root?,
        index,
        fallback,
        precompressed: precompressed(table),
        cache_control: table.text("cache_control", |text| {
            text::header_value(&not_empty(text)?)
        }),
        memory,
        max_memory_file: part_of(table, "max_memory_file", defaults::MAX_MEMORY_FILE, memory),
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
