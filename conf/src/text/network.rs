//! Addresses and networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{Wrong, host_name, quoted};
use crate::config::EndpointAddress;

/// What stands in `[admin] address`, before a path is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdminText {
    Tcp(SocketAddr),
    Unix(String),
}

/// `"0.0.0.0:443"`, `"[::]:443"`: an IP address and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    no_scheme(text)?;
    unbracketed(text)?;
    if let Ok(ip) = bare_ip(text) {
        return Err(Wrong::new(
            format!("{} has no port", quoted(text)),
            format!("write \"{}\"", SocketAddr::new(ip, 8080)),
        ));
    }
    if let Ok(port) = text.trim_start_matches(['*', ':']).parse::<u16>() {
        return Err(Wrong::new(
            format!("{} has no IP address", quoted(text)),
            format!(
                "write \"{}\" for every IPv4 interface, or \"[::]:{port}\" for IPv6",
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
            ),
        ));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(Wrong::new(
            "a listener needs an IP address, not a name",
            format!("write \"127.0.0.1:{port}\""),
        ));
    }
    Err(Wrong::new(
        format!("{} is not an IP address and a port", quoted(text)),
        "such as \"0.0.0.0:443\" or \"[::1]:8080\"",
    ))
}

/// `"127.0.0.1:9901"` or `"unix:/run/tidegate/admin.sock"`.
pub(crate) fn admin_address(text: &str) -> Result<AdminText, Wrong> {
    match text.strip_prefix("unix:") {
        Some("") => Err(Wrong::new(
            "`unix:` without a path",
            "write \"unix:/run/tidegate/admin.sock\"",
        )),
        Some(path) => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(AdminText::Unix(path.to_owned()))
        }
        None if text.starts_with('/') => Err(Wrong::new(
            format!("{} is not an address", quoted(text)),
            format!("write \"unix:{text}\" for a Unix socket"),
        )),
        None => address(text).map(AdminText::Tcp),
    }
}

/// `"10.0.0.11:8080"`, `"[::1]:8080"`, `"app.internal:8080"`, `"unix:/run/app.sock"` (its path as it
/// is written).
pub(crate) fn endpoint(text: &str) -> Result<EndpointAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err(Wrong::new(
                "`unix:` without a path",
                "write \"unix:/run/app.sock\"",
            )),
            _ if path.contains('\0') => Err(Wrong::new("there is a NUL in it", "delete it")),
            _ => Ok(EndpointAddress::Unix(PathBuf::from(path))),
        };
    }
    if text.starts_with(['/', '.']) {
        return Err(Wrong::new(
            format!("{} is not an address", quoted(text)),
            format!("write \"unix:{text}\" for a Unix socket"),
        ));
    }
    if text.starts_with('_') && text.contains("._") {
        return Err(Wrong::new(
            format!("{} looks like the name of SRV records", quoted(text)),
            format!(
                "write {{ srv = \"{}\" }}",
                text.split(':').next().unwrap_or(text)
            ),
        ));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return Err(port_zero(text));
        }
        return Ok(EndpointAddress::Ip(address));
    }
    no_scheme(text)?;
    unbracketed(text)?;
    if let Ok(ip) = bare_ip(text) {
        return Err(Wrong::new(
            format!("{} has no port", quoted(text)),
            format!("write \"{}\"", SocketAddr::new(ip, 8080)),
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match text.parse::<u16>() {
            Ok(port) => Wrong::new(
                format!("{} has no host", quoted(text)),
                format!("write \"127.0.0.1:{port}\""),
            ),
            Err(_) => Wrong::new(
                format!("{} has no port", quoted(text)),
                format!("write \"{text}:8080\""),
            ),
        });
    };
    if let Some((port, path)) = port.split_once('/') {
        return Err(Wrong::new(
            format!("an endpoint has no path, this one has \"/{path}\""),
            format!("write \"{host}:{port}\"; paths are changed by a filter's `rewrite`"),
        ));
    }
    let host = host_name(host)?;
    match port.parse::<u16>() {
        Ok(0) => Err(port_zero(text)),
        Ok(port) => Ok(EndpointAddress::Name { host, port }),
        Err(_) if port.contains(char::is_whitespace) => {
            let number = port.split_whitespace().next().unwrap_or_default();
            Err(Wrong::new(
                format!("{} is not a port", quoted(port)),
                format!(
                    "weight and backup stand in a table: {{ address = \"{host}:{number}\", weight = 2 }}"
                ),
            ))
        }
        Err(_) => Err(Wrong::new(
            format!("{} is not a port", quoted(port)),
            "a port is a number from 1 to 65535",
        )),
    }
}

