//! One link of a Link field (RFC 8288): whether a client can do something with it before the page is
//! there, and whether any client may be told of it.

/// Where a page is from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) scheme: &'a str,
    /// Lower-case, the port only where it is not the scheme's own.
    pub(crate) authority: &'a str,
}

/// What a link is for.
#[derive(Debug, Default)]
struct Relations {
    /// `preload` or `modulepreload`.
    preload: bool,
    preconnect: bool,
}

/// The links of one line, without the commas between them.
pub(super) fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    pieces(line, b',').filter(|link| !link.is_empty())
}

/// Whether `link` is worth telling, and harmless to everybody.
///
/// Left out is what names another host (but to connect to it), and what carries or asks for
/// something of a visitor's: credentials in the address, a nonce, `crossorigin=use-credentials`.
pub(super) fn is_a_hint(link: &[u8], origin: &Origin<'_>) -> bool {
    let mut parts = pieces(link, b';');
    let target = parts.next().and_then(|target| {
        let target = target.strip_prefix(b"<")?.strip_suffix(b">")?;
        std::str::from_utf8(target).ok()
    });
    let Some(target) = target.filter(|target| is_plain(target)) else {
        return false;
    };
    let mut relations = None;
    for part in parts {
        let (name, value) = parameter(part);
        match name.to_ascii_lowercase().as_slice() {
            // What comes behind the first one does not count (RFC 8288 section 3.3).
            b"rel" if relations.is_none() => relations = Some(Relations::of(value)),
            b"nonce" => return false,
            b"crossorigin" if value.eq_ignore_ascii_case(b"use-credentials") => return false,
            _ => {}
        }
    }
    let relations = relations.unwrap_or_default();
    match authority(target) {
        Target::Here => relations.preload,
        Target::Host { scheme, authority } => {
            let is_own = scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme))
                && authority.eq_ignore_ascii_case(origin.authority);
            relations.preconnect || (relations.preload && is_own)
        }
        Target::Other => false,
    }
}

impl Relations {
    fn of(value: &[u8]) -> Self {
        let mut relations = Self::default();
        for word in value.split(u8::is_ascii_whitespace) {
            relations.preload |= word.eq_ignore_ascii_case(b"preload")
                || word.eq_ignore_ascii_case(b"modulepreload");
            relations.preconnect |= word.eq_ignore_ascii_case(b"preconnect");
        }
        relations
    }
}

/// Where a target leads.
enum Target<'a> {
    /// To the page's own host.
    Here,
    Host {
        scheme: Option<&'a str>,
        authority: &'a str,
    },
    /// To no host (`data:`), or with a user's name and password.
    Other,
}

fn authority(target: &str) -> Target<'_> {
    let (scheme, rest) = match target.split_once("//") {
        Some(("", rest)) => (None, rest),
        Some((scheme, rest)) if is_http(scheme) => (scheme.strip_suffix(':'), rest),
        _ => {
            let first = target.split(['/', '?', '#']).next().unwrap_or_default();
            return match first.contains(':') {
                true => Target::Other,
                false => Target::Here,
            };
        }
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Target::Other;
    }
    Target::Host { scheme, authority }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https:") || scheme.eq_ignore_ascii_case("http:")
}

/// A backslash is a slash to a browser and none to us.
fn is_plain(target: &str) -> bool {
    !target.is_empty()
        && target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\'))
}

fn parameter(part: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = part.splitn(2, |&byte| byte == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii();
    let value = halves.next().unwrap_or_default().trim_ascii();
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    (name, quoted.unwrap_or(value))
}

/// Cuts at each `mark` that stands neither in an address nor in quotes.
fn pieces(text: &[u8], mark: u8) -> impl Iterator<Item = &[u8]> {
    let (mut address, mut quotes, mut escaped) = (false, false, false);
    text.split(move |&byte| {
        let plain = !address && !quotes;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quotes => escaped = true,
            b'"' if !address => quotes = !quotes,
            b'<' if plain => address = true,
            b'>' if !quotes => address = false,
            _ => {}
        }
        byte == mark && plain
    })
    .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin {
        scheme: "https",
        authority: "shop.test",
    };

    fn is_hint(link: &str) -> bool {
        is_a_hint(link.as_bytes(), &ORIGIN)
    }

    #[test]
    fn what_helps_any_visitor_is_a_hint() {
        for link in [
            "</app.css>; rel=preload; as=style",
            "</app.css>;REL=\"prefetch Preload\";as=style",
            "<app.js>; rel=modulepreload",
            "<?v=1>; rel=preload",
            "<https://shop.test/a.css>; rel=preload",
            "<//SHOP.test/a.css>; rel=preload",
            "</f.woff2>; rel=preload; as=font; crossorigin",
            "</f.woff2>; rel=preload; as=font; crossorigin=\"anonymous\"",
            "<https://cdn.test>; rel=preconnect",
            "<//cdn.test:8443>; rel=preconnect; crossorigin",
            "</a,b;c.css>; rel=preload",
        ] {
            assert!(is_hint(link), "{link}");
        }
    }

    #[test]
    fn what_is_of_one_visitor_or_of_another_host_is_none() {
        for link in [
            "",
            "</a>",
            "</a>; rel=next",
            "</a>; rel=next; rel=preload",
            "/a; rel=preload",
            "<>; rel=preload",
            "</a b>; rel=preload",
            "</a\\b>; rel=preload",
            "<https://cdn.test/a.css>; rel=preload",
            "<http://shop.test/a.css>; rel=preload",
            "<//cdn.test/a.css>; rel=preload",
            "<https://user:secret@shop.test/a.css>; rel=preload",
            "<https://user@cdn.test>; rel=preconnect",
            "</>; rel=preconnect",
            "</a.js>; rel=preload; nonce=abc",
            "</a.js>; rel=preload; crossorigin=use-credentials",
            "</a.js>; rel=preload; CrossOrigin=\"Use-Credentials\"",
            "<data:text/css,a>; rel=preload",
            "<javascript:alert(1)>; rel=modulepreload",
            "<ftp://shop.test/a>; rel=preload",
        ] {
            assert!(!is_hint(link), "{link}");
        }
    }

    #[test]
    fn a_line_is_cut_between_its_links_and_nowhere_else() {
        let line = "</a,b>; rel=preload; title=\"x, \\\"y, z\", </c>; rel=preload,, <d>;rel=next ";
        let links: Vec<_> = split(line.as_bytes())
            .map(|link| std::str::from_utf8(link).expect("text"))
            .collect();
        assert_eq!(
            links,
            [
                "</a,b>; rel=preload; title=\"x, \\\"y, z\"",
                "</c>; rel=preload",
                "<d>;rel=next"
            ]
        );
    }
}
