//! A snapshot for people: a line while a run is on, and a table of the servers at its end.

use super::stats::{EndpointSnapshot, Snapshot};

impl Snapshot {
    /// How it goes, in one line.
    pub fn line(&self) -> String {
        let mut parts = vec![
            format!("{} in flight", self.in_flight),
            format!("{} tokens/s", grouped(self.tokens_per_second as u64)),
            format!("{} tokens so far", grouped(self.completion_tokens)),
        ];
        let down = self.endpoints.iter().filter(|e| !e.is_up()).count();
        if down > 0 {
            parts.push(format!("{down} of {} servers down", self.endpoints.len()));
        }
        self.what_went_wrong(&mut parts);
        parts.join(", ")
    }

    /// What each server did, one line each under a head, and a line for all of them together.
    pub fn table(&self) -> Vec<String> {
        let head =
            ["server", "state", "requests", "completions", "tokens in", "tokens out", "latency", "limit", "faults"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.endpoints.iter().map(cells));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut lines: Vec<String> = rows
            .iter()
            .map(|row| {
                let cell = |(column, text): (usize, &String)| {
                    // Words to the left, numbers to the right.
                    let width = widths[column];
                    if (2..8).contains(&column) { format!("{text:>width$}") } else { format!("{text:<width$}") }
                };
                row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
            })
            .collect();
        let rate = self.completion_tokens as f64 / self.seconds.max(1e-9);
        let mut parts = vec![format!(
            "{} tokens in {:.0} s ({} a second)",
            grouped(self.completion_tokens),
            self.seconds,
            grouped(rate as u64)
        )];
        self.what_went_wrong(&mut parts);
        lines.push(parts.join(", "));
        lines
    }

    fn what_went_wrong(&self, parts: &mut Vec<String>) {
        if self.truncated > 0 {
            parts.push(format!("{} cut at the limit", grouped(self.truncated)));
        }
        for (what, counts) in [("retries", &self.retries), ("rows failed", &self.failed_rows)] {
            if !counts.is_empty() {
                let sum = counts.iter().map(|(_, n)| n).sum();
                parts.push(format!("{} {what} ({})", grouped(sum), causes(counts)));
            }
        }
        if let (Some(cost), Some(currency)) = (self.cost, &self.currency) {
            parts.push(format!("cost {cost:.2} {currency}"));
        }
    }
}

fn cells(e: &EndpointSnapshot) -> [String; 9] {
    let latency = if e.latency >= 1.0 { format!("{:.1} s", e.latency) } else { format!("{:.0} ms", e.latency * 1e3) };
    [
        e.address.clone(),
        e.state.to_owned(),
        grouped(e.requests),
        grouped(e.completions),
        grouped(e.prompt_tokens),
        grouped(e.completion_tokens),
        latency,
        e.limit.to_string(),
        causes(&e.faults),
    ]
}

fn causes(counts: &[(&'static str, u64)]) -> String {
    counts.iter().map(|(cause, n)| format!("{cause} {}", grouped(*n))).collect::<Vec<_>>().join(", ")
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_says_what_happened() {
        let server = |address: &str, requests, faults| EndpointSnapshot {
            address: address.into(),
            state: "up",
            requests,
            latency: 0.25,
            limit: 16,
            faults,
            ..EndpointSnapshot::default()
        };
        let snapshot = Snapshot {
            seconds: 10.0,
            completion_tokens: 1_234_567,
            retries: vec![("reset", 2), ("timeout", 1)],
            failed_rows: vec![("context_overflow", 4)],
            cost: Some(0.5),
            currency: Some("USD".into()),
            endpoints: vec![
                server("http://gpu1:8000", 1000, vec![("reset", 2), ("timeout", 1)]),
                server("http://other-gpu:8000", 5, vec![]),
            ],
            ..Snapshot::default()
        };
        assert_eq!(
            snapshot.table().join("\n"),
            "server                 state  requests  completions  tokens in  tokens out  latency  limit  faults\n\
             http://gpu1:8000       up        1,000            0          0           0   250 ms     16  reset 2, timeout 1\n\
             http://other-gpu:8000  up            5            0          0           0   250 ms     16\n\
             1,234,567 tokens in 10 s (123,456 a second), 3 retries (reset 2, timeout 1), 4 rows failed \
             (context_overflow 4), cost 0.50 USD"
        );
        assert!(snapshot.line().starts_with("0 in flight, 0 tokens/s, 1,234,567 tokens so far, 3 retries"));
    }
}
