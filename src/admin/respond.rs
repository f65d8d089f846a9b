//! From a request to its response.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::ask::AskError;
use super::body::ResponseBody;
use super::queue::Form;
use super::record::{self, Detail};
use super::route::{Endpoint, Refused, Verb, route};
use super::view::{UpstreamView, View};
use super::{letters, page, publish, queue, route, status};
use crate::replay::{Controls, Pause};

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const BYTES: &str = "application/octet-stream";

/// Answers; the request's body is not read.
pub(super) async fn respond<B>(view: Arc<View>, peer: IpAddr, request: &Request<B>) -> Response<ResponseBody> {
    let uri = request.uri();
    match route(request.method(), uri.path(), uri.query(), request.headers(), peer) {
        Ok(Endpoint::Page) => {
            let page = page::page(&status::status(&view).await);
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            with(text(StatusCode::OK, HTML, page), CONTENT_SECURITY_POLICY, policy)
        }
        Ok(Endpoint::Metrics) => text(StatusCode::OK, METRICS, publish::metrics(&view).await),
        Ok(Endpoint::Livez) => livez(&view),
        Ok(Endpoint::Readyz) => match view.not_ready() {
            None => text(StatusCode::OK, TEXT, format!("ok\n{}", view.worries())),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        Ok(Endpoint::Status) => json(StatusCode::OK, &status::status(&view).await),
        Ok(Endpoint::Verb { upstream, verb }) => match view.find(upstream) {
            Some(found) => do_verb(&view, found, verb).await,
            None => says(StatusCode::NOT_FOUND, "no upstream has this name"),
        },
        Err(refused) => refuse(refused),
    }
}

fn livez(view: &View) -> Response<ResponseBody> {
    let stuck = view.stuck_workers(Instant::now());
    if stuck.is_empty() {
        return text(StatusCode::OK, TEXT, "ok\n");
    }
    let why = format!("workers that do not answer: {stuck:?}\n");
    text(StatusCode::SERVICE_UNAVAILABLE, TEXT, why)
}

fn refuse(refused: Refused) -> Response<ResponseBody> {
    match refused {
        Refused::NotFound => says(StatusCode::NOT_FOUND, "there is nothing here"),
        Refused::Forbidden(why) => says(StatusCode::FORBIDDEN, why),
        Refused::BadQuery(why) => says(StatusCode::BAD_REQUEST, why),
        Refused::Method { allow } => {
            let response = says(StatusCode::METHOD_NOT_ALLOWED, "this method does nothing here");
            with(response, ALLOW, HeaderValue::from_static(allow))
        }
    }
}

async fn do_verb(view: &Arc<View>, upstream: &UpstreamView, verb: Verb) -> Response<ResponseBody> {
    let outcome = match verb {
        Verb::QueueStatus => {
            let status = status::upstream_status(upstream).await;
            let mut queue = json!(status.queue);
            queue["identities_waiting"] = json!(status.identities_waiting);
            Ok(Some(queue))
        }
        Verb::Peek { records_max } => return stream(view, upstream, Form::Lines { records_max }),
        Verb::Export => return stream(view, upstream, Form::Commands),
        Verb::Pause => {
            let kept = wish(upstream, |controls| controls.set_pause(Pause::Paused)).await;
            kept.map(|()| Some(json!({"paused": true})))
        }
        Verb::Resume => {
            let kept = wish(upstream, |controls| controls.set_pause(Pause::Running)).await;
            kept.map(|()| Some(json!({"paused": false})))
        }
        Verb::Rate(rate) => {
            let kept = wish(upstream, move |controls| controls.set_rate(rate)).await;
            kept.map(|()| Some(json!({"rate": route::rate_text(rate)})))
        }
        Verb::DropBacklog => queue::drop_backlog(upstream).await.map(Some),
        Verb::Letters => {
            let (pages, body) = ResponseBody::pages();
            tokio::spawn(letters::pump(Arc::clone(view), upstream.name().to_owned(), pages));
            return response(StatusCode::OK, LINES, body);
        }
        Verb::Letter { seq } => {
            let found = letters::find(&upstream.owner, seq).await;
            found.map(|found| found.map(|letter| json!(record::letter(&letter, Detail::Whole))))
        }
        Verb::Retry(which) => letters::retry(upstream, which).await,
        Verb::DropLetters(which) => letters::drop_letters(upstream, which).await,
    };
    match outcome {
        Ok(Some(value)) => json(StatusCode::OK, &value),
        Ok(None) => says(StatusCode::NOT_FOUND, "no dead letter has this number"),
        Err(error) => {
            let code = match error {
                AskError::Unsent(_) | AskError::Ended => StatusCode::SERVICE_UNAVAILABLE,
                AskError::Timeout => StatusCode::GATEWAY_TIMEOUT,
                AskError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            says(code, &error.to_string())
        }
    }
}

/// Off this thread, which also looks after the upstream's health: the file is synced.
async fn wish(
    upstream: &UpstreamView,
    change: impl FnOnce(&Controls) -> io::Result<()> + Send + 'static,
) -> Result<(), AskError> {
    let controls = Arc::clone(&upstream.controls);
    let kept = tokio::task::spawn_blocking(move || change(&controls)).await;
    kept.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| {
            AskError::Failed(format!(
                "it is done, but the data directory could not be written, so a restart forgets it: {error}"
            ))
        })
}

fn stream(view: &Arc<View>, upstream: &UpstreamView, form: Form) -> Response<ResponseBody> {
    let (pages, body) = ResponseBody::pages();
    tokio::spawn(queue::pump(Arc::clone(view), upstream.name().to_owned(), form, pages));
    let content = match form {
        Form::Lines { .. } => LINES,
        Form::Commands => BYTES,
    };
    response(StatusCode::OK, content, body)
}

fn says(code: StatusCode, why: &str) -> Response<ResponseBody> {
    json(code, &json!({"error": why}))
}

fn json(code: StatusCode, value: &impl Serialize) -> Response<ResponseBody> {
    text(code, JSON, record::line(value))
}

fn text(code: StatusCode, content: &'static str, text: impl Into<bytes::Bytes>) -> Response<ResponseBody> {
    response(code, content, ResponseBody::text(text))
}

fn with(mut response: Response<ResponseBody>, name: HeaderName, value: HeaderValue) -> Response<ResponseBody> {
    response.headers_mut().insert(name, value);
    response
}

fn response(code: StatusCode, content: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
