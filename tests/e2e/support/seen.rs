//! A request as an [`Origin`](super::Origin) read it, which is strict about what a head is.

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Counted from 0 over the origin's life.
    pub(crate) nth: usize,
    /// The connection it came on, counted from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Lines behind a chunked body.
    pub(crate) trailers: Vec<String>,
    /// The head's bytes.
    pub(crate) raw: String,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub(super) fn says(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    }
}

pub(super) fn parse(raw: &str, connection: usize) -> Result<Seen, String> {
    let odd = || format!("not an HTTP/1.1 request head: {raw:?}");
    let head = raw.strip_suffix("\r\n\r\n").ok_or_else(odd)?;
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(odd());
    }
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = first.as_slice() else {
        return Err(odd());
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(odd());
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(odd)?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(odd());
        }
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let seen = Seen {
        nth: 0,
        connection,
        method: (*method).to_owned(),
        target: (*target).to_owned(),
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        raw: raw.to_owned(),
    };
    match seen.all("host").len() {
        1 => Ok(seen),
        _ => Err(odd()),
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
