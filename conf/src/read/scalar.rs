//! Values that stand for themselves: numbers, times, sizes, words, and strings of a certain form.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cx, Finding, Table};
use crate::keys::{Key, Kind, Need, Shape, alternatives};
use crate::raw::{Node, Value};
use crate::suggest::nearest;
use crate::text::{self, Wrong, quoted};

impl<'a> Table<'a> {
    /// `true` or `false`.
    pub(crate) fn flag(&self, name: &'static str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(Node {
                value: Value::Bool(flag),
                ..
            }) => *flag,
            Some(node) => {
                self.wrong_kind(node, name, self.kind(name));
                default
            }
        }
    }

    /// A whole number within the bounds of its kind.
    pub(crate) fn integer(&self, name: &'static str) -> Option<u64> {
        let node = self.get(name)?;
        self.cx.integer(node, name, self.kind(name))
    }

    pub(crate) fn integer_or<T: TryFrom<u64>>(&self, name: &'static str, default: T) -> T {
        let given = self.integer(name).map(T::try_from);
        match given {
            Some(Ok(number)) => number,
            _ => default,
        }
    }

    pub(crate) fn count_or(&self, name: &'static str, default: u32) -> NonZeroU32 {
        NonZeroU32::new(self.integer_or(name, default)).unwrap_or(NonZeroU32::MIN)
    }

    /// The same where nothing holds without it.
    pub(crate) fn count(&self, name: &'static str) -> Option<NonZeroU32> {
        NonZeroU32::new(u32::try_from(self.integer(name)?).ok()?)
    }

    pub(crate) fn duration(&self, name: &'static str) -> Option<Duration> {
        let node = self.get(name)?;
        let kind = self.kind(name);
        let duration = self.cx.parsed(node, name, kind, text::duration)?;
        let above_zero = |kind: &Kind| matches!(kind, Kind::Duration { zero: false });
        let one_is = matches!(kind, Kind::Either(kinds) if kinds.iter().any(above_zero));
        if duration.is_zero() && (above_zero(kind) || one_is) {
            self.cx.error(
                Finding::error(
                    node.place,
                    format!("{name}: a time of zero makes no sense here"),
                )
                .label("write a longer time"),
            );
            return None;
        }
        Some(duration)
    }

    pub(crate) fn duration_or(&self, name: &'static str, default: Duration) -> Duration {
        self.duration(name).unwrap_or(default)
    }

    /// A percentage within the bounds of its kind.
    pub(crate) fn percent(&self, name: &'static str) -> Option<u32> {
        let kind = self.kind(name);
        let (min, max) = match kind {
            Kind::Percent { min, max } => (*min, *max),
            _ => (0, 100),
        };
        let node = self.get(name)?;
        self.cx
            .parsed(node, name, kind, |text| text::percent(text, min, max))
    }

    /// The same for one of at most 100%.
    pub(crate) fn share(&self, name: &'static str) -> Option<u8> {
        u8::try_from(self.percent(name)?).ok()
    }

    /// Bytes within the bounds of its kind.
    pub(crate) fn size(&self, name: &'static str) -> Option<u64> {
        let node = self.get(name)?;
        let kind = self.kind(name);
        let size = self.cx.parsed(node, name, kind, text::size)?;
        let Kind::Size { min, max } = kind else {
            return None;
        };
        if (*min..=*max).contains(&size) {
            return Some(size);
        }
        let (what, fix) = if size == 0 && *min == 1 {
            (
                "a size of zero makes no sense here",
                "write a larger size; zero does not mean unlimited".to_owned(),
            )
        } else if size == 0 {
            (
                "a size of zero makes no sense here",
                format!("at least \"{}\"", size_text(*min)),
            )
        } else if size < *min {
            (
                "this is too small",
                format!("at least \"{}\"", size_text(*min)),
            )
        } else {
            (
                "this is too large",
                format!("at most \"{}\"", size_text(*max)),
            )
        };
        self.cx
            .error(Finding::error(node.place, format!("{name}: {what}")).label(fix));
        None
    }

    pub(crate) fn size_or(&self, name: &'static str, default: u64) -> u64 {
        self.size(name).unwrap_or(default)
    }

    /// A string, understood by `parse`.
    pub(crate) fn text<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let node = self.get(name)?;
        self.cx.parsed(node, name, self.kind(name), parse)
    }

    /// The index of the word that stands there.
    pub(crate) fn choice<T: Copy>(&self, name: &'static str, values: &[T], default: T) -> T {
        let Some(node) = self.get(name) else {
            return default;
        };
        self.cx
            .choice(node, name, self.kind(name))
            .and_then(|index| values.get(index).copied())
            .unwrap_or(default)
    }

    /// The path of a key, resolved against the file that names it.
    pub(crate) fn path(&self, name: &'static str) -> Option<PathBuf> {
        let node = self.get(name)?;
        let text = self.cx.parsed(node, name, self.kind(name), not_empty)?;
        Some(self.cx.sources.resolve(node.place.file, &text))
    }
}

