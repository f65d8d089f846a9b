//! Globs as in KEYS (`stringmatchlen`), without its exponential blow-up: on a mismatch only the last `*` grows.

/// A glob over bytes: `*`, `?`, `[a-c]`, `[^x]`, `\` quotes. Every pattern means something, as in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    OneOf(Box<[u64; 4]>),
    Many,
}

impl Glob {
    pub(super) fn new(mut pattern: &[u8]) -> Self {
        let mut tokens = Vec::with_capacity(pattern.len());
        while let Some((first, rest)) = pattern.split_first() {
            pattern = rest;
            match first {
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let (class, rest) = one_of(pattern);
                    tokens.push(class);
                    pattern = rest;
                }
                b'\\' if !rest.is_empty() => {
                    tokens.push(Token::Byte(rest[0]));
                    pattern = &rest[1..];
                }
                byte => tokens.push(Token::Byte(*byte)),
            }
        }
        Self(tokens)
    }

    /// Whether it matches everything that the other one matches; `false` where that is not plain to see.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self == other
            || self
                .0
                .split_last()
                .is_some_and(|(last, head)| *last == Token::Many && other.0.starts_with(head))
    }

    /// At most tokens × bytes steps.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let (mut token, mut byte) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    retry = Some((token, byte));
                    continue;
                }
                Some(one) if text.get(byte).is_some_and(|byte| one.takes(*byte)) => {
                    token += 1;
                    byte += 1;
                    continue;
                }
                None if byte == text.len() => return true,
                Some(_) | None => {}
            }
            match retry {
                Some((after_star, taken)) if taken < text.len() => {
                    retry = Some((after_star, taken + 1));
                    token = after_star;
                    byte = taken + 1;
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::Any | Self::Many => true,
            Self::OneOf(bits) => bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
        }
    }
}

/// What stands behind `[`, and the pattern after its `]`. An unclosed class ends with the pattern.
fn one_of(mut pattern: &[u8]) -> (Token, &[u8]) {
    let mut bits = [0_u64; 4];
    let mut set = |byte: u8| bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
    let is_negated = pattern.first() == Some(&b'^');
    if is_negated {
        pattern = &pattern[1..];
    }
    loop {
        match pattern {
            [] => break,
            [b'\\', byte, rest @ ..] => {
                set(*byte);
                pattern = rest;
            }
            [b']', rest @ ..] => {
                pattern = rest;
                break;
            }
            [from, b'-', to, rest @ ..] => {
                (*from.min(to)..=*from.max(to)).for_each(&mut set);
                pattern = rest;
            }
            [byte, rest @ ..] => {
                set(*byte);
                pattern = rest;
            }
        }
    }
    if is_negated {
        bits = bits.map(|word| !word);
    }
    (Token::OneOf(Box::new(bits)), pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_keys() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("stats:*", "stats:", true),
            ("stats:*", "stat", false),
            ("*:end", "a:end:end", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-", "h-", true),
            ("[]x", "x", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("**", "anything", true),
        ] {
            assert_eq!(
                Glob::new(pattern.as_bytes()).matches(text.as_bytes()),
                expected,
                "{pattern:?} on {text:?}"
            );
        }
    }

    #[test]
    fn a_glob_covers_what_begins_like_it() {
        for (one, other, expected) in [
            ("*", "a", true),
            ("*", "*", true),
            ("a:*", "a:b:*", true),
            ("a:*", "a:", true),
            ("a?*", "a?b", true),
            ("a:*", "a*", false),
            ("a:b", "a:*", false),
            ("a?", "ab", false),
        ] {
            let covers = Glob::new(one.as_bytes()).covers(&Glob::new(other.as_bytes()));
            assert_eq!(covers, expected, "{one:?} over {other:?}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let glob = Glob::new("a*".repeat(200).as_bytes());
        let text = [b'a'].repeat(150);
        assert!(!glob.matches(&text));
        let glob = Glob::new(format!("{}b", "a*".repeat(200)).as_bytes());
        assert!(!glob.matches(&[b'a'].repeat(20_000)));
    }
}
