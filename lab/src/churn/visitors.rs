//! HTTP clients of the metrics page: one fetches it every second, the others are hostile.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::actions::Churn;
use crate::{metrics::Page, serving::get};

/// Interval of the fetches.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Maximum time without a successful fetch.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// Deliberately slow clients, and how long each stays.
const SLOW: usize = 8;
const SLOW_BYTES: usize = 8;
/// Simultaneous clients: more than the tracer accepts.
const CROWD: usize = 100;
/// Interval of the hostile visits.
const VISIT_EVERY: Duration = Duration::from_secs(3);
/// Timeout for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than the longest request that the tracer accepts.
const LARGE_BYTES: usize = 64 * 1024;

/// Fetches the page once a second. Counters must not decrease.
pub(super) fn scrapes(churn: &Churn, address: &str, first: Page) {
    let (mut last, mut read_at) = (first, Instant::now());
    while !churn.rest(SCRAPE_EVERY) {
        // The tracer may turn this client away when there are too many: not a failure.
        match get(address, "/metrics").and_then(|text| Page::parse(&text)) {
            Ok(page) => {
                let went_back = page.went_back(&last);
                let mut actions = churn.actions();
                actions.scrapes += 1;
                actions.went_back.extend(went_back);
                (last, read_at) = (page, Instant::now());
            }
            Err(why) if read_at.elapsed() > UNREAD_MAX => {
                churn.note::<()>("scrape", Err(why));
                read_at = Instant::now();
            }
            Err(_sent_away) => churn.actions().sent_away += 1,
        }
    }
}

/// Clients that send one byte a second and never finish.
pub(super) fn slow(churn: &Churn, address: &str) {
    const WORDS: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: ";
    while !churn.is_over() {
        let mut clients: Vec<TcpStream> = (0..SLOW)
            .filter_map(|_| TcpStream::connect(address).ok())
            .collect();
        churn.actions().visitors += clients.len() as u64;
        for letter in WORDS.iter().take(SLOW_BYTES) {
            for client in &mut clients {
                // The tracer may have closed the connection already.
                let _gone = client.write_all(&[*letter]);
            }
            if churn.rest(Duration::from_secs(1)) {
                return;
            }
        }
    }
}

/// Clients that come in large numbers, send garbage, or disconnect without a request.
pub(super) fn crowds(churn: &Churn, address: &str) {
    let mut round = 0_usize;
    while !churn.rest(VISIT_EVERY) {
        let (visitors, sent_away) = match round % 4 {
            0 => crowd(address),
            1 => nonsense(address),
            2 => half_open(address, true),
            _ => half_open(address, false),
        };
        round += 1;
        let mut actions = churn.actions();
        actions.visitors += visitors;
        actions.sent_away += sent_away;
    }
}

/// Number of clients, and number of those without an answer.
type Visits = (u64, u64);

/// All clients connect before the first one sends its request.
fn crowd(address: &str) -> Visits {
    let clients: Vec<TcpStream> = (0..CROWD)
        .filter_map(|_| TcpStream::connect(address).ok())
        .collect();
    let visitors = clients.len() as u64;
    let sent_away = clients
        .into_iter()
        .filter_map(|client| {
            let answer = talk(client, b"GET /metrics HTTP/1.0\r\n\r\n");
            (!answer.starts_with(b"HTTP/1.")).then_some(())
        })
        .count();
    (visitors, sent_away as u64)
}

/// Sends a request; returns the answer, empty if there is none.
fn talk(mut client: TcpStream, words: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let _may_hang_up = client.set_read_timeout(Some(PATIENCE));
    let _may_hang_up = client.write_all(words);
    let _may_hang_up = client.read_to_end(&mut answer);
    answer
}

fn nonsense(address: &str) -> Visits {
    let large = [b"GET /".as_slice(), &vec![b'x'; LARGE_BYTES]].concat();
    let words: [&[u8]; 5] = [
        b"\x00\xff\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\nabc",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        &large,
    ];
    let mut visitors = 0;
    for words in words {
        if let Ok(client) = TcpStream::connect(address) {
            visitors += 1;
            let _answer = talk(client, words);
        }
    }
    (visitors, 0)
}

/// Disconnects in the middle of a request, with FIN or with RST.
fn half_open(address: &str, in_order: bool) -> Visits {
    let mut visitors = 0;
    for _ in 0..CROWD / 4 {
        let Ok(mut client) = TcpStream::connect(address) else {
            continue;
        };
        visitors += 1;
        let _may_hang_up = client.write_all(b"GET /metrics HTTP/1.1\r\nHo");
        if !in_order {
            // Closing sends a reset.
            let _closed_in_order = SockRef::from(&client).set_linger(Some(Duration::ZERO));
        }
    }
    (visitors, 0)
}