/// Whether the kernel takes a path for a socket's: an address holds 108 bytes with the final zero
/// (unix(7)).
pub(crate) fn unix_path(path: &Path) -> Result<(), Wrong> {
    const LONGEST: usize = 107;
    let length = path.as_os_str().len();
    if length <= LONGEST {
        return Ok(());
    }
    Err(Wrong::new(
        format!(
            "the path of this socket has {length} bytes, and the system takes {LONGEST} at most"
        ),
        "write a shorter one, such as \"unix:/run/app.sock\"",
    ))
}

/// `"_http._tcp.app.internal"`. RFC 2782 wants the two underscores; some servers (Consul) have SRV
/// records at plain names too.
pub(crate) fn srv(text: &str) -> Result<String, Wrong> {
    no_scheme(text)?;
    if let Some((name, _)) = text.rsplit_once(':') {
        return Err(Wrong::new(
            "SRV records say the port themselves",
            format!("write srv = \"{name}\"; a host and a port are `address`"),
        ));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(Wrong::new(
            format!("{} is an address, not a name", quoted(text)),
            format!("write address = \"{text}:8080\""),
        ));
    }
    let name = host_name(text)?;
    if let Some((service, rest)) = name.split_once('.')
        && (rest.starts_with("_tcp.") || rest.starts_with("_udp."))
        && !service.starts_with('_')
    {
        return Err(Wrong::new(
            format!("{} lacks the underscore of its service", quoted(text)),
            format!("write \"_{name}\""),
        ));
    }
    Ok(name)
}

/// `"10.0.0.2:53"`: where DNS is asked cannot be a name itself.
pub(crate) fn dns_server(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(Wrong::new(
                format!("{} has port 0, which nobody can connect to", quoted(text)),
                format!("write \"{}\"", SocketAddr::new(address.ip(), 53)),
            )),
            _ => Ok(address),
        };
    }
    no_scheme(text)?;
    unbracketed(text)?;
    if let Ok(ip) = bare_ip(text) {
        return Err(Wrong::new(
            format!("{} has no port", quoted(text)),
            format!("write \"{}\"", SocketAddr::new(ip, 53)),
        ));
    }
    Err(Wrong::new(
        format!("{} is not an IP address and a port", quoted(text)),
        "such as \"10.0.0.2:53\"; a name could only be looked up by asking it",
    ))
}

/// `"10.0.0.0/8"`; a bare address is a network of one.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    match text.parse::<IpNet>() {
        Ok(network) if network.addr() == network.network() => Ok(network),
        Ok(network) => Err(Wrong::new(
            format!(
                "{} is an address inside a network, not the network",
                quoted(text)
            ),
            format!("write \"{}\"", network.trunc()),
        )),
        Err(_) => {
            let fix = match text {
                "all" | "any" | "*" => "write \"0.0.0.0/0\" (IPv4) and \"::/0\" (IPv6)",
                "localhost" => "write \"127.0.0.0/8\" (IPv4) and \"::1\" (IPv6)",
                _ => "such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"",
            };
            Err(Wrong::new(
                format!("{} is not a network", quoted(text)),
                fix,
            ))
        }
    }
}

fn bare_ip(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    text.trim_start_matches('[').trim_end_matches(']').parse()
}

fn no_scheme(text: &str) -> Result<(), Wrong> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(());
    };
    let rest = rest.trim_end_matches('/');
    let more = match scheme {
        "https" | "h2" => "; TLS is switched on by the key `tls`",
        _ => "",
    };
    Err(Wrong::new(
        format!("an address has no \"{scheme}://\" in front"),
        format!("write \"{rest}\"{more}"),
    ))
}

/// `::1:8080`: brackets tell address and port apart. Where it could be an address
/// as a whole, only what looks like a port is taken for one.
fn unbracketed(text: &str) -> Result<(), Wrong> {
    let like_port = |port: &str| port == "80" || port == "443" || port.len() >= 4;
    if let Some((ip, port)) = text.rsplit_once(':')
        && ip.contains(':')
        && like_port(port)
        && port.parse::<u16>().is_ok()
        && ip.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(Wrong::new(
            "an IPv6 address stands in brackets before its port",
            format!("write \"[{ip}]:{port}\""),
        ));
    }
    Ok(())
}

