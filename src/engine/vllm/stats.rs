//! What the servers did so far: the numbers behind the progress line, the table and Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Shared;
use super::config::Prices;
use super::fault::FaultKind;

const KINDS: usize = FaultKind::ALL.len();

/// Counters of one endpoint; each is only ever added to.
#[derive(Default)]
pub(super) struct Counters {
    pub requests: AtomicU64,
    pub answers: AtomicU64,
    pub completions: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub completion_tokens: AtomicU64,
    pub truncated: AtomicU64,
    pub faults: [AtomicU64; KINDS],
    /// The server's own queue at its last scrape; `u64::MAX` if it tells none.
    pub server_waiting: AtomicU64,
}

/// Counters of the engine as a whole.
#[derive(Default)]
pub(super) struct Totals {
    pub retries: [AtomicU64; KINDS],
    pub failed_rows: [AtomicU64; KINDS],
    pub continuations: AtomicU64,
    /// Requests that wait out a pause and hold no place at any server.
    pub pausing: AtomicU64,
}

/// What the engine has done up to now; plain data for displays.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Snapshot {
    /// Since the engine connected.
    pub seconds: f64,
    /// Requests sent, each for one or several samples.
    pub requests: u64,
    /// Samples that were answered.
    pub completions: u64,
    /// As the servers count.
    pub prompt_tokens: u64,
    /// As the servers count.
    pub completion_tokens: u64,
    /// Completions cut at the token limit.
    pub truncated: u64,
    /// Completion tokens a second over the last ten seconds or so.
    pub tokens_per_second: f64,
    /// Completions a second over the same time.
    pub completions_per_second: f64,
    /// Requests under way at all servers.
    pub in_flight: usize,
    /// Requests that wait for room at a server.
    pub queued: usize,
    /// Requests that wait out a pause before their next try.
    pub pausing: u64,
    /// Tries beyond the first, by cause, those that happened only.
    pub retries: Vec<(&'static str, u64)>,
    /// Rows that failed, by cause, those that happened only.
    pub failed_rows: Vec<(&'static str, u64)>,
    /// Requests that went on where `max_tokens` had cut a completion.
    pub continuations: u64,
    /// In the price table's currency; none without prices.
    pub cost: Option<f64>,
    /// None without prices.
    pub currency: Option<String>,
    /// In the order of the configuration, a launched server first.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// One line of the per-endpoint table.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct EndpointSnapshot {
    /// Its base address, without credentials.
    pub address: String,
    /// `up`, `down` (circuit open, being probed), `left out` (it refuses us) or `pausing` (asked us to wait).
    pub state: &'static str,
    /// Requests under way there.
    pub in_flight: usize,
    /// The adaptive limit on requests in flight.
    pub limit: usize,
    /// Requests sent to it.
    pub requests: u64,
    /// Samples that it answered.
    pub completions: u64,
    /// As it counts.
    pub prompt_tokens: u64,
    /// As it counts.
    pub completion_tokens: u64,
    /// Smoothed seconds from request to whole answer.
    pub latency: f64,
    /// The server's own queue, where it tells.
    pub server_waiting: Option<u64>,
    /// Requests that met a fault, by cause, those that happened only.
    pub faults: Vec<(&'static str, u64)>,
    /// What the last fault said; `None` if there was none.
    pub last_fault: Option<String>,
}

impl EndpointSnapshot {
    /// Whether requests go to it.
    pub fn is_up(&self) -> bool {
        !matches!(self.state, "down" | "left out")
    }
}

pub(super) fn by_kind(counts: &[AtomicU64; KINDS]) -> Vec<(&'static str, u64)> {
    let named = FaultKind::ALL.iter().zip(counts).map(|(kind, count)| (kind.as_str(), count.load(Relaxed)));
    named.filter(|(_, count)| *count > 0).collect()
}

pub(super) fn cost(prices: &Prices, prompt_tokens: u64, completion_tokens: u64) -> f64 {
    (prices.prompt * prompt_tokens as f64 + prices.completion * completion_tokens as f64) / 1e6
}

impl Shared {
    /// What was done up to now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let endpoints = self.pool.snapshot();
        let sum = |pick: fn(&EndpointSnapshot) -> u64| endpoints.iter().map(pick).sum::<u64>();
        let (in_flight, queued) = self.pool.load();
        let rates = *self.rates.lock().unwrap_or_else(|e| e.into_inner());
        let (prompt_tokens, completion_tokens) = (sum(|e| e.prompt_tokens), sum(|e| e.completion_tokens));
        let prices = self.config.prices.as_ref();
        Snapshot {
            seconds: self.since.elapsed().as_secs_f64(),
            requests: sum(|e| e.requests),
            completions: sum(|e| e.completions),
            prompt_tokens,
            completion_tokens,
            truncated: self.pool.counters.iter().map(|c| c.truncated.load(Relaxed)).sum(),
            tokens_per_second: rates.tokens,
            completions_per_second: rates.completions,
            in_flight,
            queued,
            pausing: self.totals.pausing.load(Relaxed),
            retries: by_kind(&self.totals.retries),
            failed_rows: by_kind(&self.totals.failed_rows),
            continuations: self.totals.continuations.load(Relaxed),
            cost: prices.map(|p| cost(p, prompt_tokens, completion_tokens)),
            currency: prices.map(|p| p.currency.clone()),
            endpoints,
        }
    }
}

impl Snapshot {
    /// The numbers in Prometheus' text format, version 0.0.4.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(text, "# HELP gristmill_{name} {help}\n# TYPE gristmill_{name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(text, "gristmill_{name}{labels} {value}");
            }
        };
        let of = |pick: fn(&EndpointSnapshot) -> f64| -> Vec<(String, f64)> {
            self.endpoints.iter().map(|e| (format!("{{endpoint=\"{}\"}}", escape(&e.address)), pick(e))).collect()
        };
        let causes = |counts: &[(&'static str, u64)]| -> Vec<(String, f64)> {
            counts.iter().map(|(cause, n)| (format!("{{cause=\"{cause}\"}}"), *n as f64)).collect()
        };
        let plain = |value: f64| vec![(String::new(), value)];
        family("requests_total", "counter", "Requests sent.", &of(|e| e.requests as f64));
        family("completions_total", "counter", "Completions received.", &of(|e| e.completions as f64));
        family(
            "prompt_tokens_total",
            "counter",
            "Prompt tokens as the servers count.",
            &of(|e| e.prompt_tokens as f64),
        );
        family("completion_tokens_total", "counter", "Completion tokens.", &of(|e| e.completion_tokens as f64));
        family("in_flight", "gauge", "Requests in flight.", &of(|e| e.in_flight as f64));
        family("concurrency_limit", "gauge", "Adaptive limit on requests in flight.", &of(|e| e.limit as f64));
        family("latency_seconds", "gauge", "Smoothed time to a whole answer.", &of(|e| e.latency));
        family("endpoint_up", "gauge", "1 if requests go to the endpoint.", &of(|e| f64::from(e.is_up())));
        let faults = self.endpoints.iter().flat_map(|e| {
            let address = escape(&e.address);
            e.faults.iter().map(move |(cause, n)| (format!("{{endpoint=\"{address}\",cause=\"{cause}\"}}"), *n as f64))
        });
        family("faults_total", "counter", "Requests that went wrong.", &faults.collect::<Vec<_>>());
        family("retries_total", "counter", "Tries beyond the first.", &causes(&self.retries));
        family("failed_rows_total", "counter", "Rows given up.", &causes(&self.failed_rows));
        family("truncated_total", "counter", "Completions cut at the token limit.", &plain(self.truncated as f64));
        family("queued", "gauge", "Requests that wait for room at a server.", &plain(self.queued as f64));
        family("pausing", "gauge", "Requests that wait before their next try.", &plain(self.pausing as f64));
        family("tokens_per_second", "gauge", "Recent completion tokens a second.", &plain(self.tokens_per_second));
        if let Some(cost) = self.cost {
            family("cost", "gauge", "Cost by the price table.", &plain(cost));
        }
        text
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_help_type_and_escaped_labels() {
        let snapshot = Snapshot {
            retries: vec![("timeout", 3)],
            endpoints: vec![EndpointSnapshot {
                address: "http://a\"b".into(),
                state: "up",
                requests: 9,
                faults: vec![("reset", 1)],
                last_fault: None,
                ..EndpointSnapshot::default()
            }],
            ..Snapshot::default()
        };
        let text = snapshot.metrics_text();
        assert!(text.contains("# TYPE gristmill_requests_total counter\n"), "{text}");
        assert!(text.contains("gristmill_requests_total{endpoint=\"http://a\\\"b\"} 9\n"), "{text}");
        assert!(text.contains("gristmill_retries_total{cause=\"timeout\"} 3\n"), "{text}");
        assert!(text.contains("gristmill_faults_total{endpoint=\"http://a\\\"b\",cause=\"reset\"} 1\n"), "{text}");
        assert!(!text.contains("failed_rows"), "{text}");
    }

    #[test]
    fn a_million_tokens_cost_their_price() {
        let prices = Prices { prompt: 0.5, completion: 2.0, currency: "USD".into() };
        assert_eq!(cost(&prices, 2_000_000, 500_000), 2.0);
    }
}
