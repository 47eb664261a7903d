//! What somebody wants purged, read from what they wrote.

use http::Uri;

use super::normalise::canonical;

/// What is to be purged. Hosts are in the spelling of keys: lower case, with the port where that is
/// not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One page, with all its variants.
    Url(Url),
    /// All pages with a tag.
    Tag(Box<[u8]>),
    /// All pages of a host whose path begins so, whatever their scheme.
    Prefix {
        /// The host.
        host: String,
        /// The beginning of the path.
        path: String,
    },
    /// All pages of a host.
    Host(String),
    /// Everything.
    All,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host and port in the spelling of keys.
    pub(crate) host: String,
    /// Path as written, not normalised; at least `/`.
    pub(crate) path: String,
    /// Query as written, without the `?`.
    pub(crate) query: Option<String>,
}

/// A purge, or the question what it would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purge {
    /// At least one.
    pub(crate) targets: Vec<Target>,
    /// Made stale instead of removed.
    pub(crate) soft: bool,
    /// Only counted.
    pub(crate) dry_run: bool,
}

/// The mistakes, each a sentence for the operator.
const NOTHING: &str = "say what: ?url=https://host/path, ?tag=NAME, ?prefix=https://host/path, ?host=HOST or ?all=true";
const NOT_A_URL: &str = "url is not a whole URL as https://host/path";
const NOT_ENCODED: &str = "a parameter is not well percent-encoded";

impl Purge {
    /// Reads `url`, `tag`, `prefix`, `host` (each any number of times), `all`, `soft` and `dry_run`.
    ///
    /// A URL that was not encoded (it holds `://`) is taken as it stands, to the end of the query, so
    /// that its own `?` and `&` need no care in a shell. One that was is decoded once.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn from_query(query: Option<&str>) -> Result<Self, String> {
        let mut purge = Self {
            targets: Vec::new(),
            soft: false,
            dry_run: false,
        };
        let mut rest = query.unwrap_or_default();
        while !rest.is_empty() {
            let (name, value) = next_parameter(&mut rest)?;
            match name {
                "url" => purge.targets.push(Target::Url(Url::parse(&value)?)),
                "prefix" => purge.targets.push(prefix(&value)?),
                "tag" if value.is_empty() => return Err("tag is empty".to_owned()),
                "tag" if value.contains([' ', ',', '\t']) => {
                    return Err(
                        "a tag has no space and no comma; give `tag` several times".to_owned()
                    );
                }
                "tag" => purge.targets.push(Target::Tag(value.into_bytes().into())),
                "host" => purge.targets.push(Target::Host(host(&value)?)),
                "all" if flag(name, &value)? => purge.targets.push(Target::All),
                "all" => {}
                "soft" => purge.soft = flag(name, &value)?,
                "dry_run" => purge.dry_run = flag(name, &value)?,
                "" => {}
                other => return Err(format!("there is no parameter {other:?}; {NOTHING}")),
            }
        }
        if purge.targets.is_empty() {
            return Err(NOTHING.to_owned());
        }
        Ok(purge)
    }
}

/// The first parameter of `rest`, which is cut; decoded, unless it is a URL in plain.
pub(crate) fn next_parameter<'q>(rest: &mut &'q str) -> Result<(&'q str, String), String> {
    let (parameter, tail) = rest.split_once('&').unwrap_or((rest, ""));
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    if matches!(name, "url" | "prefix") && value.contains("://") {
        let whole = &rest[name.len() + 1..];
        *rest = "";
        return Ok((name, whole.to_owned()));
    }
    *rest = tail;
    Ok((name, percent_decode(value).ok_or(NOT_ENCODED)?))
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(format!("{name} is true or false")),
    }
}

impl Url {
    /// Reads a whole URL.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|_| NOT_A_URL)?;
        let scheme = match url.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(NOT_A_URL.to_owned()),
        };
        let authority = url.authority().ok_or(NOT_A_URL)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err("url must name a host and no user".to_owned());
        }
        let path = match url.path() {
            "" => "/",
            path => path,
        };
        let name = authority.host().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        Ok(Self {
            scheme,
            host: super::spelled(name, authority.port_u16(), scheme == "https"),
            path: path.to_owned(),
            query: url.query().map(str::to_owned),
        })
    }
}

