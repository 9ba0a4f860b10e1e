//! A small HTTP server for metrics and health, with a limit on every resource that a client can
//! use.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::mpsc, task::JoinHandle};

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
    /// A capture of what was recorded, in parts, according to the query of the request.
    fn dump(&self, query: &str) -> impl Future<Output = Result<Parts, NoDump>>;
}

/// A part of a response.
pub type Part = Bytes;
/// The parts of a response that is made while it is sent.
pub type Parts = mpsc::Receiver<Part>;

/// Why there is no dump, in a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoDump {
    /// The request is wrong.
    Bad(String),
    /// Nothing is recorded, or nothing of that time.
    Nothing(String),
    /// It cannot be made now.
    Busy(String),
}

/// The body of a response.
enum Page {
    Whole(Full<Bytes>),
    Parts(Parts),
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Parts(parts) => {
                let part = parts.poll_recv(context);
                part.map(|it| it.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    // Known for a page, so that it has a Content-Length.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Parts(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Parts(_) => false,
        }
    }
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
        let is_local = matches!(listener, Listener::Unix(..));
        let (answers, its) = (answers.clone(), doing.clone());
        let task = tokio::task::spawn_local(client(stream, peer, is_local, answers, its));
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

async fn client(
    stream: Box<dyn Stream>,
    peer: String,
    is_local: bool,
    answers: impl Answers,
    doing: Rc<Doing>,
) {
    let service = service_fn(move |request| {
        let (answers, doing) = (answers.clone(), doing.clone());
        async move {
            doing.answers.set(doing.answers.get() + 1);
            let answer = answer(&request, is_local, &answers).await;
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

/// `is_local`: the client was allowed to open our Unix socket.
async fn answer(
    request: &Request<Incoming>,
    is_local: bool,
    answers: &impl Answers,
) -> Response<Page> {
    if request.uri().path() == "/dump" {
        return match (is_local, request.method()) {
            // A capture names processes and addresses.
            (false, _) => plain(
                StatusCode::FORBIDDEN,
                "dumps are only served on a Unix socket: --listen unix:PATH\n",
            ),
            (true, &Method::GET | &Method::POST) => {
                dumped(answers.dump(request.uri().query().unwrap_or("")).await)
            }
            (true, _) => not_allowed("GET, POST", "/dump is for GET and POST\n"),
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD", "only GET and HEAD are supported\n");
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
            "available: /metrics, /healthz and /readyz; on a Unix socket also /dump\n",
        ),
    }
}

fn dumped(dump: Result<Parts, NoDump>) -> Response<Page> {
    let (status, why) = match dump {
        Ok(parts) => {
            let mut response = Response::new(Page::Parts(parts));
            let of_bytes = hyper::header::HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, of_bytes);
            return response;
        }
        Err(NoDump::Bad(why)) => (StatusCode::BAD_REQUEST, why),
        Err(NoDump::Nothing(why)) => (StatusCode::NOT_FOUND, why),
        Err(NoDump::Busy(why)) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    typed(status, "text/plain; charset=utf-8", why + "\n")
}

fn not_allowed(allowed: &'static str, text: &'static str) -> Response<Page> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
    let allowed = hyper::header::HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Page> {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Page> {
    let mut response = Response::new(Page::Whole(Full::new(Bytes::from(body))));
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

        async fn dump(&self, query: &str) -> Result<Parts, NoDump> {
            let (to, parts) = mpsc::channel(2);
            to.send(query.to_owned().into()).await.unwrap();
            to.send("end".into()).await.unwrap();
            Ok(parts)
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

    /// The whole response to a request.
    async fn response(address: &Address, request: &str) -> String {
        let mut stream = connect(address).await;
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn a_dump_is_only_served_on_a_socket_that_has_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for (address, status) in [
            (Address::Tcp("127.0.0.1:0".parse().unwrap()), "403"),
            (Address::Unix(folder.path().join("s")), "200"),
        ] {
            LocalSet::new().block_on(&runtime, async {
                let listener = Listener::bind(&address).await.unwrap();
                let address = listener.address().unwrap();
                let served = tokio::task::spawn_local(serve(listener, Alive));
                for method in ["GET", "POST"] {
                    let said = response(&address, &format!("{method} /dump?since=10m")).await;
                    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
                    let is_whole = said.contains("since=10m") && said.contains("end");
                    assert_eq!(is_whole, status == "200", "{said}");
                }
                let said = response(&address, "POST /metrics").await;
                assert!(said.starts_with("HTTP/1.1 405 "), "{said}");
                served.abort();
            });
        }
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
