//! Where we listen and where the upstream is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Secret;
pub use crate::upstream::settings::{Address as UpstreamAddress, Credentials, UpstreamUrl};

const REDIS_PORT: u16 = 6379;

/// `host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A name or an address (IPv6 without brackets); port 0 lets the system choose.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// A URL as typed: its password may still come from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UrlParts {
    pub(super) place: Place,
    pub(super) db: u32,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

/// An address as typed: what TLS needs beside it may stand elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

impl Default for ListenAddress {
    fn default() -> Self {
        Self::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 6380,
        }
    }
}

impl Default for UrlParts {
    fn default() -> Self {
        Self {
            place: Place::Tcp {
                host: "127.0.0.1".to_owned(),
                port: REDIS_PORT,
            },
            db: 0,
            user: None,
            password: None,
        }
    }
}

impl Default for UpstreamUrl {
    fn default() -> Self {
        let address = UpstreamAddress::Tcp {
            host: "127.0.0.1".to_owned(),
            port: REDIS_PORT,
        };
        Self {
            address,
            db: 0,
            credentials: None,
            password_file: None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be host:port or unix:/path";
        if let Some(path) = text.strip_prefix("unix:") {
            // "unix:///run/x.sock" is meant too.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err("must be unix: and an absolute path".to_owned());
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (host, port) = split_port(text)?;
        let port = port.ok_or(RULE)?;
        if text.contains('/') || text.contains('@') {
            return Err(RULE.to_owned());
        }
        Ok(Self::Tcp { host, port })
    }
}

impl FromStr for UrlParts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("must be a URL: redis[s]://[user:password@]host[:port][/db] or unix:///path[?db=N]")?;
        match scheme {
            "redis" => tcp_url(rest, |host, port| Place::Tcp { host, port }),
            "rediss" => tcp_url(rest, |host, port| Place::Tls { host, port }),
            "unix" => unix_url(rest),
            "redis+sentinel" | "redis+cluster" => Err(format!("{scheme}:// is not built yet")),
            _ => Err(format!(
                "{scheme}:// is not known; must be redis://, rediss:// or unix://"
            )),
        }
    }
}

fn tcp_url(rest: &str, place: impl FnOnce(String, u16) -> Place) -> Result<UrlParts, String> {
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (rest, ""),
    };
    if rest.contains('?') || rest.contains('#') {
        return Err("the URL takes no ? or # (write %3F or %23 in a password)".to_owned());
    }
    let (user, password, host_port) = userinfo(authority)?;
    let (host, port) = split_port(host_port)?;
    let port = port.unwrap_or(REDIS_PORT);
    if port == 0 {
        return Err("the port must be 1 to 65535".to_owned());
    }
    let db = if path.is_empty() { 0 } else { database(path)? };
    Ok(UrlParts {
        place: place(host, port),
        db,
        user,
        password,
    })
}

fn unix_url(rest: &str) -> Result<UrlParts, String> {
    let (authority_path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let slash = authority_path
        .find('/')
        .ok_or("must be unix:// and an absolute path, as in unix:///run/redis.sock")?;
    let (authority, path) = authority_path.split_at(slash);
    let (user, password, host) = userinfo(authority)?;
    if !host.is_empty() {
        return Err("must have no host: unix:///run/redis.sock, with three slashes".to_owned());
    }
    let db = match query {
        None => 0,
        Some(query) => database(query.strip_prefix("db=").ok_or("takes no query but ?db=N")?)?,
    };
    let path = String::from_utf8(percent_decode(path)?).map_err(|_| "the path must be UTF-8")?;
    Ok(UrlParts {
        place: Place::Unix(PathBuf::from(path)),
        db,
        user,
        password,
    })
}

type UserInfo<'a> = (Option<String>, Option<Secret>, &'a str);

/// `[[user][:password]@]host`, percent-decoded.
fn userinfo(authority: &str) -> Result<UserInfo<'_>, String> {
    let Some((info, host)) = authority.rsplit_once('@') else {
        return Ok((None, None, authority));
    };
    let (user, password) = match info.split_once(':') {
        Some((user, password)) => (user, Some(Secret::new(percent_decode(password)?))),
        None => (info, None),
    };
    let user = String::from_utf8(percent_decode(user)?).map_err(|_| "the user must be UTF-8")?;
    Ok(((!user.is_empty()).then_some(user), password, host))
}

