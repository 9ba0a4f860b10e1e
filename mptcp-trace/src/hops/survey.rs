//! What is sent, and in which order: the questions that the answers so far leave open.

use std::time::{Duration, Instant};

use super::{
    evidence::{Answer, Back, Data, DataEnd, Ends, Evidence, Hop, Limits, Report},
    options::{self, OptionState},
    packet::{Carried, Established, Packet, Secrets},
    parse::{Heard, Segment, What, parse},
};

/// Sends and receives.
pub trait Wire {
    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()>;
    /// The next packet that arrives before this time; from its IP header on.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    fn receive(&mut self, until: Instant) -> anyhow::Result<Option<Vec<u8>>>;
    /// Numbers that cannot be guessed.
    ///
    /// # Errors
    ///
    /// Fails if the kernel has none.
    fn secrets(&mut self) -> anyhow::Result<Secrets>;
    /// Opens a connection by the kernel, with MPTCP.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    fn open(&mut self, timeout: Duration) -> anyhow::Result<Opened>;
    /// Ends the connection from this side; keeps it otherwise.
    ///
    /// # Errors
    ///
    /// Fails with the kernel's error.
    fn finish(&mut self) -> anyhow::Result<()>;
    /// Shows what is going on.
    fn progress(&mut self, what: &str);
}

/// A connection that the kernel opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Port of this end.
    pub port: u16,
    /// What the kernel says about it: MPTCP, or not; none if this kernel does not say.
    pub is_mptcp: Option<bool>,
}

/// The usual time to live of a packet that is meant to arrive.
const TTL: u8 = 64;
/// How often a packet without an answer is sent again.
const TRIES: usize = 2;
/// Packets that are sent together, while the distance is unknown.
const TOGETHER: u8 = 5;
/// After this many silent hops in a row, with no answer of the end, more of them are not asked.
const SILENT_MAX: usize = 6;
/// Pause between two packets, so that a router's limit of reports per second is not reached.
const PAUSE: Duration = Duration::from_millis(2);

struct Survey<'a> {
    ends: Ends,
    limits: Limits,
    wire: &'a mut dyn Wire,
    established: Option<Established>,
    packets: u32,
    has_too_few_packets: bool,
    /// Segments of the connection that arrived.
    segments: Vec<Segment>,
    connection_port: Option<u16>,
}

/// Asks everything.
///
/// # Errors
///
/// Fails if packets cannot be sent or received.
pub fn survey(ends: Ends, limits: Limits, wire: &mut dyn Wire) -> anyhow::Result<Evidence> {
    let mut survey = Survey {
        ends,
        limits,
        wire,
        established: None,
        packets: 0,
        has_too_few_packets: false,
        segments: Vec::new(),
        connection_port: None,
    };
    survey.wire.progress("asking the destination");
    let both = survey.ask(&[(Carried::Capable, TTL), (Carried::Plain, TTL)])?;
    let [capable, plain] = <[Option<Answer>; 2]>::try_from(both).unwrap_or([None, None]);
    let mut found = Evidence {
        ends,
        capable,
        plain,
        hops: Vec::new(),
        plain_hops: Vec::new(),
        distance: None,
        others: Vec::new(),
        echo: None,
        join: Vec::new(),
        data: None,
        packets: 0,
        has_too_few_packets: false,
    };
    survey.walk(&mut found)?;
    survey.compare_with_plain(&mut found)?;
    survey.look_for_another_machine(&mut found)?;
    survey.join(&mut found)?;
    survey.data(&mut found)?;
    found.packets = survey.packets;
    found.has_too_few_packets = survey.has_too_few_packets;
    Ok(found)
}

