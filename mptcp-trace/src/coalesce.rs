//! Which answers say nothing new: of the same ones, to the same process about the same connection, the first is shown and the
//! others are counted (`--coalesce`). Pure.

use std::collections::HashMap;

use crate::model::{Answer, Api, ConnectionId, Errno, QueryEvent, SocketId, Verdict};

/// So many conversations are remembered at once. Beyond that all are forgotten, and what is repeated is shown once more.
pub const CONVERSATIONS_MAX: usize = 65_536;

/// Who asks about what, and how.
type QueryKey = (u32, SocketId, Option<ConnectionId>, Api);

/// What was said, as far as a reader would see the difference.
type AnswerKey = (Answer, Option<Errno>, Option<bool>, Option<Verdict>);

/// What was said last in each conversation, and how often since.
#[derive(Debug, Default)]
pub struct AnswerCoalescer {
    last: HashMap<QueryKey, (AnswerKey, u64)>,
}

impl AnswerCoalescer {
    /// One more answer: none if it repeats the last one, else how often that was repeated.
    pub fn take(&mut self, event: &QueryEvent) -> Option<u64> {
        let query = &event.query;
        let conversation = (query.process.host_pid, query.socket.id, query.id, query.api);
        let verdict = event.judgement.as_ref().map(|it| it.verdict);
        let said = (query.answer, query.errno, query.fell_back, verdict);
        if let Some((last, repeats)) = self.last.get_mut(&conversation) {
            if *last == said {
                *repeats += 1;
                return None;
            }
            *last = said;
            return Some(std::mem::take(repeats));
        }
        if self.last.len() >= CONVERSATIONS_MAX {
            self.last.clear();
        }
        self.last.insert(conversation, (said, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, fixture::Row};

    fn asked(pid: u32, answer: Answer) -> QueryEvent {
        let Finding::Query(mut event) = Row::default().query() else {
            panic!("a question is a question");
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
            assert!(repeats.last.len() <= CONVERSATIONS_MAX);
        }
    }
}