/// A URL whose path is the beginning of paths.
fn prefix(text: &str) -> Result<Target, String> {
    let url = Url::parse(text).map_err(|why| why.replace("url", "prefix"))?;
    if url.query.is_some() {
        return Err("prefix has a query; it is the beginning of a path".to_owned());
    }
    Ok(Target::Prefix {
        host: url.host,
        path: canonical(&url.path),
    })
}

/// A host, with its port where that is not the scheme's own.
fn host(text: &str) -> Result<String, String> {
    let wrong = || format!("host is a name as shop.example or shop.example:8443, not {text:?}");
    if text.is_empty() || text.contains(['/', '@', '?', '#', ' ', ',']) {
        return Err(wrong());
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    Ok(authority.as_str().to_ascii_lowercase())
}

/// `None` for a broken escape or what is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(*high)? * 16 + digit(*low)?;
        decoded.push(u8::try_from(value).ok()?);
        rest = tail;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Purge, String> {
        Purge::from_query(Some(query))
    }

    fn target(url: &str) -> Result<Url, String> {
        match read(&format!("url={url}"))?.targets.pop() {
            Some(Target::Url(url)) => Ok(url),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_url_is_taken_whole_with_its_own_query() {
        let target = target("https://Shop.Example/a%2Fb?x=1&y=2").expect("a URL");
        assert_eq!(
            target,
            Url {
                scheme: "https",
                host: "shop.example".to_owned(),
                path: "/a%2Fb".to_owned(),
                query: Some("x=1&y=2".to_owned()),
            }
        );
    }

    #[test]
    fn an_encoded_url_is_decoded_once() {
        let purge = read("soft=1&url=http%3A%2F%2F[::1]%3A8080%2Fa%252Fb%3Fx%3D1%26y&dry_run")
            .expect("a purge");
        assert!(purge.soft && purge.dry_run);
        let [Target::Url(url)] = purge.targets.as_slice() else {
            panic!("{purge:?}");
        };
        assert_eq!((url.scheme, url.host.as_str()), ("http", "[::1]:8080"));
        assert_eq!(url.path, "/a%2Fb");
        assert_eq!(url.query.as_deref(), Some("x=1&y"));
    }

    #[test]
    fn a_url_without_a_path_is_its_root_and_its_own_port_is_not_written() {
        let url = target("https://shop.example:443").expect("a URL");
        assert_eq!(
            (url.host.as_str(), url.path.as_str()),
            ("shop.example", "/")
        );
    }

    #[test]
    fn tags_hosts_prefixes_and_everything_can_be_named_together() {
        let purge = read("tag=p1&tag=p%2B2&host=Shop.Example:8443&all=true&prefix=https://a/b")
            .expect("a purge");
        assert_eq!(
            purge.targets,
            [
                Target::Tag(b"p1"[..].into()),
                Target::Tag(b"p+2"[..].into()),
                Target::Host("shop.example:8443".to_owned()),
                Target::All,
                Target::Prefix {
                    host: "a".to_owned(),
                    path: "/b".to_owned()
                },
            ]
        );
    }

    #[test]
    fn a_prefix_is_spelt_as_normalised_paths_are() {
        let purge = read("prefix=https://shop.example/%70roducts/a%2fb").expect("a purge");
        let [Target::Prefix { path, .. }] = purge.targets.as_slice() else {
            panic!("{purge:?}");
        };
        assert_eq!(path, "/products/a%2Fb");
    }

    #[test]
    fn what_is_no_whole_url_is_refused() {
        for url in [
            "",
            "/path",
            "shop.example/path",
            "ftp://shop.example/",
            "https://",
            "https:///path",
            "https://user@shop.example/",
            "https://shop.example/ space",
            "https%3A%2F%2Fshop.example%2",
            "%ff%fe",
        ] {
            assert!(target(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_says_nothing_or_something_unknown_is_refused() {
        for query in [
            "",
            "uri=https://shop.example/",
            "tag=",
            "tag=a,b",
            "tag=a%20b",
            "host=",
            "host=https://shop.example/",
            "host=shop.example/path",
            "soft=1",
            "all=0",
            "all=maybe",
            "prefix=/catalog",
            "prefix=https://shop.example/a?b",
        ] {
            assert!(read(query).is_err(), "{query}");
        }
        assert!(Purge::from_query(None).is_err());
    }
}
