//! Flags, environment, file and defaults become [`Settings`]: parse, don't validate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::{Table, Value};

use super::Secret;
use super::address::{Credentials, ListenAddress, Place, UpstreamAddress, UpstreamUrl, UrlParts};
use super::fault::{ConfigErrors, Fault, LoadError, shown};
use super::raw::{Section, duration, one_of, parsed, text};
use super::rule;
use super::sections::{
    BUSY_POLL, HOUR, URING, breaker_settings, limits, name, queue, replay, socket_address, timeouts, worker_count,
};
use super::settings::{Settings, UpstreamSettings};
use super::tls;
use crate::telemetry;
use crate::upstream::tls::{ClientSettings, ClientTls, ServerTls};

/// What the command line says, as typed; the environment says the same with `TIDEOVER_CONFIG`, `TIDEOVER_LISTEN`, ….
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub listen: Option<String>,
    pub upstream: Option<String>,
    pub data_dir: Option<String>,
    pub admin: Option<String>,
    pub workers: Option<String>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
}

/// The world outside, so that tests need none.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "two closures")]
pub struct Outside<'a> {
    /// A variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A value that stands above the file.
struct Override {
    /// `--listen` or `TIDEOVER_LISTEN`
    origin: &'static str,
    value: Value,
}

struct Overrides {
    listen: Option<Override>,
    upstream: Option<Override>,
    data_dir: Option<Override>,
    admin: Option<Override>,
    workers: Option<Override>,
    log_format: Option<Override>,
    log_level: Option<Override>,
}

struct Loader<'a> {
    outside: Outside<'a>,
    faults: &'a RefCell<Vec<Fault>>,
}

/// Reads the configuration: flag, else environment, else file, else default.
///
/// # Errors
/// All faults at once, or what does not go together on the command line.
pub fn load(flags: &Flags, outside: Outside<'_>) -> Result<Settings, LoadError> {
    let faults = RefCell::new(Vec::new());
    let loader = Loader {
        outside,
        faults: &faults,
    };
    let table = loader.file(flags)?;
    let overrides = loader.overrides(flags);
    let upstreams = table.get("upstream").and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(misplaced) = [&overrides.listen, &overrides.upstream]
        .into_iter()
        .flatten()
        .find(|_| upstreams > 1)
    {
        return Err(LoadError::Usage(format!(
            "{} cannot be used beside a file with {upstreams} upstreams: it does not say which one is meant",
            misplaced.origin
        )));
    }
    let settings = loader.settings(&table, overrides);
    let faults = faults.into_inner();
    if faults.is_empty() {
        Ok(settings)
    } else {
        Err(ConfigErrors(faults).into())
    }
}