impl Cx<'_> {
    /// A string, understood by `parse`; anything else is reported.
    pub(crate) fn parsed<T>(
        &self,
        node: &Node,
        name: &str,
        kind: &Kind,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Value::Text(text) = &node.value else {
            self.wrong_kind(node, name, kind);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.error(
                    Finding::error(node.place, format!("{name}: {}", wrong.what)).label(wrong.fix),
                );
                None
            }
        }
    }

    pub(crate) fn integer(&self, node: &Node, name: &str, kind: &Kind) -> Option<u64> {
        let (Value::Integer(number), Kind::Integer { min, max }) = (&node.value, kind) else {
            self.wrong_kind(node, name, kind);
            return None;
        };
        if (i128::from(*min)..=i128::from(*max)).contains(number) {
            return u64::try_from(*number).ok();
        }
        let shown = match *number {
            i128::MAX => "this".to_owned(),
            number => number.to_string(),
        };
        self.error(
            Finding::error(node.place, format!("{name}: {shown} is out of range"))
                .label(format!("from {min} to {max}")),
        );
        None
    }

    /// The index of the word among those of its kind.
    pub(crate) fn choice(&self, node: &Node, name: &str, kind: &Kind) -> Option<usize> {
        let words = kind.words()?;
        let Value::Text(text) = &node.value else {
            self.wrong_kind(node, name, kind);
            return None;
        };
        if let Some(index) = words.iter().position(|(word, _)| word == text) {
            return Some(index);
        }
        let finding = Finding::error(
            node.place,
            format!("{name}: {} is not known here", quoted(text)),
        );
        let all: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
        let expected = match kind {
            Kind::Either(_) => kind.noun(),
            _ => alternatives(&all),
        };
        let near = habit(text)
            .filter(|ours| all.contains(ours) || ours.starts_with('{'))
            .or_else(|| nearest(text, words.iter().map(|(word, _)| *word)).map(quoted));
        self.error(match near {
            Some(near) => finding
                .label(format!("did you mean {near}?"))
                .help(format!("help: it takes {expected}")),
            None => finding.label(format!("it takes {expected}")),
        });
        None
    }

    /// Reports a value that is not of its key's kind.
    pub(crate) fn wrong_kind(&self, node: &Node, name: &str, kind: &Kind) {
        let message = format!(
            "{name} must be {}, this is {}",
            kind.noun(),
            node.value.noun()
        );
        let finding = Finding::error(node.place, message);
        self.error(match better(&node.value, kind) {
            Some(better) => finding.label(format!("write {better}")),
            None => finding.label(fallback(kind)),
        });
    }
}

impl Kind {
    /// The words that a choice has, also one among other kinds.
    fn words(&self) -> Option<&'static [(&'static str, &'static str)]> {
        match self {
            Self::Choice(words) => Some(words),
            Self::Either(kinds) => kinds.iter().find_map(Self::words),
            _ => None,
        }
    }
}

