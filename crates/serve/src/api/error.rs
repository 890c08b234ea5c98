//! Errors of a request, in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refused or failed request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// The field at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None }
    }

    /// A request that cannot be answered, with the field at fault.
    pub(crate) fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::request(message) }
    }

    /// A request that cannot be answered.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field that would change the answer, and that the server does not know.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }

    /// A value that would change the answer, and that the server cannot follow.
    pub(crate) fn refused(param: &str, value: &Value) -> Self {
        let shown: String = value.to_string().chars().take(60).collect();
        Self::unsupported(param, format!("`{param}` is not supported: `{shown}`"))
    }

    /// A prompt that leaves no room for an answer.
    pub(crate) fn context(param: &str, n_prompt: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {n_prompt} tokens, and the model's context length is {context}: no token can follow"
        );
        Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
    }

    /// A text whose bytes are more than those of any tokens of the model's context.
    pub(crate) fn bytes(param: &str, n_bytes: usize, context: usize) -> Self {
        let message = format!(
            "the text has {n_bytes} bytes, more than the model's context length of {context} tokens can hold"
        );
        Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
    }

    /// A text to embed that is longer than the model's context.
    pub(crate) fn context_of_text(param: &str, n_text: usize, context: usize) -> Self {
        let message =
            format!("a text has {n_text} tokens, and the model's context length is {context}");
        Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
    }

    /// A model that is not served.
    pub(crate) fn unknown_model(name: &str, known: &str) -> Self {
        let message = format!("no model `{name}`; the models are {known}");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model".to_owned()), code: Some("model_not_found"), ..error }
    }

    /// A missing or wrong key.
    pub(crate) fn key() -> Self {
        let message = "a key is needed: send it as `Authorization: Bearer KEY`";
        let error = Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Self { code: Some("invalid_api_key"), ..error }
    }

    /// A request for another host's name, as a page of another site can send it.
    pub(crate) fn host() -> Self {
        let message = "the server answers requests to localhost and to addresses only";
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// A request with another status.
    pub(crate) fn status(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    /// Too many requests at once.
    pub(crate) fn busy(max_clients: usize) -> Self {
        let message = format!("{max_clients} requests are being answered; try again later");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), ..error }
    }

    /// A failure of the server.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The object that answers have.
    pub(crate) fn json(&self) -> Value {
        let Self { kind, message, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = (header::CONTENT_TYPE, "application/json");
        let mut response = (self.status, [json], self.json().to_string()).into_response();
        let retry = (self.status == StatusCode::TOO_MANY_REQUESTS)
            .then_some((header::RETRY_AFTER, HeaderValue::from_static("1")));
        let bearer = (self.status == StatusCode::UNAUTHORIZED)
            .then_some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        response.headers_mut().extend(retry.into_iter().chain(bearer));
        response
    }
}
