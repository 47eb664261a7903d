//! What the tests of several modules share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

/// A fixed point in time plus `seconds`.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The HTTP-date of [`at`].
pub(crate) fn date(seconds: u64) -> String {
    String::from_utf8(crate::date::format(at(seconds)).to_vec()).unwrap()
}

/// Fields from `name: value` lines.
pub(crate) fn fields(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.trim().as_bytes()).unwrap(),
        );
    }
    map
}

/// A stored head that arrived at [`at`]`(0)` in answer to a request without fields.
pub(crate) fn head_of(status: u16, lines: &[&str]) -> crate::Head {
    head_for(&[], status, lines)
}

/// The same for a request with these fields.
pub(crate) fn head_for(asked: &[&str], status: u16, lines: &[&str]) -> crate::Head {
    use crate::{Freshness, Head, Policy, Request, Response, ResponseControl, Times};
    let (asked, map) = (fields(asked), fields(lines));
    let (policy, times) = (
        Policy::default(),
        Times {
            sent: at(0),
            received: at(0),
        },
    );
    let freshness = Freshness::new(&ResponseControl::read(&map), &map, true, &policy, times);
    let request = Request {
        method: &http::Method::GET,
        fields: &asked,
    };
    let status = http::StatusCode::from_u16(status).unwrap();
    Head::new(
        request,
        Response {
            status,
            fields: &map,
        },
        freshness,
        &policy,
    )
}

/// Of this crate, and end to end.
#[test]
fn every_test_that_the_conformance_table_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("../docs/cache-conformance.md")).unwrap();
    let own = sources_below(&root.join("src"));
    let end_to_end = sources_below(&root.join("../tests/e2e"));
    let (mut own_names, mut end_to_end_names) = (0, 0);
    for name in table.split('`').skip(1).step_by(2) {
        let (name, sources, count) = match name.strip_prefix("e2e::") {
            Some(name) => (name, &end_to_end, &mut end_to_end_names),
            None if name.contains('_') => (name, &own, &mut own_names),
            None => continue,
        };
        let found = sources.contains(&format!("fn {name}("));
        assert!(found, "{name} is no test");
        *count += 1;
    }
    assert!(own_names > 80, "the table was found and names tests");
    assert!(end_to_end_names > 40, "those of the whole, too");
}

fn sources_below(folder: &std::path::Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&sources_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}
