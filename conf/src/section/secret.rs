//! Secrets: found in a variable or a file, never in the configuration itself.

use crate::config::Secret;
use crate::environment::reason;
use crate::raw::{Node, Value};
use crate::read::{Finding, Table, not_empty};

use super::rules;

/// What a secret must be.
const ONE_WORD: &str = "it must hold one word of letters and digits";

/// `{ env = "NAME" }` or `{ file = "PATH" }`, of at least `least` bytes. The value itself is never
/// part of a message.
pub(super) fn secret(parent: &Table<'_>, name: &'static str, least: usize) -> Option<Secret> {
    let node = parent.get(name)?;
    if !matches!(node.value, Value::Table(_)) {
        parent.cx.error(
            Finding::error(node.place, "a secret does not stand in the configuration itself")
                .label("write { env = \"NAME\" } or { file = \"PATH\" }")
                .help("help: the file is shown, copied and kept in version control; the secret must not be. If this one was in use, choose a new one"),
        );
        return None;
    }
    let table = parent.table(name)?;
    let finding = match (table.get("env"), table.get("file")) {
        (Some(node), None) => return variable(&table, node, least),
        (None, Some(node)) => return secret_file(&table, node, least),
        (Some(_), Some(second)) => Finding::error(
            second.place,
            "a secret comes from `env` or from `file`, not from both",
        )
        .label("delete one of them"),
        (None, None) if table.has_unknown() => return None,
        (None, None) => Finding::error(node.place, "this does not say where the secret is")
            .label("write { env = \"NAME\" } or { file = \"PATH\" }"),
    };
    table.cx.error(finding);
    None
}

fn variable(table: &Table<'_>, node: &Node, least: usize) -> Option<Secret> {
    let name = table.text("env", not_empty)?;
    let Some(value) = table.cx.environment.variable(&name) else {
        table.cx.error(
            Finding::error(
                node.place,
                format!("the environment variable {name} is not set"),
            )
            .label("set it before the start, or use { file = \"PATH\" }")
            .help("help: `sudo` and service managers pass no variables on unless told to"),
        );
        return None;
    };
    checked(
        table,
        node,
        &value,
        &format!("the environment variable {name}"),
        least,
    )
}

fn secret_file(table: &Table<'_>, node: &Node, least: usize) -> Option<Secret> {
    let path = table.path("file")?;
    match table.cx.environment.read(&path) {
        Ok(bytes) => {
            let value = String::from_utf8_lossy(&bytes);
            let value = value.strip_suffix('\n').unwrap_or(&value);
            let value = value.strip_suffix('\r').unwrap_or(value);
            let from = format!("the file {}", path.display());
            checked(table, node, value, &from, least)
        }
        Err(error) => {
            table
                .cx
                .error(rules::unreadable(node.place, &path, &reason(&error)));
            None
        }
    }
}

/// One word of visible ASCII characters: what a bearer token is (RFC 6750 section 2.1), and what
/// survives files and variables unchanged.
fn checked(
    table: &Table<'_>,
    node: &Node,
    value: &str,
    from: &str,
    least: usize,
) -> Option<Secret> {
    let (what, fix) = if value.is_empty() {
        (format!("{from} is empty"), ONE_WORD.to_owned())
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        (
            format!("{from} holds spaces, line breaks or characters that cannot stand in a token"),
            ONE_WORD.to_owned(),
        )
    } else if value.len() < least {
        (
            format!("{from} holds {} bytes, which can be guessed", value.len()),
            format!("at least {least}, made by `openssl rand -hex 32`"),
        )
    } else {
        return Some(Secret::new(value.to_owned()));
    };
    table.cx.error(Finding::error(node.place, what).label(fix));
    None
}
