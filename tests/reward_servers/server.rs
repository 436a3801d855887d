//! A server of rewards for tests: it counts what it is asked, and its rewards are a function of the row.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

/// What the server was asked.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicU64,
    pub rows: AtomicU64,
    /// Most rows of one request.
    pub most: AtomicU64,
    /// Of the last request.
    pub last: Mutex<Value>,
}

type Reward = fn(&Value) -> Value;

#[derive(Clone)]
struct Inner {
    seen: Arc<Seen>,
    latency: Duration,
    reward: Reward,
}

/// A running server; ends when dropped.
pub struct RewardServer {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    _runtime: tokio::runtime::Runtime,
}

/// Right where the completion ends with the gold answer, half right where it is there at all.
pub fn ends_with_gold(row: &Value) -> Value {
    let (completion, gold) = (row["completion"].as_str().unwrap(), row["gold"].as_str().unwrap());
    match completion {
        text if text.ends_with(gold) => json!(1.0),
        text if text.contains(gold) => json!(0.5),
        _ => json!(0.0),
    }
}

impl RewardServer {
    pub fn start(latency: Duration, reward: Reward) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), latency, reward)
    }

    /// Starts at a given address: a server that comes back.
    pub fn start_at(address: SocketAddr, latency: Duration, reward: Reward) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let inner = Inner { seen: seen.clone(), latency, reward };
        let app = Router::new().route("/score", post(score)).with_state(inner);
        runtime.spawn(async move { axum::serve(listener, app).await });
        RewardServer { address, seen, _runtime: runtime }
    }

    /// A rule file whose only rule asks this server.
    pub fn rules(&self, more: &str) -> String {
        format!("[rules.mine]\nkind = \"http\"\nendpoint = \"http://{}/score\"\n{more}\n", self.address)
    }
}

async fn score(State(inner): State<Inner>, Json(asked): Json<Value>) -> Json<Value> {
    let rows = asked["rows"].as_array().unwrap();
    inner.seen.requests.fetch_add(1, SeqCst);
    inner.seen.rows.fetch_add(rows.len() as u64, SeqCst);
    inner.seen.most.fetch_max(rows.len() as u64, SeqCst);
    let rewards: Vec<Value> = rows.iter().map(inner.reward).collect();
    *inner.seen.last.lock().unwrap() = asked;
    tokio::time::sleep(inner.latency).await;
    Json(json!({"rewards": rewards}))
}
