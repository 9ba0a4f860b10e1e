//! Suppresses repeated answers: of identical ones, to one process about one connection, the first
//! is shown and the others are counted (`--coalesce`). Pure.

use std::collections::HashMap;

use crate::model::{Answer, Api, ConnectionId, Errno, QueryEvent, SocketId, Verdict};

/// At most this many conversations are tracked. When full, all are dropped, and each answer is
/// shown once more.
pub const KEYS_MAX: usize = 65_536;

/// Process, socket, connection and API of a query.
type QueryKey = (u32, SocketId, Option<ConnectionId>, Api);

/// The parts of an answer that a reader can see.
type AnswerKey = (Answer, Option<Errno>, Option<bool>, Option<Verdict>);

/// The last answer for each `QueryKey`, and its number of repetitions.
#[derive(Debug, Default)]
pub struct AnswerCoalescer {
    last: HashMap<QueryKey, (AnswerKey, u64)>,
}

impl AnswerCoalescer {
    /// Takes one answer: `None` if it repeats the last one, else how often that one was repeated.
    pub fn take(&mut self, event: &QueryEvent) -> Option<u64> {
        let query = &event.query;
        let key = (query.process.host_pid, query.socket.id, query.id, query.api);
        let verdict = event.judgement.as_ref().map(|it| it.verdict);
        let said = (query.answer, query.errno, query.fell_back, verdict);
        if let Some((last, repeats)) = self.last.get_mut(&key) {
            if *last == said {
                *repeats += 1;
                return None;
            }
            *last = said;
            return Some(std::mem::take(repeats));
        }
        if self.last.len() >= KEYS_MAX {
            self.last.clear();
        }
        self.last.insert(key, (said, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, fixture::Row};

    fn asked(pid: u32, answer: Answer) -> QueryEvent {
        let Finding::Query(mut event) = Row::default().query() else {
            panic!("expected a query");
        };
        event.query.process.host_pid = pid;
        event.query.answer = answer;
        event
    }

    #[test]
    fn the_first_answer_and_each_other_one_is_shown_and_the_same_are_counted() {
        let mut repeats = AnswerCoalescer::default();
        for (pid, answer, shown) in [
            (1, Answer::Mptcp, Some(0)),
            (1, Answer::Mptcp, None),
            (1, Answer::Mptcp, None),
            (2, Answer::Mptcp, Some(0)),
            (1, Answer::Tcp, Some(2)),
            (1, Answer::Tcp, None),
            (1, Answer::Mptcp, Some(1)),
        ] {
            assert_eq!(repeats.take(&asked(pid, answer)), shown, "{pid} {answer:?}");
        }
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut repeats = AnswerCoalescer::default();
        for pid in 0..200_000 {
            assert_eq!(repeats.take(&asked(pid, Answer::Mptcp)), Some(0));
            assert!(repeats.last.len() <= KEYS_MAX);
        }
    }
}
