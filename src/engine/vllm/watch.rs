//! What goes on beside the requests: probing endpoints that are down, reading
//! the servers' own gauges, measuring rates.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use super::fault::{Fatal, Fault, FaultKind};
use super::identity::{Identity, ProbeError, is_paused, probe};
use super::weights::{install, refusal, still_has};
use crate::seed;

/// Completions and tokens a second, smoothed over some ten seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub tokens: f64,
    pub completions: f64,
}

/// Probes a down endpoint, less and less often, until it serves the run's model again.
pub(super) async fn revive(shared: Weak<Shared>, at: usize) {
    let Some(mut pause) = shared.upgrade().map(|shared| shared.pool.first_pause(at)) else { return };
    for attempt in 0.. {
        let jitter = seed::stream(at as u64, "probe", attempt).uniform();
        tokio::time::sleep(Duration::from_secs_f64(pause * (0.5 + 0.5 * jitter))).await;
        let Some(shared) = shared.upgrade() else { return };
        match admit(&shared, at).await {
            Ok(()) => return,
            Err(ProbeError::NotYet(fault)) => {
                if fault.kind == FaultKind::Unreachable {
                    shared.pool.note_policy(at, None);
                }
                pause = f64::min(pause * 1.5, pause.max(15.0));
            }
            Err(ProbeError::Refused(cause)) => {
                shared.pool.refuse(at, cause);
                pause = f64::min(pause * 1.5, 300.0).max(15.0);
            }
            Err(ProbeError::Never(fatal)) => return shared.pool.fail(fatal),
        }
    }
}

/// Lets requests to an endpoint that is healthy, serves the same model as the others, and has the
/// weights the policy has now.
pub(super) async fn admit(shared: &Arc<Shared>, at: usize) -> Result<(), ProbeError> {
    let endpoint = &shared.pool.endpoints[at];
    let identity = probe(endpoint, &shared.wanted_model(), &shared.config.reasoning).await?;
    shared.compare(at, &identity).map_err(ProbeError::Never)?;
    // A server that was restarted has its first weights again; one whose connection broke may have.
    let _loading = shared.loading.lock().await;
    resume(shared, at).await.map_err(ProbeError::NotYet)?;
    let installed = shared.installed.lock().unwrap_or_else(|e| e.into_inner()).clone();
    if let Some(weights) = installed {
        let served = shared.model.read().unwrap_or_else(|e| e.into_inner()).clone();
        let gap = shared.pool.policy_gap(at);
        if !still_has(endpoint, &weights, &served, gap).await.map_err(ProbeError::NotYet)? {
            // One that was started again in another way will not load them later either.
            let loaded = install(endpoint, &weights, &served).await.map_err(|fault| match refusal(endpoint, &fault) {
                Some(fatal) => ProbeError::Never(fatal),
                None => ProbeError::NotYet(fault),
            });
            shared.pool.note_loss(at, loaded?);
        }
    }
    shared.pool.close(at);
    // Requests begin at the right number at once, not only after the first look a second later.
    if let Ok(text) = endpoint.get("metrics", Duration::from_secs(2)).await
        && let Some((waiting, running)) = gauges(&text)
    {
        shared.pool.on_gauge(at, waiting, running);
    }
    Ok(())
}

/// How long a server may be paused by somebody who loads weights into it.
const PAUSE_OF_OTHERS: Duration = Duration::from_secs(3);

