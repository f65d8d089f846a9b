//! What was counted, and how long it took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::schedule::nanoseconds;

const LONGEST_NS: u64 = 120_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

#[derive(Debug)]
pub(crate) struct Tally {
    latency_ns: Histogram<u64>,
    warm_up_ns: u64,
    /// Those of the warm-up as well.
    answered: u64,
    counted: u64,
    unsent: u64,
    end_ns: u64,
}

impl Tally {
    pub(crate) fn new(warm_up: Duration) -> Result<Self, Failure> {
        let latency_ns = Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS)
            .map_err(|error| Failure::Argument(error.to_string()))?;
        Ok(Self {
            latency_ns,
            warm_up_ns: nanoseconds(warm_up),
            answered: 0,
            counted: 0,
            unsent: 0,
            end_ns: 0,
        })
    }

    pub(crate) fn answered(&mut self, intended_ns: u64, now_ns: u64, requests: u64) {
        self.answered += requests;
        self.end_ns = self.end_ns.max(now_ns);
        // A backlog of the warm-up counts for the rate, for it was worked off; how long that took is the warm-up's.
        if now_ns >= self.warm_up_ns {
            self.counted += requests;
        }
        if intended_ns >= self.warm_up_ns {
            self.latency_ns
                .saturating_record_n(now_ns.saturating_sub(intended_ns), requests);
        }
    }

    /// It waited at least until now: left out, the worst would be missing.
    pub(crate) fn unsent(&mut self, intended_ns: u64, now_ns: u64, requests: u64) {
        if intended_ns >= self.warm_up_ns {
            self.unsent += requests;
            self.latency_ns
                .saturating_record_n(now_ns.saturating_sub(intended_ns), requests);
        }
    }

    /// `answered` counts the warm-up in; everything else does not.
    pub(crate) fn report(&self) -> Value {
        let seconds = self.end_ns.saturating_sub(self.warm_up_ns) as f64 / 1e9;
        let us = |quantile: f64| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "requests": self.counted,
            "seconds": seconds,
            "rate": if seconds > 0.0 { self.counted as f64 / seconds } else { 0.0 },
            "unsent": self.unsent,
            "answered": self.answered,
            "p50_us": us(0.5),
            "p99_us": us(0.99),
            "p999_us": us(0.999),
            "max_us": self.latency_ns.max() as f64 / 1e3,
        })
    }
}