fn port_zero(text: &str) -> Wrong {
    Wrong::new(
        format!("{} has port 0, which nobody can connect to", quoted(text)),
        "a port is a number from 1 to 65535",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fix<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("wrong").fix
    }

    #[test]
    fn a_listener_address_without_its_ip_or_port_is_completed() {
        assert_eq!(fix(address("127.0.0.1")), "write \"127.0.0.1:8080\"");
        assert_eq!(fix(address("::1")), "write \"[::1]:8080\"");
        assert!(fix(address(":443")).starts_with("write \"0.0.0.0:443\""));
        assert!(fix(address("443")).starts_with("write \"0.0.0.0:443\""));
        assert!(fix(address("*:443")).starts_with("write \"0.0.0.0:443\""));
        assert_eq!(fix(address("localhost:80")), "write \"127.0.0.1:80\"");
        assert_eq!(fix(address("http://1.2.3.4:80/")), "write \"1.2.3.4:80\"");
    }

    #[test]
    fn an_endpoint_may_be_a_name() {
        assert_eq!(
            endpoint("App.Internal:8080"),
            Ok(EndpointAddress::Name {
                host: "app.internal".into(),
                port: 8080
            })
        );
        assert!(matches!(endpoint("[::1]:80"), Ok(EndpointAddress::Ip(_))));
        assert_eq!(fix(endpoint("app")), "write \"app:8080\"");
        assert_eq!(fix(endpoint("3000")), "write \"127.0.0.1:3000\"");
        assert!(fix(endpoint("app:80/x")).starts_with("write \"app:80\""));
        assert!(endpoint("10.0.0.1:0").is_err());
        assert!(endpoint("app:99999").is_err());
    }

    #[test]
    fn an_endpoint_may_be_a_socket_in_the_file_system() {
        let unix = |path: &str| Ok(EndpointAddress::Unix(PathBuf::from(path)));
        assert_eq!(endpoint("unix:/run/app.sock"), unix("/run/app.sock"));
        assert_eq!(endpoint("unix:///run/app.sock"), unix("/run/app.sock"));
        assert_eq!(endpoint("unix:run/app.sock"), unix("run/app.sock"));
        assert!(fix(endpoint("unix:")).contains("unix:/run/app.sock"));
        assert!(fix(endpoint("/run/app.sock")).starts_with("write \"unix:/run/app.sock\""));
        assert_eq!(unix_path(Path::new("/run/app.sock")), Ok(()));
        assert_eq!(unix_path(Path::new(&"a".repeat(107))), Ok(()));
        assert!(unix_path(Path::new(&"a".repeat(108))).is_err());
    }

    #[test]
    fn srv_records_have_a_name_and_no_port() {
        let ok = |name: &str| Ok(name.to_owned());
        assert_eq!(
            srv("_http._tcp.App.internal."),
            ok("_http._tcp.app.internal")
        );
        assert_eq!(srv("app.service.consul"), ok("app.service.consul"));
        assert_eq!(
            fix(srv("http._tcp.app.internal")),
            "write \"_http._tcp.app.internal\""
        );
        assert!(fix(srv("app.internal:80")).starts_with("write srv = \"app.internal\""));
        assert!(fix(srv("10.0.0.1")).starts_with("write address"));
        assert!(srv("").is_err());
        assert_eq!(
            fix(endpoint("_http._tcp.app.internal")),
            "write { srv = \"_http._tcp.app.internal\" }"
        );
    }

    #[test]
    fn a_dns_server_is_an_address_with_a_port() {
        assert!(dns_server("10.0.0.2:53").is_ok());
        assert_eq!(fix(dns_server("10.0.0.2")), "write \"10.0.0.2:53\"");
        assert_eq!(fix(dns_server("::1")), "write \"[::1]:53\"");
        assert_eq!(fix(dns_server("10.0.0.2:0")), "write \"10.0.0.2:53\"");
        assert!(fix(dns_server("dns.internal:53")).contains("10.0.0.2:53"));
    }

    #[test]
    fn an_ipv6_address_needs_its_brackets() {
        assert_eq!(fix(endpoint("fe80::1:8080")), "write \"[fe80::1]:8080\"");
        assert_eq!(fix(address("::1:8080")), "write \"[::1]:8080\"");
        assert_eq!(
            fix(address("2001:db8::11")),
            "write \"[2001:db8::11]:8080\""
        );
    }

    #[test]
    fn a_network_is_written_by_its_first_address() {
        assert_eq!(network("10.0.0.1").expect("one").prefix_len(), 32);
        assert_eq!(fix(network("10.0.0.1/8")), "write \"10.0.0.0/8\"");
        assert!(fix(network("all")).contains("0.0.0.0/0"));
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "(\\PC|[:.\\[\\]/0-9]){0,20}") {
            let _ = (address(&text), endpoint(&text).is_ok(), network(&text), admin_address(&text));
            let _ = (srv(&text), dns_server(&text));
        }
    }
}
