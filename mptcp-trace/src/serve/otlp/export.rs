//! The task that sends batches of records, and metrics at an interval.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::Write as _,
    rc::Rc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Resource,
    answer::{Outcome, pause},
    complaints::{Complaints, Signal},
    metrics::metrics,
    queue::{BATCH_MAX, Queue, Sums},
    record::record,
    target::Target,
    tls::explained,
};
use crate::{model::Finding, observe::Observer, serve::exposition::Family, sink::one_line};

/// Maximum time that a record waits for a full batch.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Maximum duration of a request, from its connection to the end of the response.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest response body that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest response header, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum duration of the final flush; records not accepted in time are lost, and reported.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum backoff during the final flush.
const LAST_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Source of the metrics.
pub trait Measures: 'static {
    /// All metrics; none while the tracer does not respond.
    fn families(&self) -> impl Future<Output = Option<Vec<Family>>>;
}

/// State shared by the loop, the settings and the task.
#[derive(Clone, Debug)]
pub struct Exporter(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: RefCell<Queue>,
    target: RefCell<Option<Target>>,
    /// Wakes the task when a batch is full.
    enough: Notify,
    end: watch::Sender<bool>,
}

impl Exporter {
    /// Sends to `target`, if any.
    #[must_use]
    pub fn new(target: Option<Target>) -> Self {
        Self(Rc::new(Inner {
            queue: RefCell::default(),
            target: RefCell::new(target),
            enough: Notify::new(),
            end: watch::Sender::new(false),
        }))
    }

    /// Changes the target. Without one, queued records are dropped and counted.
    pub fn send_to(&self, target: Option<Target>) {
        if target.is_none() {
            self.0.queue.borrow_mut().switch_off();
        }
        *self.0.target.borrow_mut() = target;
    }

    /// Counts of all records by outcome.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.0.queue.borrow().sums()
    }

    /// Shuts down gracefully: `task`, which runs [`Self::run`], sends the queued records. Returns
    /// the counts since the start; those that are still queued were not accepted in time.
    pub async fn end(&self, mut task: tokio::task::JoinHandle<()>) -> Sums {
        self.0.end.send_replace(true);
        if tokio::time::timeout(FLUSH_TIME_MAX, &mut task)
            .await
            .is_err()
        {
            task.abort();
        }
        self.sums()
    }

    /// Sends until shutdown, then flushes.
    pub async fn run(
        self,
        resource: Resource,
        measures: impl Measures,
        since: SystemTime,
        metrics_every: Duration,
    ) {
        let now = Instant::now();
        let mut sender = Sender {
            exporter: self,
            resource,
            since,
            started: now,
            complaints: Complaints::default(),
            failures: 0,
            not_before: now,
            batch_at: now + BATCH_EVERY,
        };
        let mut end = sender.exporter.0.end.subscribe();
        let mut times = tokio::time::interval(metrics_every);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Requests alternate, so that a flood of findings does not delay metrics.
            tokio::select! {
                biased;
                _ended = end.wait_for(|ends| *ends) => break,
                _tick = times.tick() => if sender.not_before <= Instant::now() {
                    sender.metrics(&measures).await;
                },
                () = sender.due() => sender.batch().await,
            }
        }
        while sender.has_records() {
            sender.batch().await;
            let last = Instant::now() + LAST_PAUSE_MAX;
            tokio::time::sleep_until(sender.not_before.min(last)).await;
        }
        sender.metrics(&measures).await;
    }
}

impl Observer for Exporter {
    fn finding<'a>(&mut self, finding: &'a Finding, path_of: &dyn Fn(u64) -> Option<&'a str>) {
        if self.0.target.borrow().is_none() {
            return;
        }
        // What a program, or a peer, can cause as often as it likes.
        let is_query = match finding {
            Finding::Query(_) | Finding::Refusal(_) | Finding::Path(_) | Finding::Closed(_) => true,
            Finding::Connection(_) | Finding::Verdict(_) => false,
        };
        let mut queue = self.0.queue.borrow_mut();
        // Checked before formatting, so that dropping a flood of findings is cheap.
        if !queue.has_room(is_query) {
            return;
        }
        // In UTC, since readers may be in any time zone.
        let line = one_line(finding);
        let path = match finding {
            Finding::Query(event) => path_of(event.query.process.cgroup_id),
            Finding::Refusal(event) => path_of(event.refusal.process.cgroup_id),
            Finding::Connection(event) => event
                .connection
                .owner
                .as_ref()
                .and_then(|owner| path_of(owner.process.cgroup_id)),
            Finding::Verdict(event) => event
                .owner
                .as_ref()
                .and_then(|owner| path_of(owner.process.cgroup_id)),
            Finding::Path(event) => event
                .path
                .owner
                .as_ref()
                .and_then(|owner| path_of(owner.process.cgroup_id)),
            Finding::Closed(event) => event
                .closed
                .owner
                .as_ref()
                .and_then(|owner| path_of(owner.process.cgroup_id)),
        };
        let record = record(finding, &line, SystemTime::now(), path);
        queue.push(record.to_string(), is_query);
        if queue.len() >= BATCH_MAX {
            self.0.enough.notify_one();
        }
    }
}

