//! `$1` and `${name}` in what a regular expression is replaced by.
//!
//! The `regex` crate takes an unknown group for an empty one, and the longest run
//! of letters, digits and `_` for the name: `$1x` is the group `1x`. Both would
//! silently give a wrong path, so both are found here.

use regex::Regex;

use crate::suggest::nearest;
use crate::text::Wrong;

/// Whether every group that `text` names is there.
pub(super) fn check(text: &str, regex: &Regex) -> Result<(), Wrong> {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (group, after, braced) = match rest.strip_prefix('{') {
            Some(inner) => {
                let Some((group, after)) = inner.split_once('}') else {
                    return Err(Wrong::new("`${` is not closed", "write ${name}"));
                };
                (group, after, true)
            }
            None => {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                (&rest[..end], &rest[end..], false)
            }
        };
        if group.is_empty() {
            return Err(Wrong::new(
                "a `$` alone",
                "write $1 for a group, or $$ for a dollar sign",
            ));
        }
        known(group, braced, regex)?;
        rest = after;
    }
    Ok(())
}

fn known(group: &str, braced: bool, regex: &Regex) -> Result<(), Wrong> {
    let groups = regex.captures_len();
    if let Ok(number) = group.parse::<usize>() {
        if number < groups {
            return Ok(());
        }
        return Err(Wrong::new(
            format!("`${group}` names a group that the regex does not have"),
            match groups {
                1 => "it has none; a group stands in parentheses".to_owned(),
                2 => "it has one group, $1".to_owned(),
                more => format!("it has the groups $1 to ${}", more - 1),
            },
        ));
    }
    let names: Vec<&str> = regex.capture_names().flatten().collect();
    if names.contains(&group) {
        return Ok(());
    }
    let digits = group.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &group[..group.len() - digits.len()];
    let fix = if !braced && !number.is_empty() {
        format!("write ${{{number}}}{digits}")
    } else if let Some(near) = nearest(group, names.iter().copied()) {
        format!("did you mean ${{{near}}}?")
    } else {
        "a named group is (?P<name>...); numbered ones are $1, $2, ...".to_owned()
    };
    Err(Wrong::new(
        format!("there is no group `{group}` in the regex"),
        fix,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fix(text: &str, regex: &str) -> Option<String> {
        let regex = Regex::new(regex).expect("compiles");
        check(text, &regex).err().map(|wrong| wrong.fix)
    }

    #[test]
    fn a_group_that_is_not_there_is_found() {
        assert_eq!(fix("/x/$1", "(a)"), None);
        assert_eq!(fix("/x/${name}/$$", "(?P<name>a)"), None);
        assert_eq!(fix("/x/$2", "(a)").as_deref(), Some("it has one group, $1"));
        assert_eq!(fix("/x/$1_y", "(a)").as_deref(), Some("write ${1}_y"));
        assert_eq!(
            fix("/x/${nmae}", "(?P<name>a)").as_deref(),
            Some("did you mean ${name}?")
        );
        assert!(fix("/x/$", "(a)").is_some());
    }

    proptest! {
        #[test]
        fn what_is_accepted_keeps_every_group(text in "(/|\\$|\\$1|\\$\\{1\\}|\\$\\{n\\}|a|_){0,8}") {
            let regex = Regex::new("^(?P<n>x)(y)$").expect("compiles");
            if check(&text, &regex).is_ok() {
                let mut out = String::new();
                let captures = regex.captures("xy").expect("fits");
                captures.expand(&text, &mut out);
                let groups = text.replace("$$", "").matches('$').count();
                prop_assert!(out.matches(['x', 'y']).count() == groups, "{} -> {}", text, out);
            }
        }
    }
}
