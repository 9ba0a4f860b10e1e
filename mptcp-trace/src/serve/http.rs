//! Who may ask: a small HTTP server for metrics and health, with a limit on everything that a client can take.

use std::{
    cell::Cell, convert::Infallible, future::Future, net::SocketAddr, rc::Rc, time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::exposition::Flavour;

/// Clients at a time; beyond that a connection is closed at once.
pub const CLIENTS_MAX: usize = 64;
/// How long a client may take to say what it wants.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client may stay.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(300);
/// How much it may say for that, bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// How long nobody is accepted after that failed (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers.
pub trait Answers: Clone + 'static {
    /// The page of metrics; none while the tracer does not answer.
    fn metrics(&self, flavour: Flavour) -> impl Future<Output = Option<String>>;
    /// True if the tracer answers.
    fn is_alive(&self) -> impl Future<Output = bool>;
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, answers: impl Answers) -> Infallible {
    let clients = Rc::new(Cell::new(0_usize));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                log::warn!("cannot accept a client: {why}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if clients.get() >= CLIENTS_MAX {
            log::warn!("{peer} is sent away: there are {CLIENTS_MAX} clients already");
            continue;
        }
        clients.set(clients.get() + 1);
        let (answers, clients) = (answers.clone(), Rc::clone(&clients));
        tokio::task::spawn_local(async move {
            client(stream, peer, answers).await;
            clients.set(clients.get() - 1);
        });
    }
}

async fn client(stream: tokio::net::TcpStream, peer: SocketAddr, answers: impl Answers) {
    let service = service_fn(move |request| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answer(&request, &answers).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CLIENT_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => log::debug!("{peer}: {why}"),
        Err(_elapsed) => log::debug!("{peer} has stayed long enough"),
    }
}

async fn answer(request: &Request<Incoming>, answers: &impl Answers) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT);
            let accept = accept.and_then(|it| it.to_str().ok()).unwrap_or("");
            let flavour = Flavour::accepted(accept);
            match answers.metrics(flavour).await {
                Some(page) => typed(StatusCode::OK, flavour.content_type(), page),
                None => plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the tracer does not answer\n",
                ),
            }
        }
        "/healthz" | "/readyz" => match answers.is_alive().await {
            true => plain(StatusCode::OK, "ok\n"),
            false => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the tracer does not answer\n",
            ),
        },
        "/" => typed(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<!doctype html><html lang=en><title>mptcp-trace</title><h1>mptcp-trace</h1>\
             <ul><li><a href=/metrics>metrics</a><li><a href=/healthz>healthz</a>\
             <li><a href=/readyz>readyz</a></ul>\n"
                .to_owned(),
        ),
        _elsewhere => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}
