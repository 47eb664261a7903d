//! Which file names carry a hash of their content, as build tools write them.
//!
//! `app.3f9a1c2b.js` never changes: another content has another name. Such a file may be kept
//! for a year, and its next release is found by the rest of the name. The name alone decides,
//! so the doubtful ones are refused: a plain file that is kept for a year by mistake does more
//! harm than a hashed one that is asked for again.
//!
//! Three forms are known. Hexadecimal digits (webpack, Sprockets, Django, Hugo, Next) of six
//! and more; eight characters of base64url (Vite, Rollup, SvelteKit); eight of base32 (esbuild,
//! Angular). The short ones could be words, dates or part numbers, so they must look like none
//! of these, and for what a build tool rarely makes (pictures, documents) all the more.
//!
//! What it does not do: look at the content, or at the path before the name.

use std::fmt;

/// A name of more bytes is no file's (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// SHA-512 in hexadecimal.
const LONGEST_HASH: usize = 128;

/// From this many hexadecimal digits on, no word, date or version is one by chance.
const LONG_HEX: usize = 12;

/// A name that is nothing but a hash must have this many digits.
const BARE_HEX: usize = 16;

/// What short hashes are long in base64url and base32.
const SHORT: usize = 8;

/// A name, taken apart at its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint<'a> {
    before: &'a str,
    hash: &'a str,
    after: &'a str,
}

impl<'a> Fingerprint<'a> {
    /// What stands before the hash, with the separator: `app.`. Empty where the name is
    /// nothing but a hash.
    pub fn before(&self) -> &'a str {
        self.before
    }

    /// The hash.
    pub fn hash(&self) -> &'a str {
        self.hash
    }

    /// What stands after the hash: `.js`.
    pub fn after(&self) -> &'a str {
        self.after
    }

    /// Whether both are the same file of perhaps different releases. Nothing is known of names
    /// that are hashes alone.
    pub fn same_file(&self, other: &Fingerprint<'_>) -> bool {
        !self.before.is_empty() && (self.before, self.after) == (other.before, other.after)
    }

    /// The names of the file in all its releases, shown as `app.*.js`.
    pub fn pattern(&self) -> Pattern<'a> {
        Pattern(*self)
    }
}

/// See [`Fingerprint::pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a>(Fingerprint<'a>);

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*{}", self.0.before, self.0.after)
    }
}

/// Takes the last segment of a path apart, if it carries a hash.
///
/// Pages and names without an ending never do.
pub fn of(name: &str) -> Option<Fingerprint<'_>> {
    if name.len() > LONGEST_NAME || name.contains('/') {
        return None;
    }
    let origin = Origin::of(name)?;
    // The last one holds: what comes before may be the hash of something else.
    name.rmatch_indices('.')
        .find_map(|(end, _)| ending_at(name, end, origin))
}

/// How much a kind of file is to be trusted to come from a build tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Scripts, styles, fonts and what belongs to them: hardly anything else makes them in
    /// numbers.
    Build,
    /// Pictures, documents, data: many are named by people, shops and cameras.
    Any,
}

impl Origin {
    /// `None` for pages, and for names without an ending.
    fn of(name: &str) -> Option<Self> {
        let (stem, ending) = name.rsplit_once('.')?;
        let plain = (1..=11).contains(&ending.len())
            && ending.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && ending.bytes().any(|byte| byte.is_ascii_alphabetic());
        let is = |kinds: &[&str]| kinds.iter().any(|kind| ending.eq_ignore_ascii_case(kind));
        if !plain || is(PAGES) {
            None
        } else if is(BUILT) || stem.ends_with(".LICENSE") {
            Some(Self::Build)
        } else {
            Some(Self::Any)
        }
    }
}

const PAGES: &[&str] = &[
    "html", "htm", "xhtml", "shtml", "php", "asp", "aspx", "jsp", "cgi",
];

const BUILT: &[&str] = &[
    "js", "mjs", "cjs", "css", "map", "wasm", "woff", "woff2", "ttf", "otf", "eot",
];

/// The hash that ends at `end`, where a dot stands.
fn ending_at(name: &str, end: usize, origin: Origin) -> Option<Fingerprint<'_>> {
    let (stem, _) = name.split_at_checked(end)?;
    let bounds = hex(stem, origin)
        .or_else(|| short(stem, origin))
        .map(|start| (start, end))
        .or_else(|| next_font(stem, origin));
    let (start, end) = bounds?;
    Some(Fingerprint {
        before: name.get(..start)?,
        hash: name.get(start..end)?,
        after: name.get(end..)?,
    })
}

