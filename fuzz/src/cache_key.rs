//! What must hold of keys: no two requests share one unless the rules say so.
//!
//! What counts of a query is told here a second time, by other means.

use std::collections::BTreeMap;

use crate::cache::key::{Key, KeyBuf};
use crate::cache::query::{Pattern, QueryRules};

/// What a key is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    scheme: String,
    host: String,
    path: String,
    query: Option<String>,
    extra: Vec<Option<Vec<u8>>>,
}

/// Two requests have the same key exactly when scheme, host, path, what counts
/// of the query and the added parts are the same. The first octet sets the
/// rules, the second says which parts the second request has of the first;
/// then come the parts, each behind its length.
pub fn cache_key(data: &[u8]) {
    let Some(([setting, shared], mut rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let rules = rules(*setting);
    let one = parts(&mut rest);
    let mut other = parts(&mut rest);
    let has = |bit: u8| shared & (1 << bit) != 0;
    if has(0) {
        other.scheme.clone_from(&one.scheme);
    }
    if has(1) {
        other.host.clone_from(&one.host);
    }
    if has(2) {
        other.path.clone_from(&one.path);
    }
    if has(3) {
        other.query.clone_from(&one.query);
    }
    if has(4) {
        other.extra.clone_from(&one.extra);
    }
    let same = one.scheme == other.scheme
        && one.host == other.host
        && one.path == other.path
        && counting(&rules, one.query.as_deref()) == counting(&rules, other.query.as_deref())
        && one.extra == other.extra;
    let keys = (key(&rules, &one), key(&rules, &other));
    assert_eq!(keys.0 == keys.1, same, "{rules:?}: {one:?}, {other:?}");
}

/// The key of a request, whose parts are read back from it.
fn key(rules: &QueryRules, parts: &Parts) -> Key {
    let mut buffer = String::new();
    let query = rules.apply(parts.query.as_deref(), &mut buffer);
    let mut again = String::new();
    assert_eq!(
        rules.apply(query, &mut again),
        query,
        "{rules:?}: {parts:?}"
    );
    let mut built = KeyBuf::new();
    built.fill(&parts.scheme, &parts.host, &parts.path, query);
    for extra in &parts.extra {
        built.part(extra.as_deref());
    }
    let read = built.as_key().parts().expect("what was put in");
    assert_eq!(read.scheme, parts.scheme.as_bytes());
    assert_eq!(read.host, parts.host.as_bytes());
    assert_eq!(read.path, parts.path.as_bytes());
    assert_eq!(read.query, query.map(str::as_bytes));
    built.as_key().to_key()
}

fn rules(setting: u8) -> QueryRules {
    let has = |bit: u8| setting & (1 << bit) != 0;
    let names = ["a", "b c", "", "utm_b"].map(str::to_owned).to_vec();
    let patterns = ["utm_*", "fb", "b*"].map(|text| text.parse().expect("a pattern"));
    QueryRules {
        sort: has(0),
        keep: has(1).then_some(names),
        drop: if has(2) {
            patterns.to_vec()
        } else {
            Vec::new()
        },
    }
}

/// What counts of a query: no rule, the query; else its parameters that count.
#[derive(Debug, PartialEq, Eq)]
enum Counting {
    InOrder(Vec<String>),
    /// By decoded name, those of one name in order.
    ByName(BTreeMap<Vec<u8>, Vec<String>>),
}

fn counting(rules: &QueryRules, query: Option<&str>) -> Counting {
    let mut left = Vec::new();
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let end = parameter.find('=').unwrap_or(parameter.len());
        let name = decoded(&parameter[..end]);
        let kept = match &rules.keep {
            Some(names) => names.iter().any(|one| one.as_bytes() == name),
            None => true,
        };
        let dropped = rules.drop.iter().any(|pattern| match pattern {
            Pattern::Exact(text) => text.as_bytes() == name,
            Pattern::Prefix(text) => name.starts_with(text.as_bytes()),
        });
        if (kept && !dropped) || parameter.contains(';') {
            left.push((name, parameter.to_owned()));
        }
    }
    if !rules.sort {
        return Counting::InOrder(left.into_iter().map(|(_, parameter)| parameter).collect());
    }
    let mut by_name = BTreeMap::<_, Vec<_>>::new();
    for (name, parameter) in left {
        by_name.entry(name).or_default().push(parameter);
    }
    Counting::ByName(by_name)
}

fn decoded(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let digit = |at: usize| char::from(*name.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < name.len() {
        let (byte, taken) = match (name[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        out.push(byte);
        at += taken;
    }
    out
}

fn parts(rest: &mut &[u8]) -> Parts {
    let text = |bytes: Option<&[u8]>| bytes.map(|it| String::from_utf8_lossy(it).into_owned());
    Parts {
        scheme: text(piece(rest)).unwrap_or_default(),
        host: text(piece(rest)).unwrap_or_default(),
        path: text(piece(rest)).unwrap_or_default(),
        query: text(piece(rest)),
        extra: {
            let count = piece(rest).map_or(0, |it| it.len() % 4);
            (0..count)
                .map(|_| piece(rest).map(<[u8]>::to_vec))
                .collect()
        },
    }
}

/// The next piece; `None` where its length is 255, or nothing is left.
fn piece<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first()?;
    if *length == u8::MAX {
        *rest = tail;
        return None;
    }
    let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
    *rest = tail;
    Some(piece)
}
