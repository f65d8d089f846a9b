//! Asks a running tideover, over HTTP on its admin address.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two pieces of an answer; the journal's disk may be slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerbError {
    #[error("no tideover answers on {address}: {why} (--admin or TIDEOVER_ADMIN says where else to look)")]
    Absent { address: SocketAddr, why: String },
    #[error("{address}: {why}")]
    Broken { address: SocketAddr, why: String },
    /// In the words of whoever was asked.
    #[error("{0}")]
    Refused(String),
    /// What was asked does not say enough.
    #[error("{0}")]
    Usage(String),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Asks and takes the answer apart.
    pub(super) fn json(self, method: Method, path: &str) -> Result<Value, VerbError> {
        let mut answer = Vec::new();
        self.fetch(method, path, &mut answer)?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(&error))
    }

    /// Asks and writes the answer to `sink` as it comes.
    pub(super) fn fetch(self, method: Method, path: &str, sink: &mut dyn Write) -> Result<(), VerbError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.converse(method, path, sink))
    }

    /// [`Client::fetch`] on a runtime that is there.
    pub(super) async fn converse(self, method: Method, path: &str, sink: &mut dyn Write) -> Result<(), VerbError> {
        let absent = |why: String| VerbError::Absent {
            address: self.address,
            why,
        };
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
            Ok(connected) => connected.map_err(|error| absent(error.to_string()))?,
            Err(_) => return Err(absent("no answer in time".to_owned())),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Its errors come back through the sender and the body.
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header("X-Tideover", "1")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(&error))?;
        let response = match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
            Ok(response) => response.map_err(|error| self.broken(&error))?,
            Err(_) => return Err(self.broken(&"no answer in time")),
        };
        let code = response.status();
        let mut body = response.into_body();
        let mut failure = Vec::new();
        loop {
            let frame = timeout(ANSWER_TIMEOUT, body.frame()).await;
            let frame = match frame {
                Ok(Some(frame)) => frame.map_err(|_| self.broken(&"the answer was cut off"))?,
                Ok(None) => break,
                Err(_) => return Err(self.broken(&"the answer stopped")),
            };
            if let Ok(data) = frame.into_data() {
                if code.is_success() {
                    sink.write_all(&data)?;
                } else {
                    failure.extend_from_slice(&data);
                }
            }
        }
        driver.abort();
        if code.is_success() {
            Ok(())
        } else {
            Err(refused(code, &failure))
        }
    }

    fn broken(self, why: &dyn std::fmt::Display) -> VerbError {
        VerbError::Broken {
            address: self.address,
            why: why.to_string(),
        }
    }
}

fn refused(code: StatusCode, body: &[u8]) -> VerbError {
    let said = serde_json::from_slice::<Value>(body).ok();
    let why = said.as_ref().and_then(|said| said.get("error")?.as_str());
    VerbError::Refused(why.map_or_else(|| format!("answered {code}"), str::to_owned))
}
