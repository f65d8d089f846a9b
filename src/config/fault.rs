//! What is wrong with a configuration, and how it is said.

use std::fmt;

use toml::Value;

/// One wrong key: where it stands, what stands there (passwords hidden) and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `upstream[0].breaker.failure_threshold`, `--listen`, `TIDEOVER_LISTEN`, or a line of the file.
    pub key: String,
    pub value: Option<String>,
    pub rule: String,
}

/// Every fault of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Fault>);

/// Why there are no settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Arguments that do not go with the file.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

impl LoadError {
    /// 2 for wrong usage, 78 (`EX_CONFIG` of sysexits.h) for a wrong configuration.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.key, self.rule),
            None => write!(f, "{}: {}", self.key, self.rule),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{fault}")?;
        }
        Ok(())
    }
}

/// A value as a fault shows it: as typed, but short, on one line and without passwords.
pub(super) fn shown(key: &str, value: &Value) -> String {
    const LEN_MAX: usize = 80;
    let text = match value {
        _ if is_secret(key) => "***".to_owned(),
        Value::Table(_) => "{…}".to_owned(),
        Value::Array(items) if items.iter().any(Value::is_table) => "[{…}]".to_owned(),
        Value::String(text) => Value::String(without_password(text)).to_string(),
        Value::Array(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.to_string()
        }
    };
    let text = text.replace('\n', "\\n");
    match text.char_indices().nth(LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "secret", "token"]
        .iter()
        .any(|word| key.contains(word))
        && !key.ends_with("_file")
}

/// `redis://user:password@host` → `redis://user:***@host`
fn without_password(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let Some(end) = text.rfind('@').filter(|end| start <= *end) else {
        return text.to_owned();
    };
    let user_end = text[start..end].find(':').map_or(start, |at| start + at);
    format!("{}:***{}", &text[..user_end], &text[end..])
}