/// State of the sending task.
struct Sender {
    exporter: Exporter,
    resource: Resource,
    since: SystemTime,
    /// Start time on the monotonic clock.
    started: Instant,
    /// What was last wrong with each signal.
    complaints: Complaints,
    /// Failures since the last success.
    failures: u32,
    /// No request before this time (backoff).
    not_before: Instant,
    /// When an incomplete batch is sent.
    batch_at: Instant,
}

impl Sender {
    /// Waits until a batch is due.
    async fn due(&self) {
        tokio::time::sleep_until(self.not_before).await;
        let inner = &self.exporter.0;
        if inner.queue.borrow().len() < BATCH_MAX {
            let _enough_or_time =
                tokio::time::timeout_at(self.batch_at, inner.enough.notified()).await;
        }
    }

    fn has_records(&self) -> bool {
        self.exporter.0.target.borrow().is_some() && !self.exporter.0.queue.borrow().is_empty()
    }

    /// Sends the oldest records, if any.
    async fn batch(&mut self) {
        self.batch_at = Instant::now() + BATCH_EVERY;
        let Some(target) = self.target().filter(|_| self.has_records()) else {
            return;
        };
        let body = {
            let mut queue = self.exporter.0.queue.borrow_mut();
            self.resource.logs_request(&queue.batch())
        };
        let outcome = post(&target, "/v1/logs", body).await;
        self.learn(&target, Signal::Logs, &outcome);
        let mut queue = self.exporter.0.queue.borrow_mut();
        match outcome {
            Outcome::Taken { rejected, .. } => queue.taken(rejected),
            Outcome::Never { .. } => queue.refused(),
            Outcome::RetryLater { .. } => queue.failed(),
        }
    }

    /// Sends the current metrics. A lost request does no harm, since counters are cumulative.
    async fn metrics(&mut self, measures: &impl Measures) {
        let Some(target) = self.target() else { return };
        let Some(families) = measures.families().await else {
            return;
        };
        let now = self.since + self.started.elapsed();
        let metrics = metrics(&families, self.since, now);
        let body = self.resource.metrics_request(&metrics);
        let outcome = post(&target, "/v1/metrics", body).await;
        self.learn(&target, Signal::Metrics, &outcome);
        match outcome {
            Outcome::Taken { .. } => {}
            Outcome::RetryLater { .. } | Outcome::Never { .. } => {
                self.exporter.0.queue.borrow_mut().failed_metrics();
            }
        }
    }

    /// Schedules the retry and prints a message.
    fn learn(&mut self, target: &Target, signal: Signal, outcome: &Outcome) {
        match outcome {
            Outcome::Taken { .. } | Outcome::Never { .. } => {
                self.failures = 0;
                self.not_before = Instant::now();
            }
            Outcome::RetryLater { after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let random = RandomState::new().build_hasher().finish();
                self.not_before = Instant::now() + pause(self.failures, *after, random);
            }
        }
        self.complaints.say(target, signal, outcome);
    }

    fn target(&self) -> Option<Target> {
        self.exporter.0.target.borrow().clone()
    }
}

/// Sends one request over its own connection: a kept connection may be closed by the peer, and then
/// it is unknown whether the request was accepted.
pub(super) async fn post(target: &Target, path: &str, body: String) -> Outcome {
    let tried = tokio::time::timeout(REQUEST_TIME_MAX, try_post(target, path, body)).await;
    match tried {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => Outcome::RetryLater {
            after: None,
            why: explained(&why),
        },
        Err(_elapsed) => Outcome::RetryLater {
            after: None,
            why: format!("no response within {} s", REQUEST_TIME_MAX.as_secs()),
        },
    }
}

