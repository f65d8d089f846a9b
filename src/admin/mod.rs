//! HTTP on the admin address: metrics, health, status, the page for people, and the verbs that steer queue and dead letters.
//!
//! It owns no state of its own but the last numbers it saw; it reads what the other rooms share and asks the journal's owner.
//! Everything is bounded: connections, the time of each, request heads; request bodies are not read; journal contents leave in pages.
//! Verbs and whatever shows journal contents answer loopback peers only and want the header `X-Tideover: 1`, which no page of
//! another origin can send: see [`route`].

mod ask;
mod body;
pub(crate) mod in_order;
pub(crate) mod letters;
mod page;
mod publish;
pub(crate) mod queue;
pub(crate) mod record;
mod respond;
pub(crate) mod route;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod view;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use publish::{Load, publish};
pub use view::{Phase, Readiness, UpstreamView, View};

/// Connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// A request's head has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// No connection lives longer than this, however slowly its peer reads.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
/// After a failed accept (no descriptors left): the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped. To be run on the control thread's runtime.
pub async fn serve(listener: TcpListener, view: Arc<View>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "admin: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let view = Arc::clone(&view);
        tokio::spawn(async move {
            // How a connection ends is its peer's business.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, converse(stream, peer, view)).await;
            drop(slot);
        });
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, view: Arc<View>) {
    let service = service_fn(|request| {
        let view = Arc::clone(&view);
        async move { Ok::<_, Infallible>(respond::respond(view, peer.ip(), &request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin: a connection ended early");
    }
}
