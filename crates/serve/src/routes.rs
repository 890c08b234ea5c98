//! The paths of the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::ApiError;
use crate::app::{App, Served};
use crate::embeddings::EmbeddingReply;
use crate::endpoint::Endpoint;
use crate::reply::Reply;
use crate::{access, collect, metrics, sse};

/// Bytes of a request.
const MAX_BODY: usize = 4 << 20;
/// Time in which a request must arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// The page to chat. It loads nothing and talks to this server alone.
const PAGE: &str = include_str!("page.html");
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// All paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(show_metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/embeddings", post(embeddings))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), access::check))
        .with_state(app)
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, text) = if app.failure().is_some() {
        (StatusCode::SERVICE_UNAVAILABLE, "failed")
    } else if app.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ok")
    };
    (status, json_of(&json!({"status": text}))).into_response()
}

async fn show_metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text()).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let data: Vec<Value> = app.models.iter().map(describe).collect();
    json_of(&json!({"object": "list", "data": data})).into_response()
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    Ok(json_of(&describe(app.model(&name)?)).into_response())
}

fn describe(served: &Served) -> Value {
    json!({
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "temper",
        "context_length": served.context(),
        "has_chat_template": served.tokenizer.chat_template().is_some(),
    })
}

fn json_of(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

async fn unknown_path() -> ApiError {
    let paths =
        "/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /health, /metrics";
    ApiError::status(StatusCode::NOT_FOUND, format!("no such path; the paths are {paths}"))
}

async fn wrong_method() -> ApiError {
    ApiError::status(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong method: completions and embeddings are POST, the rest is GET",
    )
}

async fn chat(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(app, Endpoint::Chat, &headers, body).await
}

async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(app, Endpoint::Completions, &headers, body).await
}

async fn answer(
    app: Arc<App>,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let start = Instant::now();
    let read = move |app: &App, body: &[u8]| app.read(endpoint, body);
    let (permit, (idx, request, grammar)) = admit(&app, headers, body, read).await?;
    let served = app.models.get(idx).ok_or_else(|| ApiError::server("the model stopped"))?;
    let reply = Reply::new(endpoint, served, &request, start);
    let events = served.submit(request.prompts, request.settings, request.seed, grammar.as_ref());
    if request.stream {
        return Ok(sse::answer(events, reply, permit));
    }
    let answer = collect::answer(events, reply).await;
    drop(permit);
    answer
}

async fn embeddings(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (permit, (idx, request)) = admit(&app, &headers, body, App::read_embeddings).await?;
    let served = app.models.get(idx).ok_or_else(|| ApiError::server("the model stopped"))?;
    let reply = EmbeddingReply {
        model: served.name.clone(),
        n_texts: request.texts.len(),
        n_tokens: request.texts.iter().map(Vec::len).sum(),
        is_base64: request.is_base64,
    };
    let answer = reply.answer(served.submit_embeddings(request.texts)).await;
    drop(permit);
    answer
}

/// Gives a request a place among those that are answered, and reads its body.
async fn admit<R: Send + 'static>(
    app: &Arc<App>,
    headers: &HeaderMap,
    body: Body,
    read: impl FnOnce(&App, &[u8]) -> Result<R, ApiError> + Send + 'static,
) -> Result<(OwnedSemaphorePermit, R), ApiError> {
    let permit = Arc::clone(&app.clients).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::busy(app.options.max_clients))?;
    let body = read_body(headers, body).await?;
    // Templates and tokenizers take a while for long texts.
    let reader = Arc::clone(app);
    let read = tokio::task::spawn_blocking(move || read(&reader, &body)).await;
    let request = read.map_err(|_| ApiError::server("the request could not be read"))??;
    Ok((permit, request))
}

/// The body of a request. Another type than JSON is refused, which a page of another site cannot send.
async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message =
            format!("the body must be JSON, with `Content-Type: application/json`: `{kind}`");
        return Err(ApiError::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let read = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, MAX_BODY)).await;
    let late = || {
        let message = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
        ApiError::status(StatusCode::REQUEST_TIMEOUT, message)
    };
    read.map_err(|_| late())?.map_err(|error| {
        if error.to_string().contains("length limit") {
            let message = format!("the body has more than {MAX_BODY} bytes");
            ApiError::status(StatusCode::PAYLOAD_TOO_LARGE, message)
        } else {
            ApiError::request(format!("the body could not be read: {error}"))
        }
    })
}