/// What other programs call what is called so here.
fn habit(word: &str) -> Option<String> {
    let ours = match word.to_ascii_lowercase().replace('-', "_").as_str() {
        "least_conn" | "leastconn" | "least_connections" | "least_outstanding" | "p2c" => {
            "least_request"
        }
        "least_time" | "latency" | "fastest" | "ewma" => "peak_ewma",
        "rr" | "wrr" | "static_rr" | "roundrobin" | "weighted" => "round_robin",
        "http/1.1" | "http1" | "http1.1" | "http/1" | "h1.1" | "http" => "h1",
        "http/2" | "http2" | "h2c" | "grpc" => "h2",
        "gzip" => "gz",
        "brotli" => "br",
        "zst" => "zstd",
        "warning" => "warn",
        "notice" => "info",
        "crit" | "fatal" | "critical" => "error",
        "tlsv1.2" | "tls1.2" => "1.2",
        "tlsv1.3" | "tls1.3" => "1.3",
        "ip" | "source" | "source_ip" | "remote_addr" | "client" => "client_ip",
        "ip_hash" | "hash" | "consistent_hash" => return Some("{ hash = \"client_ip\" }".into()),
        "uri_hash" | "uri" => return Some("{ hash = \"path\" }".into()),
        "ring_hash" => return Some("{ hash = \"client_ip\", table = \"ketama\" }".into()),
        "maglev" => return Some("{ hash = \"client_ip\", table = \"maglev\" }".into()),
        "ring" | "consistent" => "ketama",
        "v4" | "v4_only" | "inet" => "ipv4",
        "v6" | "v6_only" | "inet6" => "ipv6",
        "both" | "all" | "v4_preferred" => "auto",
        "up" => "healthy",
        "down" => "unhealthy",
        "plain" | "pretty" | "console" => "text",
        _ => return None,
    };
    Some(quoted(ours))
}

/// What is said where nothing better is known.
fn fallback(kind: &Kind) -> String {
    match kind {
        Kind::Integer { min, max } => format!("from {min} to {max}"),
        Kind::Table(shape) | Kind::Tables(shape) => format!("keys of it: {}", shape.names()),
        Kind::Either(kinds) => kinds
            .last()
            .map_or_else(|| kind.noun(), |last| format!("such as {}", last.sample())),
        _ => format!("one value, such as {}", kind.sample()),
    }
}

/// The value as it was probably meant.
fn better(value: &Value, kind: &Kind) -> Option<String> {
    match (value, kind) {
        (Value::Integer(n), Kind::Duration { .. }) => Some(format!("\"{n}s\" for seconds")),
        (Value::Integer(n), Kind::Size { .. }) => Some(format!("\"{n}B\" for bytes")),
        (Value::Integer(n), Kind::Percent { .. }) => Some(format!("\"{n}%\"")),
        (Value::Integer(n), Kind::Text(form)) => Some(match form.example.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => format!("\"{host}:{n}\""),
            _ => format!("\"{n}{}\"", unit(form.example)),
        }),
        (Value::Float(n), Kind::Percent { min, max }) => {
            let share = (n.parse::<f64>().ok()? * 100.0).round();
            let possible = (f64::from(*min)..=f64::from(*max)).contains(&share);
            possible.then(|| format!("\"{share}%\""))
        }
        (Value::Float(n), Kind::Choice(words)) => {
            let known = words.iter().any(|(word, _)| word == n);
            known.then(|| format!("\"{n}\", with quotes"))
        }
        (Value::Text(text), Kind::Integer { .. }) => {
            let number = text.trim().parse::<u64>().ok()?;
            Some(format!("{number}, without quotes"))
        }
        (Value::Text(text), Kind::Bool) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some("true, without quotes".into()),
            "false" | "no" | "off" => Some("false, without quotes".into()),
            _ => None,
        },
        (Value::Integer(1), Kind::Bool) => Some("true".into()),
        (Value::Integer(0), Kind::Bool) => Some("false".into()),
        (Value::Bool(true), Kind::Table(shape)) => Some(match shape.sample().as_str() {
            "{ ... }" => "{} to switch it on with its defaults".into(),
            sample => sample.to_owned(),
        }),
        (Value::Bool(is_on), Kind::Choice(words)) => {
            let word = if *is_on { "on" } else { "off" };
            let known = words.iter().any(|(known, _)| *known == word);
            known.then(|| quoted(word))
        }
        // Where it can be switched off, that is one of its kinds, and no mistake.
        (Value::Bool(false), Kind::Duration { zero: true, .. }) => Some("\"0s\"".into()),
        (Value::Bool(false), Kind::Duration { .. } | Kind::Integer { .. } | Kind::Size { .. }) => {
            Some("a large one; without the key its default holds".into())
        }
        // What stands in [tls] holds for the listeners that say nothing.
        (Value::Bool(false), Kind::Table(shape)) if shape.id == "client-auth" => Some(
            "nothing; if [tls] has it, move it from there to the listeners that want it".into(),
        ),
        (Value::Bool(false), Kind::Table(_)) => Some("nothing: leave the key out".into()),
        (Value::Text(_) | Value::Integer(_), Kind::Table(shape)) => alone(value, shape),
        (_, Kind::Either(kinds)) => kinds.iter().find_map(|kind| better(value, kind)),
        (_, Kind::OneOrMore(of)) => better(value, of),
        _ => None,
    }
}