/// Sets a server going again that somebody paused and left so, as a trainer does that is killed while it
/// loads weights: requests to it would hang until their deadline. Our own loads hold the lock that the caller holds.
async fn resume(shared: &Shared, at: usize) -> Result<(), Fault> {
    let endpoint = &shared.pool.endpoints[at];
    let since = Instant::now();
    while is_paused(endpoint).await {
        if since.elapsed() >= PAUSE_OF_OTHERS {
            endpoint.post("resume", Vec::new(), Duration::from_secs(60)).await?;
            shared.pool.say(format!(
                "{} had been paused and left so, perhaps by a training that was killed: it is told to go on",
                endpoint.address
            ));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

impl Shared {
    /// The model every server must serve: the configured one, or what the first server served; empty
    /// before that.
    fn wanted_model(&self) -> String {
        let known = self.identity.lock().unwrap_or_else(|e| e.into_inner());
        match &*known {
            Some((_, identity)) if self.config.model.is_empty() => identity.model.clone(),
            _ => self.config.model.clone(),
        }
    }

    /// The first identity seen is the engine's; any other must be the same.
    pub fn compare(&self, at: usize, identity: &Identity) -> Result<(), Fatal> {
        let mut known = self.identity.lock().unwrap_or_else(|e| e.into_inner());
        let Some((first, one)) = &*known else {
            *known = Some((at, identity.clone()));
            return Ok(());
        };
        let Some(what) = one.difference(identity, self.config.allow_different_roots) else { return Ok(()) };
        let (a, b) = (&self.pool.endpoints[*first].address, &self.pool.endpoints[at].address);
        Err(if *first == at {
            Fatal::new(format!("the model at {b} changed under the run: {what}"))
                .hint("start the run again: its finished rows stay, and name the model that made them")
        } else {
            Fatal::new(format!("{a} and {b} serve different models: {what}")).hint(
                "serve the same weights everywhere; for one model under two paths set `allow_different_roots = true`",
            )
        })
    }
}

/// Once a second, while a run is on: the servers' queues, and the rates.
pub(super) async fn observe(shared: Weak<Shared>) {
    let mut has_gauge: Vec<bool> = match shared.upgrade() {
        Some(shared) => vec![true; shared.pool.endpoints.len()],
        None => return,
    };
    let mut last = (Instant::now(), 0, 0);
    for second in 1u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(shared) = shared.upgrade() else { return };
        let sum = |pick: fn(&super::stats::Counters) -> u64| shared.pool.counters.iter().map(pick).sum::<u64>();
        let (tokens, completions) = (sum(|c| c.completion_tokens.load(Relaxed)), sum(|c| c.completions.load(Relaxed)));
        let now = Instant::now();
        let seconds = now.duration_since(last.0).as_secs_f64();
        {
            let mut rates = shared.rates.lock().unwrap_or_else(|e| e.into_inner());
            let smooth = |old: f64, new: u64| {
                let rate = new as f64 / seconds;
                if old > 0.0 { 0.8 * old + 0.2 * rate } else { rate }
            };
            rates.tokens = smooth(rates.tokens, tokens - last.1);
            rates.completions = smooth(rates.completions, completions - last.2);
        }
        last = (now, tokens, completions);
        if shared.runs.load(Relaxed) == 0 {
            continue;
        }
        let in_doubt = |at: &usize| shared.pool.take_suspicion(*at) || second.is_multiple_of(RECHECK);
        for at in (0..shared.pool.endpoints.len()).filter(|&at| shared.pool.is_up(at)).filter(in_doubt) {
            // Not waited for: one that hangs must not keep the others' queues from being looked at.
            let shared = shared.clone();
            tokio::spawn(async move { recheck(&shared, at).await });
        }
        let scrapes =
            has_gauge.iter_mut().enumerate().filter(|(at, has)| **has && shared.pool.is_up(*at)).map(|(at, has)| {
                let pool = &shared.pool;
                async move {
                    match pool.endpoints[at].get("metrics", Duration::from_secs(2)).await {
                        Ok(text) => match gauges(&text) {
                            Some((waiting, running)) => pool.on_gauge(at, waiting, running),
                            None => *has = false,
                        },
                        Err(fault) if matches!(fault.kind, FaultKind::WrongAddress | FaultKind::BadRequest) => {
                            *has = false
                        }
                        Err(_) => {}
                    }
                }
            });
        futures::future::join_all(scrapes).await;
    }
}

/// Seconds after which a server that never broke a connection is asked again what it serves.
const RECHECK: u64 = 60;

/// Ends the run if a server in use serves another model now: it was restarted between two requests,
/// or a proxy leads elsewhere. Whether it answers at all is the requests' business.
async fn recheck(shared: &Shared, at: usize) {
    if let Ok(identity) = probe(&shared.pool.endpoints[at], &shared.wanted_model(), &shared.config.reasoning).await
        && let Err(fatal) = shared.compare(at, &identity)
    {
        shared.pool.fail(fatal);
    }
}

/// (waiting, running) of vLLM's metrics, summed over its engines.
fn gauges(text: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let sum = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            // `num_requests_waiting` must not match `num_requests_waiting_by_reason`.
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
    };
    Some((sum("vllm:num_requests_waiting")? as u64, sum("vllm:num_requests_running").unwrap_or(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_summed_over_engines_and_not_mistaken_for_their_namesakes() {
        let text = b"# HELP vllm:num_requests_waiting Number\n\
            vllm:num_requests_waiting{engine=\"0\"} 3.0\nvllm:num_requests_waiting{engine=\"1\"} 4.0\n\
            vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 100.0\n\
            vllm:num_requests_running{engine=\"0\"} 16.0\n";
        assert_eq!(gauges(text), Some((7, 16)));
        assert_eq!(gauges(b"llamacpp:requests_processing 1\n"), None);
    }
}
