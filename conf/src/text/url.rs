//! URLs that Tidegate itself asks.

use http::Uri;
use http::uri::Scheme;

use super::{Wrong, host_name, quoted};

/// `"http://10.0.0.5:8500/app"`, with its port and path spelled out.
pub(crate) fn http_url(text: &str) -> Result<String, Wrong> {
    let wrong = |what: &str, fix: String| Wrong::new(format!("{} {what}", quoted(text)), fix);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match text.starts_with(['/', '.']) {
            true => wrong("is a path, not a URL", format!("write file = \"{text}\"")),
            false => wrong("is not a URL", format!("write \"http://{text}\"")),
        });
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(wrong(
            "cannot be asked",
            format!("write \"http://{rest}\" or \"https://{rest}\""),
        ));
    }
    if let Some((before, _)) = text.split_once('#') {
        return Err(Wrong::new(
            "a fragment (`#...`) is never sent",
            format!("write \"{before}\""),
        ));
    }
    let uri: Uri = text.parse().map_err(|_| {
        wrong(
            "is not a URL",
            "such as \"http://10.0.0.5:8500/app\"".into(),
        )
    })?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(wrong(
            "has no host",
            "such as \"http://10.0.0.5:8500/app\"".into(),
        ));
    };
    if authority.as_str().contains('@') {
        return Err(Wrong::new(
            "a URL with a user and a password cannot be used here",
            "write it without; let the server know this machine by its address",
        ));
    }
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match literal {
        Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_ok() => host.to_owned(),
        _ => host_name(host)?,
    };
    let said = authority.as_str().len() > authority.host().len();
    let port = match authority.port_u16() {
        Some(port) if port > 0 => port,
        None if !said && *scheme == Scheme::HTTPS => 443,
        None if !said => 80,
        _ => {
            return Err(wrong(
                "has no port that anybody can connect to",
                "a port is a number from 1 to 65535".into(),
            ));
        }
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(format!("{scheme}://{host}:{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fix(text: &str) -> String {
        http_url(text).expect_err("wrong").fix
    }

    #[test]
    fn a_url_has_its_port_and_path_spelled_out() {
        let ok = |url: &str| Ok(url.to_owned());
        assert_eq!(
            http_url("http://10.0.0.5:8500/app?a=1"),
            ok("http://10.0.0.5:8500/app?a=1")
        );
        assert_eq!(http_url("http://nodes"), ok("http://nodes:80/"));
        assert_eq!(
            http_url("HTTPS://Nodes.internal/app"),
            ok("https://nodes.internal:443/app")
        );
        assert_eq!(http_url("http://[::1]:81/a"), ok("http://[::1]:81/a"));
    }

    #[test]
    fn what_is_no_url_is_answered_with_one() {
        assert_eq!(
            fix("10.0.0.5:8500/app"),
            "write \"http://10.0.0.5:8500/app\""
        );
        assert_eq!(fix("/etc/nodes.json"), "write file = \"/etc/nodes.json\"");
        assert!(fix("consul://10.0.0.5/app").starts_with("write \"http://10.0.0.5/app\""));
        assert_eq!(fix("http://a/b#c"), "write \"http://a/b\"");
        assert!(http_url("http://user:word@a/b").is_err());
        assert!(http_url("http://a:0/").is_err());
        assert!(http_url("http://a:99999/").is_err());
        assert!(http_url("http://a:/").is_err());
        assert!(http_url("http:///a").is_err());
        assert!(http_url("http://a b/").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_url_and_stays_as_it_is(text in "(http://|https://)?(\\PC|[a-z0-9.:/@\\[\\]?%-]){0,24}") {
            if let Ok(url) = http_url(&text) {
                prop_assert!(url.parse::<Uri>().is_ok(), "{}", url);
                prop_assert_eq!(http_url(&url), Ok(url));
            }
        }
    }
}
