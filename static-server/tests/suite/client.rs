//! A client that says exactly what a case says, and reads what comes with suspicion.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Case, Check, Content};

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `addr` what `case` asks.
///
/// # Errors
///
/// What came back wrong, for a person to read.
pub fn run(addr: SocketAddr, case: &Case) -> Result<(), String> {
    let learned = learn(addr, case)?;
    let fields = case
        .fields
        .iter()
        .map(|(name, value)| (*name, learned.fill(value)));
    let reply = ask(addr, case.method, &case.target, &fields.collect::<Vec<_>>())
        .map_err(|problem| format!("{}: {problem}", case.name))?;
    judge(case, &learned, &reply).map_err(|problem| {
        let Reply {
            status,
            headers,
            body,
        } = &reply;
        format!(
            "{}: {problem}\n  {} {}\n  {status} {headers:?}, {} bytes",
            case.name,
            case.method,
            case.target,
            body.len()
        )
    })
}

/// Waits until the large file has its tag, which is found out beside the way of requests.
///
/// # Errors
///
/// Where none comes for ten thousand questions, or the server does not answer.
pub fn warm(addr: SocketAddr) -> Result<(), String> {
    for _ in 0..10_000 {
        if ask(addr, "HEAD", "/big.bin", &[])?.value("etag").is_some() {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err("the large file has no tag".to_owned())
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn value(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// What the placeholders of a case stand for.
struct Learned {
    etag: String,
}

impl Learned {
    fn fill(&self, value: &str) -> String {
        let strong = self.etag.trim_start_matches("W/");
        value
            .replace("{etag}", &self.etag)
            .replace("{weak}", &format!("W/{strong}"))
    }
}

/// Asks for the tag first where a case wants to name it.
fn learn(addr: SocketAddr, case: &Case) -> Result<Learned, String> {
    let wants = |value: &str| value.contains("{etag}") || value.contains("{weak}");
    let checked = case
        .headers
        .iter()
        .any(|(_, check)| matches!(check, Check::Is(v) if wants(v)));
    if !checked && !case.fields.iter().any(|(_, value)| wants(value)) {
        return Ok(Learned {
            etag: String::new(),
        });
    }
    let accept = case
        .fields
        .iter()
        .filter(|(name, _)| *name == "accept-encoding")
        .cloned();
    let reply = ask(addr, "GET", &case.target, &accept.collect::<Vec<_>>())?;
    match reply.value("etag") {
        Some(etag) => Ok(Learned {
            etag: etag.to_owned(),
        }),
        None => Err(format!("{}: a GET brought no ETag", case.name)),
    }
}

fn ask(
    addr: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, String)],
) -> Result<Reply, String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).map_err(|e| e.to_string())?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|e| e.to_string())?;
    stream
        .set_write_timeout(Some(PATIENCE))
        .map_err(|e| e.to_string())?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream
        .write_all(head.as_bytes())
        .map_err(|e| format!("writing: {e}"))?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .map_err(|e| format!("reading: {e}"))?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Reply, String> {
    let end = find(bytes, b"\r\n\r\n").ok_or("no end of the head")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "the head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3)?.parse().ok())
        .ok_or_else(|| format!("no status line: {head:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("no field: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let body = bytes[end + 4..].to_vec();
    Ok(Reply {
        status,
        headers,
        body,
    })
}

fn judge(case: &Case, learned: &Learned, reply: &Reply) -> Result<(), String> {
    if !case.status.contains(&reply.status) {
        return Err(format!("expected status {:?}", case.status));
    }
    framing(case, reply)?;
    for (name, check) in &case.headers {
        field(name, check, learned, reply)?;
    }
    match &case.body {
        Content::Any => Ok(()),
        Content::Is(expected) if reply.body == *expected => Ok(()),
        Content::Is(expected) => Err(format!("expected {}", shown(expected))),
        Content::Parts(expected) => parts(expected, reply),
    }
}

/// Every answer has its length, and just that many bytes.
fn framing(case: &Case, reply: &Reply) -> Result<(), String> {
    if reply.value("transfer-encoding").is_some() {
        return Err("chunked, though the length was known".to_owned());
    }
    let length = reply.value("content-length").map(str::parse::<usize>);
    if case.method == "HEAD" || matches!(reply.status, 204 | 304) {
        if !reply.body.is_empty() {
            return Err("a body where none may be".to_owned());
        }
        return match length {
            None if case.method == "HEAD" && reply.status == 200 => Err("no length".to_owned()),
            Some(Ok(1..)) if reply.status == 204 => Err("a length of a 204".to_owned()),
            _ => Ok(()),
        };
    }
    match length {
        Some(Ok(length)) if length == reply.body.len() => Ok(()),
        Some(Ok(length)) => Err(format!("{length} bytes promised")),
        _ => Err("no length".to_owned()),
    }
}

fn field(name: &str, check: &Check, learned: &Learned, reply: &Reply) -> Result<(), String> {
    let times = reply
        .headers
        .iter()
        .filter(|(known, _)| known == name)
        .count();
    if times > 1 {
        return Err(format!("{name} came {times} times"));
    }
    let value = reply.value(name);
    let right = match check {
        Check::Is(expected) => value == Some(learned.fill(expected).as_str()),
        Check::Begins(with) => value.is_some_and(|value| value.starts_with(with)),
        Check::Ends(with) => value.is_some_and(|value| value.ends_with(with)),
        Check::Absent => value.is_none(),
    };
    if right {
        Ok(())
    } else {
        Err(format!("{name} is {value:?}, expected {check:?}"))
    }
}

/// Takes a multipart body apart at the boundary that its type names.
fn parts(expected: &[(String, Vec<u8>)], reply: &Reply) -> Result<(), String> {
    let boundary = reply
        .value("content-type")
        .and_then(|value| value.strip_prefix("multipart/byteranges; boundary="))
        .ok_or("not multipart/byteranges")?;
    let mut rest = reply.body.as_slice();
    for (range, bytes) in expected {
        let start = format!("--{boundary}\r\n");
        let skip = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let part = skip
            .strip_prefix(start.as_bytes())
            .ok_or("no boundary before a part")?;
        let end = find(part, b"\r\n\r\n").ok_or("no end of a part's head")?;
        let head = String::from_utf8_lossy(&part[..end]).to_ascii_lowercase();
        if !head.contains(&format!("content-range: {range}")) {
            return Err(format!("a part with {head:?}, expected {range}"));
        }
        rest = part[end + 4..]
            .strip_prefix(bytes.as_slice())
            .ok_or_else(|| format!("wrong bytes in {range}"))?;
    }
    if rest == format!("\r\n--{boundary}--\r\n").as_bytes() {
        Ok(())
    } else {
        Err(format!("{} at the end", shown(rest)))
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn shown(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    format!("{} bytes {start:?}", bytes.len())
}
