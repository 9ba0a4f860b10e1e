//! A small HTTP server for metrics and health, with a limit on every resource that a client can
//! use.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
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
use tokio::task::JoinHandle;

use super::{
    exposition::Flavour,
    listen::{Listener, Stream},
};

/// Most clients at a time; when full, the one idle for longest is disconnected.
pub const CLIENTS_MAX: usize = 64;
/// Minimum interval between messages about rejected clients.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Maximum time to receive a request header.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum duration of a connection.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(300);
/// Maximum size of a request header, bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed accept (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Source of the responses.
pub trait Answers: Clone + 'static {
    /// The metrics; none while the tracer does not respond.
    fn metrics(&self, flavour: Flavour) -> impl Future<Output = Option<String>>;
    /// True if the tracer responds.
    fn is_alive(&self) -> impl Future<Output = bool>;
}

/// Serves until the future is dropped.
pub async fn serve(listener: Listener, answers: impl Answers) -> Infallible {
    let mut clients = Clients::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                log::warn!("cannot accept a client: {why}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !clients.has_room() {
            clients.complain(&peer);
            continue;
        }
        let doing = Rc::new(Doing::default());
        let task = tokio::task::spawn_local(client(stream, peer, answers.clone(), doing.clone()));
        clients.known.push((task, doing));
    }
}

/// Activity of a client.
#[derive(Debug)]
struct Doing {
    /// Requests in progress.
    answers: Cell<usize>,
    /// Time of the connection, or of its last response.
    since: Cell<Instant>,
}

impl Default for Doing {
    fn default() -> Self {
        Self {
            answers: Cell::new(0),
            since: Cell::new(Instant::now()),
        }
    }
}

/// Connected clients.
#[derive(Debug, Default)]
struct Clients {
    known: Vec<(JoinHandle<()>, Rc<Doing>)>,
    /// Rejected clients since the last message.
    sent_away: u64,
    complained: Option<Instant>,
}

impl Clients {
    /// Makes room for one more client, by disconnecting the one idle for longest if necessary;
    /// false if all are busy.
    fn has_room(&mut self) -> bool {
        self.known.retain(|(task, _)| !task.is_finished());
        if self.known.len() < CLIENTS_MAX {
            return true;
        }
        let idle = self.known.iter().enumerate();
        let idle = idle.filter(|(_, (_, doing))| doing.answers.get() == 0);
        let longest = idle.min_by_key(|(_, (_, doing))| doing.since.get());
        let Some(index) = longest.map(|(index, _)| index) else {
            return false;
        };
        let (task, _) = self.known.swap_remove(index);
        task.abort();
        true
    }

    /// Reports rejected clients, at a limited rate.
    fn complain(&mut self, peer: &str) {
        self.sent_away += 1;
        if self
            .complained
            .is_some_and(|at| at.elapsed() < COMPLAIN_EVERY)
        {
            return;
        }
        log::warn!(
            "{} clients were rejected, the last one {peer}: {CLIENTS_MAX} others are being served",
            self.sent_away
        );
        self.complained = Some(Instant::now());
        self.sent_away = 0;
    }
}

async fn client(stream: Box<dyn Stream>, peer: String, answers: impl Answers, doing: Rc<Doing>) {
    let service = service_fn(move |request| {
        let (answers, doing) = (answers.clone(), doing.clone());
        async move {
            doing.answers.set(doing.answers.get() + 1);
            let answer = answer(&request, &answers).await;
            doing.answers.set(doing.answers.get() - 1);
            doing.since.set(Instant::now());
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CLIENT_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => log::debug!("{peer}: {why}"),
        Err(_elapsed) => log::debug!("{peer} exceeded the time limit"),
    }
}

async fn answer(request: &Request<Incoming>, answers: &impl Answers) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are supported\n",
        );
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
                    "the tracer does not respond\n",
                ),
            }
        }
        "/healthz" | "/readyz" => match answers.is_alive().await {
            true => plain(StatusCode::OK, "ok\n"),
            false => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the tracer does not respond\n",
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
            "available: /metrics, /healthz and /readyz\n",
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpStream, UnixStream},
        task::LocalSet,
    };

    use super::*;
    use crate::serve::listen::Address;

    #[derive(Clone)]
    struct Alive;

    impl Answers for Alive {
        async fn metrics(&self, _flavour: Flavour) -> Option<String> {
            Some(String::new())
        }

        async fn is_alive(&self) -> bool {
            true
        }
    }

    async fn ask(stream: &mut dyn Stream) -> String {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn connect(address: &Address) -> Box<dyn Stream> {
        match address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    /// Connects more clients than are served at a time.
    async fn crowd(address: Address) {
        let listener = Listener::bind(&address).await.unwrap();
        let address = listener.address().unwrap();
        let served = tokio::task::spawn_local(serve(listener, Alive));
        let mut idle = Vec::new();
        for number in 0..CLIENTS_MAX + 10 {
            let mut stream = connect(&address).await;
            // Half of them got a response and stay connected, the others never send a request.
            if number % 2 == 0 {
                assert_eq!(ask(&mut *stream).await, "HTTP/1.1 200 OK");
            }
            idle.push(stream);
        }
        let mut probe = connect(&address).await;
        assert_eq!(ask(&mut *probe).await, "HTTP/1.1 200 OK");
        served.abort();
    }

    #[test]
    fn idle_clients_do_not_starve_others() {
        let folder = tempfile::tempdir().unwrap();
        for address in [
            Address::Tcp("127.0.0.1:0".parse().unwrap()),
            Address::Unix(folder.path().join("s")),
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            LocalSet::new().block_on(&runtime, crowd(address));
        }
    }
}