impl Loader<'_> {
    fn env(&self, name: &str) -> Option<String> {
        (self.outside.env)(name).filter(|value| !value.is_empty())
    }

    fn file(&self, flags: &Flags) -> Result<Table, ConfigErrors> {
        let (origin, path) = match (&flags.config, self.env("TIDEOVER_CONFIG")) {
            (Some(path), _) => ("--config", path.clone()),
            (None, Some(path)) => ("TIDEOVER_CONFIG", PathBuf::from(path)),
            (None, None) => return Ok(Table::new()),
        };
        let fault = |key: String, value: Option<String>, rule: String| ConfigErrors(vec![Fault { key, value, rule }]);
        let text = (self.outside.read)(&path).map_err(|error| {
            let value = format!("\"{}\"", path.display());
            fault(origin.to_owned(), Some(value), format!("cannot be read: {error}"))
        })?;
        text.parse::<Table>().map_err(|error| {
            // Not the whole message: it quotes the line, which may hold a password.
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            fault(
                format!("{} line {line}", path.display()),
                None,
                format!("not TOML: {}", error.message()),
            )
        })
    }

    fn overrides(&self, flags: &Flags) -> Overrides {
        let pick = |flag: &Option<String>, flag_name, env_name| {
            let (origin, text) = match flag {
                Some(text) => (flag_name, text.clone()),
                None => (env_name, self.env(env_name)?),
            };
            let value = Value::String(text);
            Some(Override { origin, value })
        };
        let mut workers = pick(&flags.workers, "--workers", "TIDEOVER_WORKERS");
        if let Some(workers) = &mut workers
            && let Some(number) = workers.value.as_str().and_then(|text| text.parse().ok())
        {
            workers.value = Value::Integer(number);
        }
        Overrides {
            listen: pick(&flags.listen, "--listen", "TIDEOVER_LISTEN"),
            upstream: pick(&flags.upstream, "--upstream", "TIDEOVER_UPSTREAM"),
            data_dir: pick(&flags.data_dir, "--data-dir", "TIDEOVER_DATA_DIR"),
            admin: pick(&flags.admin, "--admin", "TIDEOVER_ADMIN"),
            workers,
            log_format: pick(&flags.log_format, "--log-format", "TIDEOVER_LOG_FORMAT"),
            log_level: pick(&flags.log_level, "--log-level", "TIDEOVER_LOG_LEVEL"),
        }
    }

    /// What stands above the file, else what the file says. Both are checked.
    fn above<T>(
        &self,
        above: Option<Override>,
        below: Option<T>,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let Some(Override { origin, value }) = above else {
            return below;
        };
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(rule) => {
                let value = Some(shown(origin, &value));
                self.faults.borrow_mut().push(Fault {
                    key: origin.to_owned(),
                    value,
                    rule,
                });
                None
            }
        }
    }

    fn settings(&self, table: &Table, overrides: Overrides) -> Settings {
        let default = Settings::default();
        let mut top = Section::top(table, self.faults);
        let data_dir = top.optional("data_dir", text);
        let admin = top.optional("admin", socket_address);
        let workers = top.optional("workers", worker_count);
        let shutdown_timeout = top.get(
            "shutdown_timeout",
            default.shutdown_timeout,
            duration(Duration::ZERO, HOUR),
        );
        let busy_poll = top.get("busy_poll", default.busy_poll, one_of(&BUSY_POLL));
        let io_uring = top.get("io_uring", default.io_uring, one_of(&URING));
        let mut log = top.section("log");
        let format = log.optional("format", parsed::<telemetry::LogFormat>);
        let level = log.optional("level", parsed::<telemetry::LogLevel>);
        log.finish();
        let limits = limits(top.section("limits"));
        let data_dir = self.above(overrides.data_dir, data_dir, text);
        let admin = self
            .above(overrides.admin, admin, socket_address)
            .unwrap_or(default.admin);
        let log = telemetry::LogSettings {
            format: self.above(overrides.log_format, format, parsed).unwrap_or_default(),
            level: self.above(overrides.log_level, level, parsed).unwrap_or_default(),
        };
        let workers = self.above(overrides.workers, workers, worker_count);
        let upstreams = self.upstreams(&mut top, overrides.listen, overrides.upstream);
        top.finish();
        self.duplicates(&upstreams, admin);
        Settings {
            data_dir: data_dir.map_or(default.data_dir, PathBuf::from),
            admin,
            workers,
            shutdown_timeout,
            busy_poll,
            io_uring,
            log,
            limits,
            upstreams,
        }
    }

    fn upstreams(
        &self,
        top: &mut Section<'_>,
        listen: Option<Override>,
        url: Option<Override>,
    ) -> Vec<UpstreamSettings> {
        let sections = match top.list("upstream") {
            Some(sections) if sections.is_empty() => {
                top.fault("upstream", Some("[]".to_owned()), "must hold at least one upstream");
                Vec::new()
            }
            Some(sections) => sections,
            None => vec![top.absent("upstream")],
        };
        // With several upstreams there is nothing above the file: that is wrong usage.
        let mut above = Some((listen, url));
        let upstreams = sections.into_iter();
        upstreams
            .map(|section| {
                let (listen, url) = above.take().unwrap_or_default();
                self.upstream(section, listen, url)
            })
            .collect()
    }

    fn upstream(
        &self,
        mut section: Section<'_>,
        above_listen: Option<Override>,
        above_url: Option<Override>,
    ) -> UpstreamSettings {
        let default = UpstreamSettings::default();
        let name = section.get("name", default.name, name);
        let listen = section.optional("listen", parsed);
        let listen = self.above(above_listen, listen, parsed).unwrap_or(default.listen);
        let listen_tls = self.listen_tls(&mut section, &listen);
        let url = self.url(&mut section, above_url);
        let hold_timeout = section.get("hold_timeout", default.hold_timeout, duration(Duration::ZERO, HOUR));
        let client_password = section.optional("client_password", |value| Ok(Secret::new(text(value)?)));
        let breaker = breaker_settings(section.section("breaker"));
        let timeouts = timeouts(section.section("timeouts"));
        let queue = queue(section.section("queue"));
        let replay = replay(section.section("replay"));
        let rules = section.list("rule").unwrap_or_default();
        let rules = rule::rules(rules, &section);
        section.finish();
        UpstreamSettings {
            name,
            listen,
            listen_tls,
            url,
            hold_timeout,
            client_password,
            breaker,
            timeouts,
            queue,
            replay,
            rules,
        }
    }

    fn listen_tls(&self, section: &mut Section<'_>, listen: &ListenAddress) -> Option<Arc<ServerTls>> {
        let is_there = section.has("listen_tls");
        let tls = section.section("listen_tls");
        if !is_there {
            return None;
        }
        if let ListenAddress::Unix(_) = listen {
            let value = Some(format!("{:?}", listen.to_string()));
            section.fault("listen", value, "a unix socket takes no listen_tls");
        }
        tls::server(tls, self.outside.read)
    }

    /// `url`, `password_file` and `tls` together.
    fn url(&self, section: &mut Section<'_>, above: Option<Override>) -> UpstreamUrl {
        let below = self.url_of_file(section);
        let complete = self.above(above, below, complete_url);
        let has_tls = section.has("tls");
        let mut tls = section.section("tls");
        let settings = tls::client_settings(&mut tls);
        let Some(CompleteUrl {
            place,
            db,
            credentials,
            password_file,
        }) = complete
        else {
            tls.finish();
            return UpstreamUrl::default();
        };
        if has_tls && !matches!(place, Place::Tls { .. }) {
            section.fault("tls", None, "is there, but the URL does not begin with rediss://");
        }
        let address = match place {
            Place::Tcp { host, port } => Some(UpstreamAddress::Tcp { host, port }),
            Place::Tls { host, port } => self
                .tls(section, &tls, settings, &host)
                .map(|tls| UpstreamAddress::Tls { host, port, tls }),
            Place::Unix(path) => Some(UpstreamAddress::Unix(path)),
        };
        tls.finish();
        UpstreamUrl {
            address: address.unwrap_or(UpstreamUrl::default().address),
            db,
            credentials,
            password_file,
        }
    }

    fn tls(
        &self,
        section: &Section<'_>,
        tls: &Section<'_>,
        settings: ClientSettings,
        host: &str,
    ) -> Option<Arc<ClientTls>> {
        match (&settings.server_name, tls::server_name(host)) {
            (Some(name), _) => tls::client(tls, settings.clone(), name.clone(), self.outside.read),
            (None, Ok(name)) => tls::client(tls, settings, name, self.outside.read),
            (None, Err(rule)) => {
                section.fault(
                    "url",
                    None,
                    format!("the host {rule}, or tls.server_name must be there"),
                );
                None
            }
        }
    }

    /// Nothing when it is there and wrong.
    fn url_of_file(&self, section: &mut Section<'_>) -> Option<CompleteUrl> {
        let has_url = section.has("url");
        let parts = section.optional("url", parsed::<UrlParts>);
        let file = section.optional("password_file", text);
        let password = file.as_ref().and_then(|file| {
            let shown = Some(format!("{file:?}"));
            match (self.outside.read)(Path::new(file)) {
                Ok(text) => {
                    let password = Secret::of_file(&text);
                    if password.is_none() {
                        section.fault("password_file", shown, "holds no password");
                    }
                    password
                }
                Err(error) => {
                    section.fault("password_file", shown, format!("cannot be read: {error}"));
                    None
                }
            }
        });
        let mut parts = if has_url { parts? } else { UrlParts::default() };
        if file.is_some() {
            if parts.password.is_some() {
                section.fault("password_file", None, "must not stand beside a password in the URL");
            }
            parts.password = password.or_else(|| Some(Secret::new("")));
        }
        let completed = completed(parts).map_err(|rule| section.fault("url", None, rule)).ok();
        completed.map(|complete| CompleteUrl {
            password_file: file.map(PathBuf::from),
            ..complete
        })
    }

    fn duplicates(&self, upstreams: &[UpstreamSettings], admin: SocketAddr) {
        let fault = |index: usize, key: &str, value: &dyn ToString, rule: String| {
            self.faults.borrow_mut().push(Fault {
                key: format!("upstream[{index}].{key}"),
                value: Some(format!("{:?}", value.to_string())),
                rule,
            });
        };
        let mut names = HashMap::new();
        let mut listens = HashMap::new();
        for (index, upstream) in upstreams.iter().enumerate() {
            let first = *names.entry(&upstream.name).or_insert(index);
            if first != index {
                fault(
                    index,
                    "name",
                    &upstream.name,
                    format!("already the name of upstream[{first}]"),
                );
            }
            if let ListenAddress::Tcp { port: 0, .. } = upstream.listen {
                continue;
            }
            let first = *listens.entry(&upstream.listen).or_insert(index);
            if first != index {
                fault(
                    index,
                    "listen",
                    &upstream.listen,
                    format!("upstream[{first}] already listens there"),
                );
            }
            if upstream.listen.to_string() == admin.to_string() {
                fault(
                    index,
                    "listen",
                    &upstream.listen,
                    "admin already listens there".to_owned(),
                );
            }
            if is_same(&upstream.listen, &upstream.url.address) {
                fault(
                    index,
                    "listen",
                    &upstream.listen,
                    "must not be the upstream's own address".to_owned(),
                );
            }
        }
    }
}