/// Where the hexadecimal hash at the end of `stem` begins.
fn hex(stem: &str, origin: Origin) -> Option<usize> {
    let is_hex = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let length = stem.as_bytes().iter().rev().take_while(is_hex).count();
    let start = stem.len() - length;
    let (before, hash) = stem.split_at_checked(start)?;
    let mixed = has(hash, u8::is_ascii_digit) && has(hash, u8::is_ascii_lowercase);
    if length > LONGEST_HASH || !mixed || ends_uuid(before, hash) {
        return None;
    }
    let bare = before.is_empty();
    if !bare && !before.ends_with(['.', '-', '_']) {
        return None;
    }
    let sure = match origin {
        Origin::Build if bare => length >= BARE_HEX,
        Origin::Build => length >= LONG_HEX || built_hex(hash),
        // A bare one is more likely the key of a record that somebody may replace.
        Origin::Any if bare => false,
        Origin::Any if length >= LONG_HEX => !is_record(hash),
        Origin::Any => length >= SHORT && Runs::of(hash).count >= 4,
    };
    sure.then_some(start)
}

/// Whether six to eleven hexadecimal digits are neither a word with a number nor a date.
fn built_hex(hash: &str) -> bool {
    let runs = Runs::of(hash);
    match (hash.len(), runs.count) {
        (..6, _) | (6 | 7, ..3) => false,
        // `decade90`, `2024feb`, `20240102b`.
        (_, ..=2) => runs.words == 0 && !(runs.letters == 1 && hash.len() == 9),
        // `face2face`, `01dec2024`.
        (_, 3) => runs.words < runs.count - 1 && !MONTHS.iter().any(|name| hash.contains(name)),
        _ => true,
    }
}

/// The months that can be written in hexadecimal digits.
const MONTHS: [&str; 2] = ["dec", "feb"];

/// Runs of digits and of letters in a hexadecimal text.
struct Runs {
    count: usize,
    letters: usize,
    /// How many runs of letters could be words.
    words: usize,
}

impl Runs {
    fn of(hash: &str) -> Self {
        let mut runs = Self {
            count: 0,
            letters: 0,
            words: 0,
        };
        let kinds = |a: &u8, b: &u8| a.is_ascii_digit() == b.is_ascii_digit();
        for run in hash.as_bytes().chunk_by(kinds) {
            runs.count += 1;
            if run.first().is_some_and(u8::is_ascii_lowercase) {
                runs.letters += run.len();
                let spoken = run.len() >= 3 && run.iter().any(|byte| b"ae".contains(byte));
                runs.words += usize::from(spoken);
            }
        }
        runs
    }
}

