//! Where log lines go: standard error, as text or JSON.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{LogFormat, LogLevel, LogSettings};

/// Logging was set up before.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct LogError(#[from] tracing::subscriber::SetGlobalDefaultError);

/// Sends the process's log lines to standard error.
///
/// # Errors
/// When it is called a second time.
pub fn init_logging(settings: LogSettings) -> Result<(), LogError> {
    let colour = if io::stderr().is_terminal() {
        Colour::Terminal
    } else {
        Colour::None
    };
    Ok(tracing::subscriber::set_global_default(subscriber(
        settings,
        io::stderr,
        colour,
    ))?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Terminal,
    None,
}

fn subscriber<W>(settings: LogSettings, writer: W, colour: Colour) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_target(false);
    match settings.format {
        LogFormat::Text => Box::new(builder.with_ansi(colour == Colour::Terminal).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::events;
    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: LogSettings, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(settings, move || writer.clone(), Colour::None);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_transition_is_one_line_that_says_why() {
        let text = logged(LogSettings::default(), || {
            events::breaker_transition("main", "closed", "open", "silence");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            "INFO",
            "upstream=\"main\"",
            "from=\"closed\"",
            "to=\"open\"",
            "reason=\"silence\"",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn json_lines_are_objects_with_the_same_fields() {
        let settings = LogSettings {
            format: LogFormat::Json,
            level: LogLevel::Info,
        };
        let text = logged(settings, || {
            events::breaker_transition("main", "closed", "open", "silence")
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line["upstream"].as_str(), line["reason"].as_str()),
            (Some("main"), Some("silence"))
        );
    }

    #[test]
    fn lines_below_the_level_are_left_out() {
        let settings = LogSettings {
            format: LogFormat::Text,
            level: LogLevel::Warn,
        };
        let text = logged(settings, || {
            events::breaker_transition("main", "closed", "open", "silence")
        });
        assert_eq!(text, "");
    }
}