fn is_same(listen: &ListenAddress, upstream: &UpstreamAddress) -> bool {
    match (listen, upstream) {
        (
            ListenAddress::Tcp { host, port },
            UpstreamAddress::Tcp { host: to, port: at } | UpstreamAddress::Tls { host: to, port: at, .. },
        ) => (host, port) == (to, at),
        (ListenAddress::Unix(path), UpstreamAddress::Unix(to)) => path == to,
        (ListenAddress::Tcp { .. }, UpstreamAddress::Unix(_))
        | (ListenAddress::Unix(_), UpstreamAddress::Tcp { .. } | UpstreamAddress::Tls { .. }) => false,
    }
}

/// A URL with its password, wherever that stood.
struct CompleteUrl {
    place: Place,
    db: u32,
    credentials: Option<Credentials>,
    password_file: Option<PathBuf>,
}

fn complete_url(value: &Value) -> Result<CompleteUrl, String> {
    completed(parsed(value)?)
}

fn completed(parts: UrlParts) -> Result<CompleteUrl, String> {
    let UrlParts {
        place,
        db,
        user,
        password,
    } = parts;
    let credentials = match (user, password) {
        (user, Some(password)) => Some(Credentials { user, password }),
        (None, None) => None,
        (Some(_), None) => return Err("a user needs a password: user:password@, or password_file".to_owned()),
    };
    Ok(CompleteUrl {
        place,
        db,
        credentials,
        password_file: None,
    })
}
