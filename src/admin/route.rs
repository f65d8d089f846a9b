//! Which request means what, and who may ask it. Pure.

use std::net::IpAddr;

use hyper::{HeaderMap, Method};

use crate::replay::Rate;

/// Records that `peek` shows when the request does not say.
const PEEK_RECORDS: usize = 10;
/// And at most.
const PEEK_RECORDS_MAX: usize = 10_000;

/// The header that verbs want, and its value.
const HEADER: (&str, &[u8]) = ("x-tideover", b"1");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    Page,
    Metrics,
    Livez,
    Readyz,
    Status,
    Verb { upstream: &'a str, verb: Verb },
}

/// What is asked of one upstream's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    QueueStatus,
    Peek { records_max: usize },
    Export,
    Pause,
    Resume,
    Rate(Rate),
    DropBacklog,
    Letters,
    Letter { seq: u64 },
    Retry(Which),
    DropLetters(Which),
}

/// Which dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    One(u64),
}

impl Verb {
    /// Method, path and query that ask for it.
    pub(crate) fn request(self, upstream: &str) -> (Method, String) {
        let which = |which: Which| match which {
            Which::All => String::new(),
            Which::One(seq) => format!("/{seq}"),
        };
        let (method, rest) = match self {
            Self::QueueStatus => (Method::GET, "queue".to_owned()),
            Self::Peek { records_max } => (Method::GET, format!("queue/peek?count={records_max}")),
            Self::Export => (Method::GET, "queue/export".to_owned()),
            Self::Pause => (Method::POST, "queue/pause".to_owned()),
            Self::Resume => (Method::POST, "queue/resume".to_owned()),
            Self::Rate(rate) => (Method::POST, format!("queue/rate?max={}", rate_text(rate))),
            Self::DropBacklog => (Method::POST, "queue/drop".to_owned()),
            Self::Letters => (Method::GET, "dead-letters".to_owned()),
            Self::Letter { seq } => (Method::GET, format!("dead-letters/{seq}")),
            Self::Retry(letters) => (Method::POST, format!("dead-letters{}/retry", which(letters))),
            Self::DropLetters(letters) => (Method::POST, format!("dead-letters{}/drop", which(letters))),
        };
        (method, format!("/upstreams/{upstream}/{rest}"))
    }
}

/// `500`, `off`, or `configured`.
pub(crate) fn rate_text(rate: Rate) -> String {
    match rate {
        Rate::Configured => "configured".to_owned(),
        Rate::Unlimited => "off".to_owned(),
        Rate::Limited(rate_max) => rate_max.to_string(),
    }
}

