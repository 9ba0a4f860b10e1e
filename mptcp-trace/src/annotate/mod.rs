//! Findings -> comments on the packets of a packet capture, so that Wireshark shows the cause at the
//! packet. Pure, apart from the reader and the writer that it is given.
//!
//! The capture is read twice: the first pass finds out which packets belong to which connection, and
//! which one precedes each finding ([`plan`]); the second one copies the blocks, and adds the comments
//! ([`write`]).

mod blocks;
mod comments;
mod gather;
mod place;
mod segment;
mod words;

use std::io::{self, Read, Write};

pub use self::{
    blocks::{BLOCK_BYTES_MAX, Damage},
    gather::{FINDINGS_MAX, Gathered, Shared},
    place::{COMMENTS_MAX, LIVES_MAX},
};
use self::{
    blocks::{Blocks, commented},
    place::Placing,
    segment::segment,
};

/// Which packet gets which comments, and what could not be placed.
#[derive(Default)]
pub struct Plan {
    /// The comments: the number of the packet's block, in ascending order from 0, and the texts.
    comments: Vec<(u64, Vec<String>)>,
    /// Number of blocks that were read.
    blocks: u64,
    /// What was counted.
    pub counts: Counts,
    /// Findings without a packet: where they belong, and their text.
    pub left: Vec<String>,
    /// Why reading ended early.
    pub damage: Option<Damage>,
    /// Where the first block begins whose packet does not fit into it, or whose interface is not
    /// described (a byte of the input). Such blocks are copied.
    pub unreadable_at: Option<u64>,
}

/// What the first pass counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Of these, packets of a connection with a finding.
    pub of_findings: u64,
    /// Packets that cannot have a time and a comment (simple packet blocks).
    pub bare: u64,
    /// Connections with a finding.
    pub connections: u64,
    /// Of these, found in the packets.
    pub found: u64,
    /// Findings that became a comment.
    pub placed: u64,
    /// Findings whose connection is not in the packets.
    pub elsewhere: u64,
    /// Findings without the addresses of a connection: a refused socket, a listener.
    pub addressless: u64,
    /// Findings beyond [`FINDINGS_MAX`].
    pub beyond: u64,
    /// Packets that would begin a connection beyond [`LIVES_MAX`].
    pub unfollowed: u64,
    /// Blocks of packets that cannot be read.
    pub unreadable: u64,
}

/// What the second pass wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Comments.
    pub comments: u64,
    /// Packets that have one.
    pub packets: u64,
    /// Packets without room for their comments.
    pub full: u64,
}

/// Decides which packet gets which comment.
///
/// # Errors
///
/// If the input is not a packet capture, or cannot be read at all. Damage after the first block is
/// part of the plan.
pub fn plan(input: impl Read, gathered: Gathered) -> Result<Plan, Damage> {
    let mut blocks = Blocks::open(input)?;
    let mut placing = Placing::new(gathered);
    let mut number = 0;
    let (mut unreadable, mut unreadable_at) = (0, None);
    let damage = loop {
        let begin = blocks.position();
        let block = match blocks.next() {
            Ok(Some(block)) => block,
            Ok(None) => break None,
            Err(why) if number == 0 => return Err(why),
            Err(why) => break Some(why),
        };
        if let Some(packet) = block.packet() {
            let time = packet.time.filter(|_| packet.takes_comments);
            placing.packet(number, time, segment(packet.link, packet.data).as_ref());
        } else if block.is_of_packet() {
            unreadable += 1;
            unreadable_at.get_or_insert(begin);
        }
        number += 1;
    };
    let placed = placing.finish();
    Ok(Plan {
        blocks: number,
        damage,
        unreadable_at,
        counts: Counts {
            unreadable,
            ..placed.counts
        },
        ..placed
    })
}

/// Copies the blocks that the plan covers, and adds its comments.
///
/// # Errors
///
/// The inner error if the output cannot be written; the outer one if the input cannot be read a
/// second time.
pub fn write(
    input: impl Read,
    plan: &Plan,
    out: &mut dyn Write,
) -> Result<Result<Written, io::Error>, Damage> {
    let mut blocks = Blocks::open(input)?;
    let mut written = Written::default();
    let mut comments_of = plan.comments.iter().peekable();
    for number in 0..plan.blocks {
        let Some(block) = blocks.next()? else {
            break;
        };
        let comments = comments_of.next_if(|(block, _)| *block == number);
        let comments = comments.map_or(&[][..], |(_, texts)| texts);
        let copied = match commented(&block, comments) {
            Some(bytes) => {
                let count = u64::try_from(comments.len()).unwrap_or(u64::MAX);
                written.comments += count;
                written.packets += u64::from(count > 0);
                out.write_all(&bytes)
            }
            None => {
                written.full += 1;
                out.write_all(block.bytes)
            }
        };
        if let Err(why) = copied {
            return Ok(Err(why));
        }
    }
    Ok(out.flush().map(|()| written))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
