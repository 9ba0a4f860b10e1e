//! The packet that decided: its headers in hex and decoded, and what they show.

use std::fmt::Write as _;

use super::object::{Object, Word};
use crate::model::{Conclusion, Negotiated, Packet};

pub(super) fn packet(packet: &Packet, data: &mut Object<'_>) {
    let Packet {
        ip,
        tcp,
        source: _,
        destination: _,
        ttl,
        flags,
        window,
        options,
        ttl_before,
        first_path,
        peer_token: _,
        conclusions,
    } = packet;
    let offered = packet.negotiates();
    let texts: Vec<String> = options.iter().map(ToString::to_string).collect();
    let options: Vec<&str> = texts.iter().map(String::as_str).collect();
    data.field("ip", hex(ip).as_str());
    data.field("tcp", hex(tcp).as_str());
    data.field("flags", flags.to_string().as_str());
    data.field("ttl", *ttl);
    data.field("window", *window);
    data.field("window_scale", offered.window_scale);
    data.field("mss", offered.mss);
    data.field("timestamps", offered.timestamps);
    data.field("options", options.as_slice());
    data.field("ttl_before", *ttl_before);
    data.maybe_object("first_path", first_path.as_ref(), negotiated);
    data.objects("conclusions", conclusions, conclusion);
}

fn negotiated(of: &Negotiated, data: &mut Object<'_>) {
    let Negotiated {
        mss,
        window_scale,
        timestamps,
    } = of;
    data.field("window_scale", *window_scale);
    data.field("mss", *mss);
    data.field("timestamps", *timestamps);
}

fn conclusion(of: &Conclusion, data: &mut Object<'_>) {
    let Conclusion {
        what,
        certainty,
        because,
    } = of;
    data.field("name", Word(what.name()));
    data.field("certainty", Word(certainty.name()));
    data.field("because", because.as_str());
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to memory does not fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