/// Whether `hash` is the last group of a UUID, whose other four end `before`.
fn ends_uuid(before: &str, hash: &str) -> bool {
    const GROUPS: [usize; 4] = [4, 4, 4, 8];
    let Some(before) = before.strip_suffix('-').filter(|_| hash.len() == 12) else {
        return false;
    };
    let mut groups = before.rsplit('-');
    GROUPS.into_iter().all(|length| {
        let group = groups.next().and_then(|group| {
            let start = group.len().checked_sub(length)?;
            group.as_bytes().get(start..)
        });
        group.is_some_and(|group| group.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether a long hexadecimal text has the shape of a key of databases: a MongoDB ObjectId, or
/// a UUID (RFC 9562, version 4 or 7) without its dashes.
fn is_record(hash: &str) -> bool {
    let at = |index: usize| hash.as_bytes().get(index).copied().unwrap_or_default();
    match hash.len() {
        24 => true,
        32 => matches!(at(12), b'4' | b'7') && matches!(at(16), b'8' | b'9' | b'a' | b'b'),
        _ => false,
    }
}

/// Where the eight characters of base64url or base32 at the end of `stem` begin.
fn short(stem: &str, origin: Origin) -> Option<usize> {
    let start = stem.len().checked_sub(SHORT)?;
    let (before, hash) = stem.split_at_checked(start)?;
    if !before.ends_with(['.', '-']) || before.len() < 2 {
        return None;
    }
    let sure = is_base64(hash, origin) || (origin == Origin::Build && is_base32(before, hash));
    sure.then_some(start)
}

/// Whether eight characters are random base64url rather than words in any mixture of cases.
///
/// Counted are the words, numbers and abbreviations that a reader would see, and those which
/// nobody could pronounce count twice. Six of seven random texts have more than people write.
fn is_base64(hash: &str, origin: Origin) -> bool {
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mixed = has(hash, u8::is_ascii_uppercase) && has(hash, u8::is_ascii_lowercase);
    if !mixed || !hash.bytes().all(alphabet) {
        return false;
    }
    let parts = hash.split(['-', '_']);
    let separated = parts.clone().count() > 1;
    let mut seen = Seen::default();
    for part in parts {
        // `iD4-0003`: people number things so.
        if separated && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        seen.read(part);
    }
    match (separated, origin) {
        _ if seen.only_words => false,
        // `pt-BR-v2`, `HiFi-MM1`: many parts are no hash if each is simple.
        (true, _) if seen.longest_part < 3 => seen.score >= 6,
        (true, _) => seen.score >= 5 || (seen.score == 4 && seen.in_words == 0),
        (false, Origin::Build) => seen.score >= 5 || (seen.score == 4 && seen.in_words < 6),
        (false, Origin::Any) => seen.score >= 5,
    }
}

/// What a reader sees in a short text.
#[derive(Debug)]
struct Seen {
    score: usize,
    /// Tokens in the part that has most.
    longest_part: usize,
    /// Letters in words of three and more.
    in_words: usize,
    /// Whether it is `wordsInCamelCase` throughout.
    only_words: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            score: 0,
            longest_part: 0,
            in_words: 0,
            only_words: true,
        }
    }
}

impl Seen {
    fn read(&mut self, part: &str) {
        let mut rest = part.as_bytes();
        let mut tokens = 0;
        while let Some((token, after)) = rest
            .split_at_checked(token(rest))
            .filter(|t| !t.0.is_empty())
        {
            let word = token.last().is_some_and(u8::is_ascii_lowercase);
            let odd = match token {
                // `iPhone`, `eBook`, `v2`, `x86`.
                [b'e' | b'i' | b'v' | b'x'] if tokens == 0 => false,
                [letter] => letter.is_ascii_lowercase(),
                _ => word && !is_word(token),
            };
            self.score += 1 + usize::from(odd);
            self.only_words &= word && (token.len() > 1 || tokens == 0);
            if word && token.len() >= 3 {
                self.in_words += token.len();
            }
            rest = after;
            tokens += 1;
        }
        // People put nothing between two separators, nor one at an end.
        self.score += usize::from(tokens == 0);
        self.only_words &= tokens > 0;
        self.longest_part = self.longest_part.max(tokens);
    }
}

/// The length of the first token: `Word`, `word`, `ABBR` before a word or not, `123`.
fn token(text: &[u8]) -> usize {
    let run = |from: usize, kind: fn(&u8) -> bool| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| kind(byte)).count()
    };
    let upper = run(0, u8::is_ascii_uppercase);
    let lower = run(upper, u8::is_ascii_lowercase);
    match (upper, lower) {
        (0, 0) => run(0, u8::is_ascii_digit),
        (0 | 1, _) | (_, 0) => upper + lower,
        // The last capital begins the word.
        _ => upper - 1,
    }
}

/// Whether a token in small letters could be said, or is a common abbreviation.
fn is_word(token: &[u8]) -> bool {
    if token.len() > 2 && token.iter().any(is_vowel) {
        return token.windows(2).all(is_common);
    }
    let known = if token.len() == 2 {
        PAIRS
    } else {
        ABBREVIATIONS
    };
    known
        .iter()
        .any(|known| token.eq_ignore_ascii_case(known.as_bytes()))
}

/// Words without a vowel that are common in names of files.
const ABBREVIATIONS: &[&str] = &[
    "btn", "cdn", "cfg", "cms", "crm", "css", "csv", "ctx", "dns", "gps", "html", "http", "jpg",
    "ltr", "mrs", "msg", "nft", "php", "png", "ptr", "pwd", "rgb", "rss", "rtl", "sdk", "sms",
    "sql", "src", "ssl", "str", "svg", "tls", "tmp", "txt", "vpn", "xml", "xxl",
];

