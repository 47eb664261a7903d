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

#[test]
fn every_test_that_the_conformance_table_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("../docs/cache-conformance.md")).unwrap();
    let sources: String = ["src", "src/flight", "src/storable"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let names: Vec<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains('_'))
        .collect();
    assert!(names.len() > 50, "the table was found and names tests");
    for name in names {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "{name} is no test"
        );
    }
}
