//! A problem's own limits, as judges state them.

use serde_json::{Map, Value};

/// The most that the rule's own limits may be.
pub(in crate::rule::code) const MOST_SECONDS: f64 = 600.0;
pub(in crate::rule::code) const MOST_MIB: f64 = 65536.0;

/// What the problem says of its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::rule::code) struct OfProblem {
    /// For each test.
    pub seconds: Option<f64>,
    pub mebibytes: Option<f64>,
}

impl OfProblem {
    /// `time_limit` in seconds and `memory_limit` in MB (open-r1), as texts with their unit (TACO's `2.0 seconds`), or
    /// as CodeContests' `{seconds, nanos}` and `memory_limit_bytes`. Numbers that no judge has as seconds or MB are
    /// milliseconds, and KB or bytes. What is not above 0 says nothing.
    pub fn of(row: &Map<String, Value>) -> Self {
        let value = |key: &str| row.get(key).unwrap_or(&Value::Null);
        let time = value("time_limit");
        let seconds = match time {
            Value::Object(parts) => {
                let part = |key: &str| parts.get(key).and_then(Value::as_f64);
                part("seconds").map(|seconds| seconds + part("nanos").unwrap_or(0.0) / 1e9)
            }
            Value::Number(_) => time.as_f64().map(|x| if x > MOST_SECONDS { x / 1e3 } else { x }),
            _ => quantity(time, &[("second", 1.0), ("ms", 1e-3), ("millisecond", 1e-3), ("s", 1.0)]),
        };
        let (kib, mib) = (f64::from(1 << 10), f64::from(1 << 20));
        let bytes = value("memory_limit_bytes").as_f64().map(|bytes| bytes / mib);
        let plain = value("memory_limit").as_f64().map(|x| match x {
            x if x <= MOST_MIB => x,
            x if x <= 16.0 * mib => x / kib,
            x => x / mib,
        });
        let units =
            [("megabyte", 1.0), ("mb", 1.0), ("mib", 1.0), ("gigabyte", 1024.0), ("gb", 1024.0), ("kb", 1.0 / 1024.0)];
        let mebibytes = plain.or_else(|| quantity(value("memory_limit"), &units)).or(bytes);
        let positive = |x: &f64| x.is_finite() && *x > 0.0;
        OfProblem { seconds: seconds.filter(positive), mebibytes: mebibytes.filter(positive) }
    }
}

/// A text of a number and perhaps one of these units (in the singular or the plural), in the first one's measure.
fn quantity(value: &Value, units: &[(&str, f64)]) -> Option<f64> {
    let text = value.as_str()?.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<f64>().ok()?, text[end..].trim());
    let singular = unit.strip_suffix('s').filter(|unit| !unit.is_empty() && *unit != "m").unwrap_or(unit);
    if unit.is_empty() {
        return Some(number);
    }
    units.iter().find(|(name, _)| *name == singular).map(|(_, factor)| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_every_unit() {
        for (row, seconds, mebibytes) in [
            (r#"{"time_limit": 1.5, "memory_limit": 256.0}"#, Some(1.5), Some(256.0)),
            (r#"{"time_limit": "2.0 seconds", "memory_limit": "256.0 megabytes"}"#, Some(2.0), Some(256.0)),
            (r#"{"time_limit": "1 second", "memory_limit": "64MB"}"#, Some(1.0), Some(64.0)),
            (r#"{"time_limit": "500 ms", "memory_limit": "1 GB"}"#, Some(0.5), Some(1024.0)),
            (r#"{"time_limit": "3s", "memory_limit": "512"}"#, Some(3.0), Some(512.0)),
            (r#"{"time_limit": 2000, "memory_limit": 262144}"#, Some(2.0), Some(256.0)),
            (
                r#"{"time_limit": {"seconds": 1, "nanos": 500000000}, "memory_limit_bytes": 64000000}"#,
                Some(1.5),
                Some(64e6 / 1048576.0),
            ),
            (r#"{"time_limit": {"seconds": 4}, "memory_limit": 268435456}"#, Some(4.0), Some(256.0)),
            (r#"{"time_limit": 0, "memory_limit": -1}"#, None, None),
            (r#"{"time_limit": null, "memory_limit": "unlimited"}"#, None, None),
            (r#"{"time_limit": "2 hours", "memory_limit": ""}"#, None, None),
            (r#"{"time_limit": [1], "memory_limit_bytes": "many"}"#, None, None),
            ("{}", None, None),
        ] {
            let value: Value = serde_json::from_str(row).unwrap();
            assert_eq!(OfProblem::of(value.as_object().unwrap()), OfProblem { seconds, mebibytes }, "{row}");
        }
    }
}