async fn try_post(target: &Target, path: &str, body: String) -> anyhow::Result<Outcome> {
    let body = match target.gzip {
        true => compressed(&body)?,
        false => body.into_bytes(),
    };
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("{}{path}", target.prefix)
        .parse()
        .context("cannot write the request")?;
    let headers = request.headers_mut();
    *headers = target.headers.clone();
    headers.insert(HOST, HeaderValue::from_str(&target.authority)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if target.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "mptcp-trace/",
            env!("CARGO_PKG_VERSION")
        )));
    let stream = TcpStream::connect((&*target.host, target.port))
        .await
        .context("cannot connect")?;
    // One type for both, since each type of a stream makes a copy of the HTTP client.
    let stream: Box<dyn Stream> = match &target.tls {
        None => Box::new(stream),
        Some(tls) => {
            let encrypted = tls.connect(&target.host, stream).await;
            Box::new(encrypted.context("cannot encrypt")?)
        }
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    // Aborted when this function returns.
    let mut driver = JoinSet::new();
    driver.spawn_local(connection);
    let response = sender.send_request(request).await.context("no response")?;
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).cloned();
    let after = after.as_ref().and_then(|it| it.to_str().ok());
    // The status decides; the body may be too long, or cut off.
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Ok(Outcome::of(status, after, &answer))
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Compresses a body as fast as possible: that leaves about a fifteenth of it.
fn compressed(body: &str) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body.as_bytes())
        .and_then(|()| encoder.finish())
        .context("cannot compress the request")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use flate2::read::GzDecoder;

    use super::*;
    use crate::{
        model::{
            PathKind,
            fixture::{Row, a_path},
        },
        serve::otlp::{queue::RECORDS_MAX, tls::Tls},
    };

    /// No metrics.
    struct Nothing;

    impl Measures for Nothing {
        async fn families(&self) -> Option<Vec<Family>> {
            None
        }
    }

    fn no_tls() -> Result<Tls, String> {
        unreachable!("the URL begins with http:")
    }

    /// Accepts one request per answer; returns the requests as received.
    fn collector(
        answers: Vec<&'static str>,
    ) -> (String, std::thread::JoinHandle<Vec<(String, usize)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/p", listener.local_addr().unwrap());
        let requests = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
                let (head, length, at) = loop {
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0);
                    said.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8_lossy(&said).into_owned();
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        let length = head.to_lowercase();
                        let length = length.split_once("content-length: ").unwrap().1;
                        let length = length.lines().next().unwrap().parse::<usize>().unwrap();
                        break (head.to_owned(), length, head.len() + 4);
                    }
                };
                while said.len() < at + length {
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0);
                    said.extend_from_slice(&buffer[..count]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                let body = GzDecoder::new(&said[at..]);
                let body: serde_json::Value = serde_json::from_reader(body).unwrap();
                let records = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
                requests.push((head, records.as_array().unwrap().len()));
            }
            requests
        });
        (url, requests)
    }

    #[test]
    fn what_fails_for_a_while_is_sent_again_and_what_is_refused_is_not() {
        let (url, requests) = collector(vec![
            "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 48\r\n\r\n{\"partialSuccess\": {\"rejectedLogRecords\": \"2\"}}  ",
            "HTTP/1.1 307 Elsewhere\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
        ]);
        let target = Target::parse(&url, [("x-key", "v")], no_tls).unwrap();
        let mut exporter = Exporter::new(Some(target));
        let find = |exporter: &mut Exporter, count| {
            for _ in 0..count {
                exporter.finding(&Row::default().connection(), &|_| None);
            }
        };
        find(&mut exporter, 600);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let resource = Resource {
            host: "h".into(),
            kernel: "k".into(),
            version: "v".into(),
        };
        let at_end = tokio::task::LocalSet::new().block_on(&runtime, async {
            let hour = Duration::from_secs(3600);
            let runs = exporter
                .clone()
                .run(resource, Nothing, SystemTime::now(), hour);
            let task = tokio::task::spawn_local(runs);
            // Independent of the speed of the machine: waits for the first failure.
            let begun = Instant::now();
            while exporter.sums().failed_logs == 0 && begun.elapsed() < Duration::from_secs(30) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(exporter.sums().failed_logs, 1);
            exporter.end(task).await
        });
        assert_eq!(at_end.queued, 0);
        let requests = requests.join().unwrap();
        let counts: Vec<usize> = requests.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [512, 512, 88]);
        for (head, _) in &requests {
            assert!(head.starts_with("POST /p/v1/logs HTTP/1.1\r\n"), "{head}");
            let head = head.to_lowercase();
            for header in ["x-key: v", "content-encoding: gzip"] {
                assert!(head.contains(&format!("\r\n{header}\r\n")), "{head}");
            }
        }
        let want = Sums {
            exported: 510,
            rejected: 2,
            refused: 88,
            failed_logs: 2,
            ..Sums::default()
        };
        assert_eq!(exporter.sums(), want);
        exporter.send_to(None);
        find(&mut exporter, 3);
        assert_eq!(exporter.sums(), want);
    }

    #[test]
    fn a_flood_of_paths_leaves_room_for_fallbacks() {
        let target = Target::parse("http://127.0.0.1:1/p", [], no_tls);
        let mut exporter = Exporter::new(Some(target.unwrap()));
        let row = Row::default();
        let [join, end] = [row.path(a_path(PathKind::Failed)), row.closed(|_| {})];
        for finding in [join, end].iter().cycle().take(RECORDS_MAX) {
            exporter.finding(finding, &|_| None);
        }
        let dropped = exporter.sums().full;
        assert!(dropped > 0);
        for _ in 0..1000 {
            exporter.finding(&row.connection(), &|_| None);
        }
        assert_eq!(exporter.sums().full, dropped, "all fallbacks have room");
    }
}