/// What is common of two letters: words, abbreviations, languages.
const PAIRS: &[&str] = &[
    "ad", "ai", "al", "am", "an", "ar", "as", "at", "be", "bg", "bw", "by", "co", "cs", "da", "db",
    "de", "do", "ed", "el", "em", "en", "eq", "es", "et", "eu", "ex", "fi", "fn", "fr", "fx", "gb",
    "go", "gt", "hd", "he", "hi", "hr", "hu", "id", "if", "in", "io", "ip", "is", "it", "ja", "js",
    "kb", "ko", "la", "le", "lg", "lo", "lr", "lt", "lv", "mb", "md", "me", "mp", "mr", "ms", "mu",
    "my", "nl", "no", "nr", "of", "oh", "ok", "on", "op", "or", "os", "ox", "pa", "pi", "pl", "pm",
    "pr", "pt", "px", "qr", "rb", "re", "ro", "ru", "se", "sk", "sl", "sm", "so", "st", "sv", "th",
    "to", "tr", "ts", "tv", "tx", "ui", "uk", "un", "up", "us", "ux", "vi", "vr", "vs", "we", "xl",
    "xs", "zh",
];

/// Whether a pair of letters is at least not rare inside of English words; with a vowel, any is.
fn is_common(pair: &[u8]) -> bool {
    let &[first, second] = pair else {
        return true;
    };
    let followers: &[u8] = match first.to_ascii_lowercase() {
        b'b' => b"bdjlrst",
        b'c' => b"chklnqrst",
        b'd' => b"dgjlmnrstvw",
        b'f' => b"flrst",
        b'g' => b"ghlmnrs",
        b'h' => b"dlmnrt",
        b'k' => b"bhklnrsw",
        b'l' => b"bcdfghklmnprstvw",
        b'm' => b"bfglmnpsw",
        b'n' => b"bcdfghjklmnpqrstvwxz",
        b'p' => b"dhlnprst",
        b'r' => b"bcdfghjklmnpqrstvw",
        b's' => b"bcdfghklmnpqrstw",
        b't' => b"bcdfhlmnprstwz",
        b'v' => b"rs",
        b'w' => b"bdfhklmnprst",
        b'x' => b"bcfhlmpt",
        b'z' => b"ltz",
        b'j' | b'q' => b"",
        _ => return true,
    };
    is_vowel(&second) || followers.contains(&second)
}

fn is_vowel(byte: &u8) -> bool {
    b"aeiouy".contains(&byte.to_ascii_lowercase())
}

/// Whether eight characters are random base32 rather than an abbreviation with a number.
///
/// There must be a digit with letters on both sides, and then either another number or letters
/// that nobody could pronounce. Behind the names that esbuild and Angular give, the first is
/// enough. In names of pictures this is more often the number of an article.
fn is_base32(before: &str, hash: &str) -> bool {
    let alphabet = |byte: u8| matches!(byte, b'A'..=b'Z' | b'2'..=b'7');
    if !hash.bytes().all(alphabet) {
        return false;
    }
    let kinds = |a: &u8, b: &u8| a.is_ascii_digit() == b.is_ascii_digit();
    let runs = hash.as_bytes().chunk_by(kinds).count();
    runs >= 4 || (runs == 3 && (BUNDLES.contains(&before) || is_unspeakable(hash)))
}

/// How the bundles of esbuild and Angular are called.
const BUNDLES: &[&str] = &["chunk-", "main-", "polyfills-", "scripts-", "styles-"];

/// Whether five consonants stand in a row, or a Q without its U.
fn is_unspeakable(text: &str) -> bool {
    let letters = |a: &u8, b: &u8| a.is_ascii_alphabetic() == b.is_ascii_alphabetic();
    text.as_bytes().chunk_by(letters).any(|run| {
        let consonants = |a: &u8, b: &u8| is_vowel(a) == is_vowel(b);
        let row = |row: &[u8]| row.len() >= 5 && !row.iter().any(is_vowel);
        let lonely = |pair: &[u8]| matches!(pair, [b'Q', next] if *next != b'U');
        run.chunk_by(consonants).any(row) || run.windows(2).any(lonely)
    })
}

/// Next names fonts `<16 digits>-s.p.woff2`.
fn next_font(stem: &str, origin: Origin) -> Option<(usize, usize)> {
    let hash = stem.strip_suffix("-s")?;
    let start = hex(hash, origin)?;
    (start == 0).then_some((0, hash.len()))
}

fn has(text: &str, kind: fn(&u8) -> bool) -> bool {
    text.as_bytes().iter().any(kind)
}

#[cfg(test)]
mod tests;