impl Survey<'_> {
    /// SYNs with `MP_CAPABLE` and each time to live, up to the end.
    fn walk(&mut self, found: &mut Evidence) -> anyhow::Result<()> {
        let expected = [&found.capable, &found.plain]
            .into_iter()
            .flatten()
            .find_map(steps_back);
        let mut next = 1;
        let mut together = expected.unwrap_or(TOGETHER);
        while next <= self.limits.max_hops {
            let last = next.saturating_add(together - 1).min(self.limits.max_hops);
            self.wire.progress(&format!("hops {next} to {last}"));
            let asked: Vec<_> = (next..=last).map(|ttl| (Carried::Capable, ttl)).collect();
            let answers = self.ask(&asked)?;
            for ((_, number), answer) in asked.into_iter().zip(answers) {
                found.hops.push(Hop { number, answer });
            }
            let is_end = |hop: &&Hop| {
                matches!(
                    hop.answer,
                    Some(Answer::SynAck { .. } | Answer::Reset { .. })
                )
            };
            found.distance = found.hops.iter().find(is_end).map(|hop| hop.number);
            let silent = found
                .hops
                .iter()
                .rev()
                .take_while(|hop| hop.answer.is_none())
                .count();
            let is_refused = |hop: &Hop| matches!(&hop.answer, Some(Answer::Report(it)) if it.what != What::TimeExceeded);
            let is_over = found.distance.is_some()
                || found.capable.is_none() && silent >= SILENT_MAX
                || found.hops.iter().any(is_refused)
                || self.has_too_few_packets;
            if is_over {
                break;
            }
            next = last.saturating_add(1);
            together = TOGETHER;
        }
        if let Some(distance) = found.distance {
            found.hops.truncate(usize::from(distance));
        }
        Ok(())
    }

    /// SYNs without MPTCP, to the hops behind the last one that reported one with it.
    fn compare_with_plain(&mut self, found: &mut Evidence) -> anyhow::Result<()> {
        let is_dropped = found.answered().is_none() && found.plain.is_some();
        if !is_dropped {
            return Ok(());
        }
        let last = found.hops.iter().rfind(|hop| hop.answer.is_some());
        let first = last.map_or(1, |hop| hop.number.saturating_add(1));
        let steps = found
            .plain
            .as_ref()
            .and_then(steps_back)
            .unwrap_or(TOGETHER);
        let until = steps.min(self.limits.max_hops).max(first);
        self.wire
            .progress(&format!("hops {first} to {until} without MPTCP"));
        found.plain_hops = self.hops(Carried::Plain, first..=until)?;
        Ok(())
    }

    /// Whether packets of other protocols with the same time to live expire at a router: then the
    /// machine that answers TCP is not the destination.
    fn look_for_another_machine(&mut self, found: &mut Evidence) -> anyhow::Result<()> {
        let Some(distance) = found.distance else {
            return Ok(());
        };
        self.wire.progress("comparing with other protocols");
        let asked = [
            (Carried::Echo, distance),
            (Carried::Udp, distance),
            (Carried::Echo, TTL),
        ];
        let mut answers = self.ask_once(&asked)?;
        found.echo = answers.pop().flatten();
        found.others = answers.into_iter().flatten().collect();
        Ok(())
    }

    /// The size of `MP_JOIN`, up to the last router that quotes in full.
    fn join(&mut self, found: &mut Evidence) -> anyhow::Result<()> {
        self.wire.progress("an option of the size of MP_JOIN");
        found.join = self.far_first(Carried::Join, &found.intact().collect::<Vec<_>>())?;
        Ok(())
    }

    /// A connection by the kernel, and a segment of it with DSS.
    fn data(&mut self, found: &mut Evidence) -> anyhow::Result<()> {
        if found.answered().and_then(Answer::back) != Some(Back::Mptcp) {
            return Ok(());
        }
        self.wire.progress("a connection");
        let not_opened = |why: String| Data {
            hops: Vec::new(),
            end: DataEnd::NotOpened(why),
        };
        let opened = match self.wire.open(self.limits.timeout) {
            Ok(opened) => opened,
            Err(why) => {
                found.data = Some(not_opened(format!("{why:#}")));
                return Ok(());
            }
        };
        self.connection_port = Some(opened.port);
        self.listen(Duration::ZERO)?;
        let is_syn_ack = |it: &&Segment| it.flags & (SYN | ACK) == SYN | ACK;
        let Some(answer) = self.segments.iter().find(is_syn_ack).cloned() else {
            found.data = Some(not_opened("its SYN/ACK was not seen".into()));
            return Ok(());
        };
        if opened.is_mptcp == Some(false) {
            let why = match options::mptcp(&answer.options) {
                Some(_) => "the kernel of this host made it plain TCP",
                None => "its SYN/ACK has no MPTCP option",
            };
            found.data = Some(not_opened(why.into()));
            return Ok(());
        }
        self.established = Some(Established {
            port: opened.port,
            sequence: answer.acknowledgement.wrapping_sub(1),
            acknowledgement: answer.sequence.wrapping_add(1),
            timestamps: answer.timestamps().map(|[value, echo]| [echo, value]),
        });
        let hops = self.far_first(Carried::Dss, &found.intact().collect::<Vec<_>>())?;
        self.wire.finish()?;
        let is_rest = |it: &&Segment| it.flags & (SYN | RST) == 0;
        // The kernel repeats the end by itself: a packet that is lost must not look like a box.
        for _ in 0..TRIES {
            self.listen(self.limits.timeout)?;
            if self.segments.iter().any(|it| is_rest(&it)) {
                break;
            }
        }
        let rest = self.segments.iter().filter(is_rest);
        let (mut all, mut with_dss) = (0, 0);
        for segment in rest {
            all += 1;
            with_dss += u32::from(has_dss(segment));
        }
        let end = match (all, with_dss) {
            (0, _) => DataEnd::Silence,
            (_, 0) => DataEnd::WithoutDss,
            _ => DataEnd::Acknowledged,
        };
        found.data = Some(Data { hops, end });
        Ok(())
    }

    /// Asks the last of these hops, and the others only if it does not have the option unchanged.
    fn far_first(&mut self, carried: Carried, hops: &[u8]) -> anyhow::Result<Vec<Hop>> {
        let Some((&last, before)) = hops.split_last() else {
            return Ok(Vec::new());
        };
        let mut asked = self.hops(carried, [last])?;
        let is_intact = |hop: &Hop| {
            hop.quote()
                .is_some_and(|it| it.option == OptionState::Intact)
        };
        if asked.iter().all(is_intact) {
            return Ok(asked);
        }
        let mut others = self.hops(carried, before.iter().copied())?;
        others.append(&mut asked);
        Ok(others)
    }

    fn hops(
        &mut self,
        carried: Carried,
        numbers: impl IntoIterator<Item = u8>,
    ) -> anyhow::Result<Vec<Hop>> {
        let asked: Vec<_> = numbers.into_iter().map(|ttl| (carried, ttl)).collect();
        let answers = self.ask(&asked)?;
        let all = asked.into_iter().zip(answers);
        Ok(all
            .map(|((_, number), answer)| Hop { number, answer })
            .collect())
    }

    /// Sends packets, and those without an answer again. Where the limit of packets is reached, the
    /// answers end: a hop that was not asked is not silent.
    fn ask(&mut self, asked: &[(Carried, u8)]) -> anyhow::Result<Vec<Option<Answer>>> {
        let left = self.limits.max_packets.saturating_sub(self.packets);
        let allowed = usize::try_from(left).unwrap_or(usize::MAX);
        self.has_too_few_packets |= asked.len() > allowed;
        let asked = &asked[..asked.len().min(allowed)];
        let mut answers = vec![None; asked.len()];
        for _ in 0..TRIES {
            let open = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| answer.is_none());
            let open: Vec<usize> = open.map(|(index, _)| index).collect();
            let again: Vec<_> = open.iter().map(|index| asked[*index]).collect();
            for (index, answer) in open.into_iter().zip(self.ask_once(&again)?) {
                answers[index] = answer;
            }
        }
        Ok(answers)
    }

    fn ask_once(&mut self, asked: &[(Carried, u8)]) -> anyhow::Result<Vec<Option<Answer>>> {
        let mut sent = Vec::new();
        let mut answers = vec![None; asked.len()];
        for &(carried, ttl) in asked {
            if self.packets >= self.limits.max_packets {
                self.has_too_few_packets = true;
                break;
            }
            let mut secrets = self.wire.secrets()?;
            if let (Carried::Dss, Some(of)) = (carried, self.established) {
                (secrets.port, secrets.sequence) = (of.port, of.sequence);
                // Its own for each of them: ports and number are the same.
                let value = of.timestamps.map(|it| it[0].wrapping_add(u32::from(ttl)));
                secrets.timestamp = value.unwrap_or(secrets.timestamp);
            }
            let packet = Packet::new(self.ends, carried, ttl, secrets, self.established)?;
            self.wire.send(&packet)?;
            self.packets += 1;
            sent.push(packet);
            self.take_until(Instant::now() + PAUSE, &sent, &mut answers)?;
        }
        self.take_until(Instant::now() + self.limits.timeout, &sent, &mut answers)?;
        Ok(answers)
    }

    /// Takes answers until this time, or until each packet has one.
    fn take_until(
        &mut self,
        until: Instant,
        sent: &[Packet],
        answers: &mut [Option<Answer>],
    ) -> anyhow::Result<()> {
        let mut taken = 0;
        while answers.iter().take(sent.len()).any(Option::is_none) && may_take(&mut taken, until) {
            let Some(bytes) = self.wire.receive(until)? else {
                return Ok(());
            };
            let Some(heard) = parse(&bytes) else {
                continue;
            };
            let of = sent.iter().zip(answers.iter_mut());
            for (packet, answer) in of.filter(|(_, answer)| answer.is_none()) {
                *answer = answer_to(self.ends, packet, &heard);
                if answer.is_some() {
                    break;
                }
            }
            self.keep(heard);
        }
        Ok(())
    }

    /// Keeps the segments of the connection that arrive, until one says how its end is answered.
    fn listen(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        let mut taken = 0;
        while may_take(&mut taken, until) {
            let Some(bytes) = self.wire.receive(until)? else {
                return Ok(());
            };
            if let Some(heard) = parse(&bytes) {
                self.keep(heard);
            }
            if self.segments.last().is_some_and(has_dss) && !time.is_zero() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn keep(&mut self, heard: Heard) {
        /// A peer that sends much is not listened to any more.
        const SEGMENTS_MAX: usize = 64;
        let Heard::Segment(segment) = heard else {
            return;
        };
        let is_ours = segment.source == self.ends.destination
            && Some(segment.ports) == self.connection_port.map(|port| [self.ends.port, port]);
        if is_ours && self.segments.len() < SEGMENTS_MAX {
            self.segments.push(segment);
        }
    }
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Counts a packet that is taken. After the time is over, those that wait are taken, but not one that
/// arrives after the other: somebody may send without end.
fn may_take(taken: &mut u32, until: Instant) -> bool {
    const WAITING_MAX: u32 = 1_024;
    *taken += 1;
    *taken <= WAITING_MAX || Instant::now() < until
}

fn has_dss(segment: &Segment) -> bool {
    /// The subtype.
    const DSS: u8 = 2;
    let option = options::mptcp(&segment.options);
    let subtype = option.and_then(|it| it.get(2)).map(|it| it >> 4);
    segment.flags & SYN == 0 && subtype == Some(DSS)
}

/// The distance from which an answer seems to come: systems begin with 64, 128 or 255.
pub(super) fn steps_back(answer: &Answer) -> Option<u8> {
    let ttl = match answer {
        Answer::SynAck { ttl, .. } | Answer::Reset { ttl } | Answer::Echoed { ttl } => *ttl,
        Answer::Report(_) => return None,
    };
    let begin = [64_u8, 128, 255].into_iter().find(|begin| *begin >= ttl)?;
    Some((begin - ttl).saturating_add(1))
}

pub(super) fn answer_to(ends: Ends, packet: &Packet, heard: &Heard) -> Option<Answer> {
    match heard {
        Heard::Segment(segment) => {
            if !packet.is_answered(ends, segment) {
                return None;
            }
            let ttl = segment.ttl;
            if segment.flags & RST != 0 {
                return Some(Answer::Reset { ttl });
            }
            if segment.flags & (SYN | ACK) != SYN | ACK {
                return None;
            }
            let own = packet.secrets.sequence.wrapping_add(1);
            Some(Answer::SynAck {
                ttl,
                back: back(&packet.options, &segment.options),
                is_acknowledged: segment.acknowledgement == own,
            })
        }
        Heard::Echoed { ttl, .. } => packet
            .is_echoed(ends, heard)
            .then_some(Answer::Echoed { ttl: *ttl }),
        Heard::Report(it) => {
            if !packet.is_quoted(ends, &it.quoted) {
                return None;
            }
            let quoted = it.quoted.options.as_deref();
            let option = quoted.map_or(OptionState::Unknown, |options| {
                options::compare(&packet.options, options, it.quoted.has_all)
            });
            let kept = it.quoted.sequence.map(|it| it == packet.secrets.sequence);
            Some(Answer::Report(Report {
                source: it.source,
                what: it.what,
                is_whole: it.quoted.has_all,
                bytes: it.quoted.bytes,
                option,
                is_sequence_kept: kept,
            }))
        }
    }
}

/// The MPTCP option of a SYN/ACK, compared with that of the SYN.
fn back(sent: &[u8], received: &[u8]) -> Back {
    /// Length of the option of a SYN/ACK.
    const ANSWER_BYTES: usize = 12;
    match options::mptcp(received) {
        Some(found) if Some(found) == options::mptcp(sent) => Back::Mirrored,
        Some([_, _, version, ..]) if received_capable(received) => match version & 0x0f {
            1 => Back::Mptcp,
            other => Back::Version(other),
        },
        Some(_) => Back::Other,
        None => match options::nops(received) {
            // Systems begin such an option at a multiple of 4 bytes.
            (at, ANSWER_BYTES) => Back::Cleared {
                is_exact: at.is_multiple_of(4),
            },
            (_, length) if length > ANSWER_BYTES => Back::Cleared { is_exact: false },
            _ => Back::Nothing,
        },
    }
}

/// Whether the options have an `MP_CAPABLE` with a key.
fn received_capable(options: &[u8]) -> bool {
    options::mptcp(options).is_some_and(|it| it.len() == 12 && it[2] >> 4 == 0)
}