/// The reverse of [`rate_text`].
pub(crate) fn rate(text: &str) -> Option<Rate> {
    match text {
        "configured" => Some(Rate::Configured),
        "off" => Some(Rate::Unlimited),
        number => number.parse().ok().map(Rate::Limited),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// 404
    NotFound,
    /// 405, with what is allowed.
    Method { allow: &'static str },
    /// 403
    Forbidden(&'static str),
    /// 400
    BadQuery(&'static str),
}

enum Access {
    Read,
    Change,
}

/// What the request asks for. A path that is there refuses first the stranger, then the method.
pub(super) fn route<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&str>,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Endpoint<'a>, Refused> {
    let (endpoint, access) = endpoint(path, query)?;
    if let Endpoint::Verb { .. } = endpoint {
        if !peer.to_canonical().is_loopback() {
            return Err(Refused::Forbidden("only for peers on this host"));
        }
        let mut values = headers.get_all(HEADER.0).iter();
        if values.next().is_none_or(|value| value.as_bytes() != HEADER.1) {
            return Err(Refused::Forbidden("the header X-Tideover: 1 is missing"));
        }
    }
    match access {
        Access::Read if *method == Method::GET || *method == Method::HEAD => Ok(endpoint),
        Access::Read => Err(Refused::Method { allow: "GET, HEAD" }),
        Access::Change if *method == Method::POST => Ok(endpoint),
        Access::Change => Err(Refused::Method { allow: "POST" }),
    }
}

fn endpoint<'a>(path: &'a str, query: Option<&str>) -> Result<(Endpoint<'a>, Access), Refused> {
    let top = match path {
        "/" => Some(Endpoint::Page),
        "/metrics" => Some(Endpoint::Metrics),
        "/livez" => Some(Endpoint::Livez),
        "/readyz" => Some(Endpoint::Readyz),
        "/status" => Some(Endpoint::Status),
        _ => None,
    };
    if let Some(endpoint) = top {
        return Ok((endpoint, Access::Read));
    }
    let rest = path.strip_prefix("/upstreams/").ok_or(Refused::NotFound)?;
    let (upstream, rest) = rest.split_once('/').ok_or(Refused::NotFound)?;
    let (verb, access) = verb(rest, query)?;
    Ok((Endpoint::Verb { upstream, verb }, access))
}

fn verb(rest: &str, query: Option<&str>) -> Result<(Verb, Access), Refused> {
    let mut parts = rest.split('/');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
    let found = match parts {
        [Some("queue"), None, ..] => (Verb::QueueStatus, Access::Read),
        [Some("queue"), Some("peek"), None, _] => {
            let records_max = count(query)?;
            (Verb::Peek { records_max }, Access::Read)
        }
        [Some("queue"), Some("export"), None, _] => (Verb::Export, Access::Read),
        [Some("queue"), Some("pause"), None, _] => (Verb::Pause, Access::Change),
        [Some("queue"), Some("resume"), None, _] => (Verb::Resume, Access::Change),
        [Some("queue"), Some("rate"), None, _] => {
            let rate = parameter(query, "max").and_then(rate);
            let rate = rate.ok_or(Refused::BadQuery("max must be records per second, off or configured"))?;
            (Verb::Rate(rate), Access::Change)
        }
        [Some("queue"), Some("drop"), None, _] => (Verb::DropBacklog, Access::Change),
        [Some("dead-letters"), None, ..] => (Verb::Letters, Access::Read),
        [Some("dead-letters"), Some("retry"), None, _] => (Verb::Retry(Which::All), Access::Change),
        [Some("dead-letters"), Some("drop"), None, _] => (Verb::DropLetters(Which::All), Access::Change),
        [Some("dead-letters"), Some(seq), verb, None] => {
            let seq = seq.parse().map_err(|_| Refused::NotFound)?;
            match verb {
                None => (Verb::Letter { seq }, Access::Read),
                Some("retry") => (Verb::Retry(Which::One(seq)), Access::Change),
                Some("drop") => (Verb::DropLetters(Which::One(seq)), Access::Change),
                Some(_) => return Err(Refused::NotFound),
            }
        }
        _ => return Err(Refused::NotFound),
    };
    Ok(found)
}

fn parameter<'a>(query: Option<&'a str>, wanted: &str) -> Option<&'a str> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn count(query: Option<&str>) -> Result<usize, Refused> {
    let Some(count) = parameter(query, "count") else {
        return Ok(PEEK_RECORDS);
    };
    match count.parse() {
        Ok(count @ 1..=PEEK_RECORDS_MAX) => Ok(count),
        Ok(_) | Err(_) => Err(Refused::BadQuery("count must be a number from 1 to 10000")),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const LOCAL: &str = "127.0.0.1";

    fn ask<'a>(
        method: &str,
        target: &'a str,
        header: Option<&'static str>,
        peer: &str,
    ) -> Result<Endpoint<'a>, Refused> {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(HEADER.0, HeaderValue::from_static(value));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        route(&method, path, query, &headers, peer.parse().unwrap())
    }

    #[test]
    fn paths_mean_what_they_say() {
        let main = |verb| Endpoint::Verb { upstream: "main", verb };
        for (method, target, expected) in [
            ("GET", "/", Endpoint::Page),
            ("GET", "/metrics", Endpoint::Metrics),
            ("HEAD", "/livez", Endpoint::Livez),
            ("GET", "/readyz?verbose=1", Endpoint::Readyz),
            ("GET", "/status", Endpoint::Status),
            ("GET", "/upstreams/main/queue", main(Verb::QueueStatus)),
            (
                "GET",
                "/upstreams/main/queue/peek",
                main(Verb::Peek { records_max: 10 }),
            ),
            (
                "GET",
                "/upstreams/main/queue/peek?a=b&count=7",
                main(Verb::Peek { records_max: 7 }),
            ),
            ("GET", "/upstreams/main/queue/export", main(Verb::Export)),
            ("POST", "/upstreams/main/queue/pause", main(Verb::Pause)),
            ("POST", "/upstreams/main/queue/resume", main(Verb::Resume)),
            (
                "POST",
                "/upstreams/main/queue/rate?max=off",
                main(Verb::Rate(Rate::Unlimited)),
            ),
            ("POST", "/upstreams/main/queue/drop", main(Verb::DropBacklog)),
            ("GET", "/upstreams/main/dead-letters", main(Verb::Letters)),
            ("GET", "/upstreams/main/dead-letters/7", main(Verb::Letter { seq: 7 })),
            (
                "POST",
                "/upstreams/main/dead-letters/7/retry",
                main(Verb::Retry(Which::One(7))),
            ),
            (
                "POST",
                "/upstreams/main/dead-letters/7/drop",
                main(Verb::DropLetters(Which::One(7))),
            ),
            (
                "POST",
                "/upstreams/main/dead-letters/retry",
                main(Verb::Retry(Which::All)),
            ),
            (
                "POST",
                "/upstreams/main/dead-letters/drop",
                main(Verb::DropLetters(Which::All)),
            ),
        ] {
            assert_eq!(ask(method, target, Some("1"), LOCAL), Ok(expected), "{method} {target}");
        }
    }

    #[test]
    fn a_verb_asks_for_what_it_is() {
        for verb in [
            Verb::QueueStatus,
            Verb::Peek { records_max: 7 },
            Verb::Export,
            Verb::Pause,
            Verb::Resume,
            Verb::Rate(Rate::Configured),
            Verb::Rate(Rate::Unlimited),
            Verb::Rate(rate("500").unwrap()),
            Verb::DropBacklog,
            Verb::Letters,
            Verb::Letter { seq: 7 },
            Verb::Retry(Which::All),
            Verb::Retry(Which::One(7)),
            Verb::DropLetters(Which::All),
            Verb::DropLetters(Which::One(7)),
        ] {
            let (method, target) = verb.request("main");
            let upstream = "main";
            assert_eq!(
                ask(method.as_str(), &target, Some("1"), LOCAL),
                Ok(Endpoint::Verb { upstream, verb })
            );
        }
        for max in ["", "0", "-1", "fast"] {
            let target = format!("/upstreams/main/queue/rate?max={max}");
            assert!(matches!(
                ask("POST", &target, Some("1"), LOCAL),
                Err(Refused::BadQuery(_))
            ));
        }
    }

    #[test]
    fn what_is_not_there_is_404_and_a_wrong_method_says_which_is_right() {
        for path in [
            "/nonsense",
            "/status/",
            "",
            "/upstreams",
            "/upstreams/main",
            "/upstreams/main/",
            "/upstreams/main/queue/",
            "/upstreams/main/queue/walk",
            "/upstreams/main/queue/peek/7",
            "/upstreams/main/dead-letters/x",
            "/upstreams/main/dead-letters/7/walk",
            "/upstreams/main/dead-letters/7/drop/now",
        ] {
            assert_eq!(ask("GET", path, Some("1"), LOCAL), Err(Refused::NotFound), "{path}");
        }
        let read = Err(Refused::Method { allow: "GET, HEAD" });
        let change = Err(Refused::Method { allow: "POST" });
        assert_eq!(ask("DELETE", "/status", None, LOCAL), read);
        assert_eq!(ask("POST", "/upstreams/main/queue", Some("1"), LOCAL), read);
        assert_eq!(ask("GET", "/upstreams/main/queue/pause", Some("1"), LOCAL), change);
        for count in ["0", "10001", "x", "-1", ""] {
            let target = format!("/upstreams/main/queue/peek?count={count}");
            assert!(
                matches!(ask("GET", &target, Some("1"), LOCAL), Err(Refused::BadQuery(_))),
                "{target}"
            );
        }
    }

    #[test]
    fn verbs_and_journal_contents_are_for_loopback_peers_with_the_header() {
        let open = ["/", "/metrics", "/livez", "/readyz", "/status"];
        let guarded = [
            ("GET", "/upstreams/main/queue"),
            ("GET", "/upstreams/main/queue/peek"),
            ("GET", "/upstreams/main/queue/export"),
            ("POST", "/upstreams/main/queue/drop"),
            ("GET", "/upstreams/main/dead-letters"),
            ("GET", "/upstreams/main/dead-letters/1"),
            ("POST", "/upstreams/main/dead-letters/1/retry"),
        ];
        for peer in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
        ] {
            for path in open {
                assert!(ask("GET", path, None, peer).is_ok(), "{path} from {peer}");
            }
            let is_local = peer.contains("127.") || peer == "::1";
            for (method, path) in guarded {
                assert_eq!(
                    ask(method, path, Some("1"), peer).is_ok(),
                    is_local,
                    "{path} from {peer}"
                );
                for header in [None, Some("0"), Some("true"), Some("")] {
                    let refused = matches!(ask(method, path, header, peer), Err(Refused::Forbidden(_)));
                    assert!(refused, "{path} from {peer} with {header:?}");
                }
            }
        }
    }
}
