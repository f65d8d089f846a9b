//! The configuration as typed: a TOML table that is read key by key and notes what is wrong instead of stopping there.
//!
//! (A derived deserializer stops at the first unknown key or wrong type; users want all of them at once.)

use std::cell::RefCell;
use std::time::Duration;

use bytesize::ByteSize;
use toml::{Table, Value};

use super::fault::{Fault, shown};

/// One table of the file. Every key that is asked for counts as known; [`Section::finish`] names the others.
#[derive(Debug)]
pub(super) struct Section<'t> {
    /// With the dot that its keys follow, empty at the top.
    prefix: String,
    table: Option<&'t Table>,
    known: Vec<&'static str>,
    faults: &'t RefCell<Vec<Fault>>,
}

impl<'t> Section<'t> {
    pub(super) fn top(table: &'t Table, faults: &'t RefCell<Vec<Fault>>) -> Self {
        Self {
            prefix: String::new(),
            table: Some(table),
            known: Vec::new(),
            faults,
        }
    }

    /// The only table `[[key]]`, which nobody wrote.
    pub(super) fn absent(&self, key: &str) -> Self {
        self.child(&format!("{key}[0]"), None)
    }

    fn child(&self, key: &str, table: Option<&'t Table>) -> Self {
        Self {
            prefix: format!("{}{key}.", self.prefix),
            table,
            known: Vec::new(),
            faults: self.faults,
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'t Value> {
        self.known.push(key);
        self.table?.get(key)
    }

    /// Whether anything stands at `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value of `key`, if it is there and right.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        parse(value)
            .map_err(|rule| self.fault(key, Some(shown(key, value)), rule))
            .ok()
    }

    /// The value of `key`, or its default.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The table `key`; an empty one if it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        let table = self.optional(key, |value| {
            value.as_table().is_some().then_some(()).ok_or(must_be("a table"))
        });
        let value = self.table.and_then(|table| table.get(key));
        self.child(key, table.and_then(|()| value?.as_table()))
    }

    /// The tables `[[key]]`; nothing if there are none.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<Self>> {
        let value = self.value(key)?;
        let tables = value
            .as_array()
            .and_then(|items| items.iter().map(Value::as_table).collect::<Option<Vec<_>>>());
        let Some(tables) = tables else {
            let rule = format!("must be tables, each under [[{}{key}]]", self.prefix);
            self.fault(key, Some(shown(key, value)), rule);
            return None;
        };
        let sections = tables.into_iter().enumerate();
        Some(
            sections
                .map(|(index, table)| self.child(&format!("{key}[{index}]"), Some(table)))
                .collect(),
        )
    }

    /// Notes a fault of `key`.
    pub(super) fn fault(&self, key: &str, value: Option<String>, rule: impl Into<String>) {
        self.faults.borrow_mut().push(Fault {
            key: format!("{}{key}", self.prefix),
            value,
            rule: rule.into(),
        });
    }

    /// Names the keys that nobody asked for.
    pub(super) fn finish(self) {
        let unknown = self
            .table
            .into_iter()
            .flatten()
            .filter(|(key, _)| !self.known.contains(&key.as_str()));
        for (key, value) in unknown {
            let rule = format!("unknown key (known here: {})", self.known.join(", "));
            self.fault(key, Some(shown(key, value)), rule);
        }
    }
}

fn must_be(what: &str) -> String {
    format!("must be {what}")
}

pub(super) fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| must_be("a string"))
}

/// A string that is not empty.
pub(super) fn text(value: &Value) -> Result<String, String> {
    let text = string(value)?;
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parsed<T: std::str::FromStr<Err = String>>(value: &Value) -> Result<T, String> {
    string(value)?.parse()
}

/// A whole number within bounds, both included.
pub(super) fn whole(min: u32, max: u32) -> impl FnOnce(&Value) -> Result<u32, String> {
    move |value| {
        let number = value.as_integer().ok_or_else(|| must_be("a whole number"))?;
        if number < i64::from(min) {
            return Err(format!("must be at least {min}"));
        }
        u32::try_from(number)
            .ok()
            .filter(|number| *number <= max)
            .ok_or_else(|| format!("must be at most {max}"))
    }
}

/// A duration like "500ms" within bounds, both included.
pub(super) fn duration(min: Duration, max: Duration) -> impl FnOnce(&Value) -> Result<Duration, String> {
    move |value| {
        let rule = || must_be("a duration like \"500ms\"");
        let duration = humantime::parse_duration(value.as_str().ok_or_else(rule)?).map_err(|_| rule())?;
        if duration < min {
            return Err(format!("must be at least {}", humantime::format_duration(min)));
        }
        if max < duration {
            return Err(format!("must be at most {}", humantime::format_duration(max)));
        }
        Ok(duration)
    }
}

/// A size like "256MiB" (or a number of bytes) within bounds, both included.
pub(super) fn size(min: u64, max: u64) -> impl FnOnce(&Value) -> Result<u64, String> {
    move |value| {
        let rule = || must_be("a size like \"256MiB\"");
        let bytes = match value {
            Value::String(text) => text.parse::<ByteSize>().map_err(|_| rule())?.as_u64(),
            Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| rule())?,
            Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                return Err(rule());
            }
        };
        if bytes < min {
            return Err(format!("must be at least {}", size_text(min)));
        }
        if max < bytes {
            return Err(format!("must be at most {}", size_text(max)));
        }
        Ok(bytes)
    }
}

/// The size in the largest binary unit that says it exactly.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, name)) => format!("{}{name}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| must_be("true or false"))
}

/// One of several words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let rule = || {
            let names: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("must be one of {}", names.join(", "))
        };
        let text = value.as_str().ok_or_else(rule)?;
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning)
            .ok_or_else(rule)
    }
}

/// The word for a meaning.
pub(super) fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], meaning: T) -> &'static str {
    let found = words.iter().find(|(_, candidate)| *candidate == meaning);
    found.map_or("", |(word, _)| word)
}

/// A list of strings, none empty, at least one.
pub(super) fn strings(value: &Value) -> Result<Vec<String>, String> {
    let rule = || must_be("a list of strings, at least one, none empty");
    let items = value.as_array().filter(|items| !items.is_empty()).ok_or_else(rule)?;
    items.iter().map(|item| text(item).map_err(|_| rule())).collect()
}
