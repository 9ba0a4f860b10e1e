//! Fallbacks after the SYN/ACK: the third ACK, and data.

use super::*;

impl Judge<'_> {
    pub(super) fn third_ack(
        &self,
        client: &State<'_>,
        syn: Option<Ns>,
        accepted: Option<Ns>,
    ) -> Judged {
        // The client may also not have asked, without a name of the cause.
        if let State::Fell(fell) = client
            && fell.cause.is_none()
        {
            return Judged::cannot_say(
                "the client's fallback has no known cause: it may be the SYN, the SYN/ACK or the \
                 third ACK",
            );
        }
        Judged::removed(
            Packet::ThirdAck,
            syn,
            accepted,
            "the client got the option in the SYN/ACK, and the server got none in the third ACK",
        )
    }

    /// A fallback in the middle of the data, at one end or at both.
    pub(super) fn data(&self, pair: &Pair, client: Option<&Fell>, server: Option<&Fell>) -> Judged {
        if let Some((to_server, why)) = changed_for(client, server) {
            return self.of_data(pair, [client, server], to_server, true, why);
        }
        let first = match either([client, server], |it| it.is(FIRST_DATA)) {
            (true, false) => Some((false, true)),
            (false, true) => Some((true, true)),
            (true, true) | (false, false) => self.fell_first(pair, client, server),
        };
        let Some((to_server, is_sure)) = first else {
            return Judged::cannot_say(
                "both ends fell back in the data, at times that the clocks do not tell apart: the \
                 option was taken out of data for one of them, or for both",
            );
        };
        let of_first = if to_server { server } else { client };
        let why = match is_sure {
            true => "that end fell back first, the other one because of that",
            false => {
                "that end seems to have fallen back first, but by less than the clocks are certain"
            }
        };
        match of_first {
            // Older kernels say so of a packet without a mapping too.
            Some(fell) if fell.saw(Evidence::InvalidMapping) => {
                let why = "its option was changed or taken out: its mapping was invalid there";
                self.of_data(pair, [client, server], to_server, true, why)
            }
            Some(fell) if fell.is("DssFallback") || fell.is(FIRST_DATA) => {
                self.of_data(pair, [client, server], to_server, false, why)
            }
            Some(fell) => Judged::cannot_say(format!(
                "what {} means for the path is not known",
                fell.named()
            )),
            None => Judged::cannot_say("the fallback was not observed"),
        }
    }

    /// The judgement on data for one end: changed, or without its option.
    fn of_data(
        &self,
        pair: &Pair,
        [client, server]: [Option<&Fell>; 2],
        to_server: bool,
        is_changed: bool,
        why: &str,
    ) -> Judged {
        let (packet, fell) = match to_server {
            true => (Packet::DataToServer, server),
            false => (Packet::DataToClient, client),
        };
        let at = fell.and_then(|it| it.at);
        let arrived = at.map(|at| self.about(pair, to_server).wall(at));
        match is_changed {
            false => Judged::removed(packet, None, arrived, why),
            true => Judged {
                packet: Some(packet),
                arrived,
                ..Judged::new(
                    Judgement::Changed,
                    format!("{} was changed between the two ({why})", packet.words()),
                )
            },
        }
    }

    /// Whether the server was the first to fall back, and whether the clocks are certain about it;
    /// `None` if they do not tell.
    fn fell_first(
        &self,
        pair: &Pair,
        client: Option<&Fell>,
        server: Option<&Fell>,
    ) -> Option<(bool, bool)> {
        let (client, server) = match (client, server) {
            (Some(client), Some(server)) => (client, server),
            (None, Some(_)) => return Some((true, true)),
            (_, None) => return Some((false, true)),
        };
        let uncertainty = self.offset?.uncertainty;
        let at = |is_server: bool, fell: &Fell| {
            let at = self.about(pair, is_server).wall(fell.at?);
            Some(self.on_first_clock(pair, is_server, at))
        };
        let (here, there) = (at(false, client)?, at(true, server)?);
        let is_sure = here.abs_diff(there) > uncertainty.unsigned_abs();
        (here != there).then_some((there < here, is_sure))
    }
}

/// Whether something is so at the client, and at the server.
fn either(fell: [Option<&Fell>; 2], what: fn(&Fell) -> bool) -> (bool, bool) {
    let [client, server] = fell.map(|fell| fell.is_some_and(what));
    (client, server)
}

/// Whether data for the server was changed, or data for the client, and how that is known; `None` if
/// nothing says that data were changed.
fn changed_for(client: Option<&Fell>, server: Option<&Fell>) -> Option<(bool, &'static str)> {
    let one = |what: fn(&Fell) -> bool| match either([client, server], what) {
        (true, false) => Some(false),
        (false, true) => Some(true),
        (true, true) | (false, false) => None,
    };
    let bad = one(|it| it.saw(Evidence::BadChecksum) || it.saw(Evidence::MpFailSent));
    if let Some(at_server) = bad {
        return Some((at_server, "its checksum was wrong there"));
    }
    if let Some(at_server) = one(|it| it.is(CORRUPTION)) {
        return Some((at_server, "its mapping did not fit the data there"));
    }
    // MP_FAIL arrived at one end: the other one found the checksum wrong.
    let told = one(|it| it.saw(Evidence::MpFailReceived) || it.is("InfiniteMapTx"));
    told.map(|at_server| match at_server {
        true => (false, "the client reported a wrong checksum"),
        false => (true, "the server reported a wrong checksum"),
    })
}