/// What stands behind the number in `500B/s` or `80%`; nothing in a text of another form.
fn unit(example: &str) -> &str {
    let unit = example.trim_start_matches(|c: char| c.is_ascii_digit());
    match unit.len() < example.len() && !unit.contains(|c: char| c.is_ascii_digit()) {
        true => unit,
        false => "",
    }
}

/// A table in which the value stands alone, if that can be meant.
fn alone(value: &Value, shape: &Shape) -> Option<String> {
    let required = |key: &&Key| matches!(key.need, Need::Required);
    if let Value::Text(text) = value {
        // A word of one of its keys is no file and no name.
        let is_word = |key: &&Key| match &key.kind {
            Kind::Choice(words) => words.iter().any(|(word, _)| word == text),
            _ => false,
        };
        if let Some(key) = shape.keys.iter().find(is_word) {
            let others = shape.keys.iter().filter(required);
            let others = others.filter(|other| other.name != key.name);
            let mut pairs: Vec<_> = others
                .map(|other| format!("{} = {}", other.name, other.kind.sample()))
                .collect();
            pairs.push(format!("{} = {}", key.name, quoted(text)));
            return Some(format!("{{ {} }}", pairs.join(", ")));
        }
    }
    let wanted = match value {
        Value::Text(text) if text.starts_with('/') => shape.key("path_prefix"),
        _ => shape
            .key("host")
            .filter(|_| shape.key("path_prefix").is_some()),
    };
    let key = wanted.or_else(|| shape.keys.iter().find(|key| fits(value, &key.kind)))?;
    if shape
        .keys
        .iter()
        .filter(required)
        .any(|needed| needed.name != key.name)
    {
        return None;
    }
    let value = match value {
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        _ => return None,
    };
    Some(format!("{{ {} = {value} }}", key.name))
}

/// Whether a value is of a kind, and a time, size or percentage where that is wanted.
fn fits(value: &Value, kind: &Kind) -> bool {
    let Value::Text(text) = value else {
        return kind.accepts(value);
    };
    match kind {
        Kind::Duration { .. } => text::duration(text).is_ok(),
        Kind::Size { .. } => text::size(text).is_ok(),
        Kind::Percent { min, max } => text::percent(text, *min, *max).is_ok(),
        _ => kind.accepts(value),
    }
}

/// A string that is not empty.
pub(crate) fn not_empty(text: &str) -> Result<String, Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::new("the string is empty", "write a value"));
    }
    if text.contains('\0') {
        return Err(Wrong::new("there is a NUL in it", "delete it"));
    }
    Ok(text.to_owned())
}

/// A size as one would write it.
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes > 0 && bytes.is_multiple_of(1u64 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}
