//! What it means that only one capture has a connection.

use super::*;

impl Judge<'_> {
    /// The connection's absence in the other capture proves nothing, and why.
    pub(super) fn absence_is_open(
        &self,
        pair: &Pair,
        seen: &Seen,
        in_server: bool,
    ) -> Option<String> {
        let who = if in_server { "server" } else { "client" };
        if let Some(gap) = &self.about(pair, in_server).gap {
            return Some(format!("the {who}'s capture may lack it: {gap}"));
        }
        let at = Some(seen.begin());
        let until = seen.closed.or(at);
        self.not_covered(pair, at, !in_server)
            .or_else(|| self.not_covered(pair, until, !in_server))
    }

    /// The other capture does not cover a time of this end, and why that matters.
    pub(super) fn not_covered(
        &self,
        pair: &Pair,
        at: Option<Duration>,
        is_server: bool,
    ) -> Option<String> {
        let about = self.about(pair, is_server);
        let other = self.about(pair, !is_server);
        let who = if is_server { "client" } else { "server" };
        let at = self.on_first_clock(pair, is_server, about.wall(at?));
        let wall = |it: Duration| self.on_first_clock(pair, !is_server, other.wall(it));
        let (from, to) = (wall(other.span.0), wall(other.span.1));
        // Without an offset the clocks are taken as they are; they may differ.
        let slack = self.offset.map_or(0, |it| it.uncertainty);
        if at < from.saturating_add(slack) {
            return Some(format!("the {who}'s capture began only after that"));
        }
        (at > to.saturating_sub(slack)).then(|| format!("the {who}'s capture ended before that"))
    }

    /// A connection that only one capture has.
    pub(super) fn alone(&self, pair: &Pair, seen: &Seen, is_server: bool) -> Judged {
        if let Some(why) = self.absence_is_open(pair, seen, !is_server) {
            return Judged::cannot_say(why);
        }
        let who = if is_server { "client" } else { "server" };
        let filtered = match self.about(pair, !is_server).filtered {
            0 => "",
            _ => ", or its filter left it out",
        };
        let about = self.about(pair, is_server);
        let began = seen
            .first()
            .and_then(|it| it.began)
            .map(|at| about.wall(at));
        let absent = |why: String| Judged {
            left: began,
            ..Judged::new(Judgement::NotInOther, why)
        };
        match (State::of(seen), is_server) {
            (State::Failed(path), false) => self.path_that_failed(pair, path, None),
            (State::Fell(fell), false) if fell.is_of_own_host() => Judged::new(
                Judgement::NotRequested,
                format!("the client did not ask for MPTCP: {}", fell.named()),
            ),
            (State::Mptcp | State::Fell(_) | State::Unknown, false)
                if pair.known_service && !seen.is_orphan =>
            {
                Judged {
                    left: began,
                    ..Judged::new(
                        Judgement::Proxy,
                        "the server has MPTCP connections of this service, and not this one: something \
                         in between ended it",
                    )
                }
            }
            (State::Fell(fell), false) if fell.is(SYN_ACK) => absent(format!(
                "the server's capture has no such connection: it arrived at a socket without MPTCP, or \
                 not at all{filtered}"
            )),
            (State::Plain(_), _) => absent(format!(
                "the client's capture has no such connection: its socket is plain TCP, or it is another \
                 client{filtered}"
            )),
            (_, false) if seen.is_orphan => Judged::cannot_say("its connection is unknown"),
            (_, true) if seen.is_orphan => match seen.paths.first() {
                Some(path) => self.path_that_failed(pair, path, None),
                None => Judged::cannot_say("its connection is unknown"),
            },
            _ => absent(format!(
                "the {who}'s capture has no such connection: its other end is not there, or something in \
                 between ends it{filtered}"
            )),
        }
    }
}