fn database(text: &str) -> Result<u32, String> {
    // Redis keeps the number in an int.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|db| digits && *db <= i32::MAX.unsigned_abs())
        .ok_or_else(|| "the database must be a whole number from 0".to_owned())
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed
            .split_once(']')
            .ok_or("the bracket before the IPv6 address is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("what stands in brackets must be an IPv6 address".to_owned());
        }
        match rest {
            "" => (host, None),
            _ => (
                host,
                Some(rest.strip_prefix(':').ok_or("only :port may follow the bracket")?),
            ),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address must stand in brackets".to_owned()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if host.contains(char::is_whitespace) {
        return Err("the host must not contain spaces".to_owned());
    }
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().map_err(|_| "the port must be 0 to 65535")?)
        }
        Some(_) => return Err("the port must be a number".to_owned()),
    };
    Ok((host.to_owned(), port))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let hex = tail.get(..2).and_then(|pair| Some(hex(pair[0])? << 4 | hex(pair[1])?));
        bytes.push(hex.ok_or("% must be followed by two hexadecimal digits (write %25 for a %)")?);
        rest = &tail[2..];
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Everything but what is unreserved in RFC 3986 §2.3, and `keep`.
fn percent_encode(bytes: &[u8], keep: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || keep.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn write_tcp(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write_tcp(f, host, *port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => write_tcp(f, host, *port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The URL with its password hidden: `redis://user:***@host:port/db`.
impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let userinfo = match &self.credentials {
            None => String::new(),
            Some(Credentials { user, password: _ }) => {
                let user = user.as_deref().unwrap_or_default();
                format!("{}:***@", percent_encode(user.as_bytes(), b""))
            }
        };
        match &self.address {
            UpstreamAddress::Tcp { .. } | UpstreamAddress::Tls { .. } => {
                let scheme = match &self.address {
                    UpstreamAddress::Tls { .. } => "rediss",
                    UpstreamAddress::Tcp { .. } | UpstreamAddress::Unix(_) => "redis",
                };
                write!(f, "{scheme}://{userinfo}{}", self.address)?;
                if self.db != 0 {
                    write!(f, "/{}", self.db)?;
                }
            }
            UpstreamAddress::Unix(path) => {
                let path = percent_encode(path.to_string_lossy().as_bytes(), b"/");
                write!(f, "unix://{userinfo}{path}")?;
                if self.db != 0 {
                    write!(f, "?db={}", self.db)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(place: &Place) -> String {
        match place {
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Tls { host, port } => format!("tls:{host}:{port}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        let got = text.parse::<UrlParts>().map(|url| {
            let user = url.user.unwrap_or_default();
            let password = url
                .password
                .map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
            format!(
                "{} db={} user={user} password={}",
                shown(&url.place),
                url.db,
                password.unwrap_or_default()
            )
        });
        match (&got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{text}: {got}"),
            _ => panic!("{text}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        check("redis://h", Ok("h:6379 db=0 user= password="));
        check("redis://h:7000/3", Ok("h:7000 db=3 user= password="));
        check("redis://h/", Ok("h:6379 db=0 user= password="));
        check("redis://[::1]:7000", Ok("::1:7000 db=0 user= password="));
        check("rediss://u:p@h/2", Ok("tls:h:6379 db=2 user=u password=p"));
        check("redis://:p@h", Ok("h:6379 db=0 user= password=p"));
        check("redis://u:p%40s%3Aw%2F@h/1", Ok("h:6379 db=1 user=u password=p@s:w/"));
        check("redis://%C3%BC:p:q@h", Ok("h:6379 db=0 user=ü password=p:q"));
        check("redis://u@h", Ok("h:6379 db=0 user=u password="));
        check(
            "unix:///run/redis.sock",
            Ok("unix:/run/redis.sock db=0 user= password="),
        );
        check("unix:///run/a%20b?db=2", Ok("unix:/run/a b db=2 user= password="));
        check("unix://u:p@/run/r", Ok("unix:/run/r db=0 user=u password=p"));
    }

    #[test]
    fn wrong_urls_are_refused_with_the_rule() {
        for scheme in ["redis+sentinel", "redis+cluster"] {
            check(&format!("{scheme}://h"), Err("not built yet"));
        }
        check("http://h", Err("not known"));
        check("h:6379", Err("must be a URL"));
        check("redis://", Err("host is missing"));
        check("redis:///1", Err("host is missing"));
        check("redis://h:0", Err("port"));
        check("redis://h:65536", Err("port"));
        check("redis://h:x", Err("port"));
        check("redis://::1", Err("brackets"));
        check("redis://[::1", Err("bracket"));
        check("redis://h/x", Err("database"));
        check("redis://h/+1", Err("database"));
        check("redis://h/4294967296", Err("database"));
        check("redis://h?db=1", Err("takes no ?"));
        check("rediss://h?ssl_cert_reqs=none", Err("takes no ?"));
        check("redis://u:%4@h", Err("hexadecimal"));
        check("unix://run/redis.sock", Err("three slashes"));
        check("unix://", Err("absolute path"));
        check("unix:///r?x=1", Err("?db=N"));
    }

    #[test]
    fn listen_addresses() {
        let check = |text: &str, expected: Option<&str>| {
            let got = text.parse::<ListenAddress>().map(|address| address.to_string());
            assert_eq!(got.as_deref().ok(), expected, "{text}: {got:?}");
        };
        check("127.0.0.1:6380", Some("127.0.0.1:6380"));
        check("localhost:0", Some("localhost:0"));
        check("[::]:6380", Some("[::]:6380"));
        check("unix:/run/t.sock", Some("unix:/run/t.sock"));
        check("unix:///run/t.sock", Some("unix:/run/t.sock"));
        for wrong in [
            "",
            "6380",
            "h",
            ":6380",
            "h:",
            "h:x",
            "unix:t.sock",
            "unix:",
            "redis://h:1",
            "::1:6380",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_shown_url_reads_back_as_the_same_place_without_its_password() {
        for text in ["redis://u%40:secret@h:1/2", "unix:///a%20b?db=3", "redis://[::1]:6379"] {
            let parts: UrlParts = text.parse().unwrap();
            let credentials = parts.password.map(|password| Credentials {
                user: parts.user.clone(),
                password,
            });
            let place = parts.place.clone();
            let address = match parts.place {
                Place::Tcp { host, port } => UpstreamAddress::Tcp { host, port },
                Place::Unix(path) => UpstreamAddress::Unix(path),
                Place::Tls { .. } => panic!("{text} has no files"),
            };
            let url = UpstreamUrl {
                address,
                db: parts.db,
                credentials,
                password_file: None,
            };
            assert!(!format!("{url} {url:?}").contains("secret"));
            let again: UrlParts = url.to_string().parse().unwrap();
            assert_eq!((again.place, again.db, again.user), (place, url.db, parts.user));
        }
    }
}
