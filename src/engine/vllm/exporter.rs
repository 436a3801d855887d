//! The engine's numbers for a monitor: Prometheus text at `/metrics`, on request.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::Handle;

use super::Shared;
use crate::error::{Error, Result};

/// Serves the numbers at `address` for as long as the runtime and the engine live; answers with the
/// address taken, whose port is chosen by the system where 0 was asked.
///
/// # Errors
/// The address cannot be listened at.
pub(super) fn serve(shared: &Arc<Shared>, address: SocketAddr, runtime: &Handle) -> Result<SocketAddr> {
    let fail = |e: std::io::Error| {
        Error::new(format!("the metrics cannot be served at {address}"))
            .in_field("engine.metrics")
            .caused_by(e)
            .hint("another process may listen there; port 0 takes a free one")
    };
    let listener = std::net::TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let app = Router::new().route("/metrics", get(metrics)).with_state(Arc::downgrade(shared));
    let _entered = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(fail)?;
    runtime.spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn metrics(State(shared): State<Weak<Shared>>) -> Response {
    match shared.upgrade() {
        Some(shared) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.snapshot().metrics_text()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
