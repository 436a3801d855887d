//! Learning-rate schedules: warm-up, then constant, linear or cosine decay.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// A learning rate over the optimizer's steps.
///
/// The default is the paper's SFT: cosine to a tenth of 5e-6, no warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The highest learning rate, at the end of the warm-up.
    pub learning_rate: f64,
    /// Cosine by default.
    pub decay: Decay,
    /// The last step's rate as a fraction of the highest, in 0 to 1. Unused by a constant schedule.
    pub final_fraction: f64,
    /// Steps of linear warm-up from 0. The first step already has rate peak/warmup_steps.
    pub warmup_steps: u64,
    /// The same as a share of all steps, from 0 to 1, rounded up. At most one of the two is above 0.
    pub warmup_ratio: f64,
}

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// The highest rate throughout.
    Constant,
    /// A straight line to `final_fraction` of the highest.
    Linear,
    /// Half a cosine.
    #[default]
    Cosine,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { learning_rate: 5e-6, decay: Decay::Cosine, final_fraction: 0.1, warmup_steps: 0, warmup_ratio: 0.0 }
    }
}

impl Schedule {
    /// A constant rate: the paper's RL.
    pub fn constant(learning_rate: f64) -> Self {
        Schedule { learning_rate, decay: Decay::Constant, ..Schedule::default() }
    }

    /// Whether no step's rate depends on how many there are.
    pub fn is_of_any_length(&self) -> bool {
        self.decay == Decay::Constant && self.warmup_ratio == 0.0
    }

    /// Reads a schedule of which some keys may be left out: those are this one's. A trainer whose schedule is not
    /// [`Schedule::default`] reads its own so, else a recipe that names one key would get the rest of SFT's.
    ///
    /// # Errors
    /// As `Schedule`'s own `Deserialize`.
    pub(super) fn read_over<'de, D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self, D::Error> {
        let keys = Keys::deserialize(from)?;
        Ok(Schedule {
            learning_rate: keys.learning_rate.unwrap_or(self.learning_rate),
            decay: keys.decay.unwrap_or(self.decay),
            final_fraction: keys.final_fraction.unwrap_or(self.final_fraction),
            warmup_steps: keys.warmup_steps.unwrap_or(self.warmup_steps),
            warmup_ratio: keys.warmup_ratio.unwrap_or(self.warmup_ratio),
        })
    }

    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        if !(self.learning_rate.is_finite() && self.learning_rate >= 0.0) {
            return Err(Error::usage(format!("`learning_rate` is {}", self.learning_rate))
                .in_field("learning_rate")
                .hint("it must be a number of at least 0"));
        }
        if !(0.0..=1.0).contains(&self.final_fraction) {
            return Err(Error::usage(format!("`final_fraction` is {}", self.final_fraction))
                .in_field("final_fraction")
                .hint("it must be from 0 to 1"));
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            return Err(Error::usage(format!("`warmup_ratio` is {}", self.warmup_ratio))
                .in_field("warmup_ratio")
                .hint("it must be from 0 to 1, such as 0.1"));
        }
        if self.warmup_ratio > 0.0 && self.warmup_steps > 0 {
            return Err(Error::usage("`warmup_steps` and `warmup_ratio` both say how long the warm-up is")
                .in_field("warmup_ratio")
                .hint("keep one"));
        }
        Ok(())
    }

    /// Steps of warm-up of `total`.
    fn warmup(&self, total: u64) -> u64 {
        if self.warmup_ratio == 0.0 {
            return self.warmup_steps;
        }
        // What a product is off by, such as 0.1 · 70 = 7.000000000000001, is no step more.
        (self.warmup_ratio * total as f64 - 1e-9).ceil().max(0.0) as u64
    }

    /// The rate of 0-based `step` of `total` steps. Steps past the end keep the last rate.
    pub fn rate(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup(total);
        if step < warmup {
            return self.learning_rate * (step + 1) as f64 / warmup as f64;
        }
        // From 0 at the first step after the warm-up to 1 at the last step.
        let span = total.saturating_sub(warmup + 1);
        let progress = if span == 0 { 0.0 } else { ((step - warmup) as f64 / span as f64).min(1.0) };
        let above_floor = match self.decay {
            Decay::Constant => return self.learning_rate,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * above_floor)
    }
}

/// The keys of a [`Schedule`] that are written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    learning_rate: Option<f64>,
    decay: Option<Decay>,
    final_fraction: Option<f64>,
    warmup_steps: Option<u64>,
    warmup_ratio: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_cosine_ends_at_a_tenth() {
        let schedule = Schedule::default();
        assert_eq!(schedule.rate(0, 101), 5e-6);
        assert!((schedule.rate(50, 101) - 2.75e-6).abs() < 1e-15);
        assert!((schedule.rate(100, 101) - 5e-7).abs() < 1e-15);
        assert_eq!(schedule.rate(5000, 101), schedule.rate(100, 101));
    }

    #[test]
    fn warm_up_is_linear_and_never_zero() {
        let schedule = Schedule { learning_rate: 1.0, warmup_steps: 4, ..Schedule::default() };
        assert_eq!([0, 1, 2, 3, 4].map(|s| schedule.rate(s, 10)), [0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn a_warm_up_may_be_a_share_of_the_steps_instead() {
        let steps = |warmup_steps| Schedule { warmup_steps, ..Schedule::default() };
        let share = |warmup_ratio| Schedule { warmup_ratio, ..Schedule::default() };
        for (ratio, total, warmup) in [(0.1, 70, 7), (0.1, 71, 8), (0.03, 10, 1), (1.0, 5, 5), (0.5, 0, 0)] {
            let rates = |schedule: Schedule| [0, 1, 6, 7, 8].map(|step| schedule.rate(step, total));
            assert_eq!(rates(share(ratio)), rates(steps(warmup)), "{ratio} of {total}");
        }
        share(0.1).validate().unwrap();
        assert!(share(1.5).validate().is_err());
        let both = Schedule { warmup_steps: 3, ..share(0.1) }.validate().unwrap_err();
        assert!(both.to_string().contains("both say how long"), "{both}");
    }

    #[test]
    fn linear_and_constant_do_what_they_say() {
        let linear = Schedule { learning_rate: 1.0, decay: Decay::Linear, final_fraction: 0.0, ..Schedule::default() };
        assert_eq!([0, 5, 10].map(|s| linear.rate(s, 11)), [1.0, 0.5, 0.0]);
        assert_eq!(Schedule::constant(3e-6).rate(77, 10), 3e-6);
    }

    #[test]
    fn short_runs_have_finite_rates() {
        for total in 0..4 {
            for step in 0..6 {
                let schedule = Schedule { warmup_steps: 2, ..Schedule::default() };
                assert!(schedule.rate(step, total).is_finite());
            }
        }
        assert!(Schedule { final_fraction: 2.0, ..Schedule::default() }.validate().is_err());
        assert!(Schedule { learning_rate: f64::NAN, ..Schedule::default() }.validate().is_err());
    }
}
