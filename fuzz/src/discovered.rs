//! Lists of endpoints that a file or a registry gives.

use std::collections::HashSet;

use conf::discovered::{Format, MOST, parse};
use conf::{Endpoint, EndpointAddress};
use serde_json::{Value, json};

/// A list is read or explained in one line; what is read is bounded, names nobody twice, and written
/// out again reads the same. The first octet says in which form it is.
pub fn discovered(data: &[u8]) {
    let Some((form, bytes)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let format = match form & 1 {
        0 => Format::Toml,
        _ => Format::Json,
    };
    let endpoints = match parse(text, format) {
        Ok(endpoints) => endpoints,
        Err(why) => {
            assert!(!why.is_empty() && !why.contains('\n'), "{why:?}");
            return;
        }
    };
    assert!(endpoints.len() <= MOST);
    let mut seen = HashSet::new();
    for endpoint in &endpoints {
        assert!(seen.insert(&endpoint.address), "twice: {endpoint:?}");
        assert!((1..=1000).contains(&endpoint.weight.get()));
        assert!(endpoint.priority <= 9);
        assert!(!endpoint.backup || endpoint.priority == 0);
        if let EndpointAddress::Unix(path) = &endpoint.address {
            assert!(path.is_absolute());
        }
    }
    let again = Value::from_iter(endpoints.iter().map(written)).to_string();
    assert_eq!(parse(&again, Format::Json), Ok(endpoints), "{again}");
}

fn written(endpoint: &Endpoint) -> Value {
    let mut value = match &endpoint.address {
        EndpointAddress::Srv(name) => json!({ "srv": name }),
        address => json!({ "address": address.to_string(), "weight": endpoint.weight }),
    };
    if endpoint.backup {
        value["backup"] = true.into();
    }
    if endpoint.priority > 0 {
        value["priority"] = endpoint.priority.into();
    }
    if let Some(zone) = &endpoint.zone {
        value["zone"] = zone.as_str().into();
    }
    value
}
