//! Writes JSON objects field by field into memory.
//!
//! Findings are written a million times, everything else once: a serializer that inspects the type
//! of each field and scans each name for characters to escape took two thirds of the time from
//! record to line (`docs/decisions/0009-findings-are-written-field-by-field.md`). Everything else
//! uses serde.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::Offset};

use super::fit;
use crate::model::{ConnectionId, Errno, SocketId, TcpState};

/// An object that is being written.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Writes an object with the fields that `fields` adds.
    pub(super) fn write(out: &'o mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        fields(&mut Object {
            out,
            is_empty: true,
        });
        out.push(b'}');
    }

    /// A field.
    // Inlined, so that the name is a constant.
    #[inline(always)]
    pub(super) fn field(&mut self, name: &'static str, value: impl Value) {
        self.name(name);
        value.write(self.out);
    }

    /// A field that is an object itself.
    #[inline]
    pub(super) fn object(&mut self, name: &'static str, fields: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        Object::write(self.out, fields);
    }

    /// A field that is an object, or null.
    pub(super) fn maybe_object<T>(
        &mut self,
        name: &'static str,
        of: Option<T>,
        fields: impl FnOnce(T, &mut Object<'_>),
    ) {
        match of {
            Some(of) => self.object(name, |object| fields(of, object)),
            None => self.field(name, Null),
        }
    }

    /// A field that is an array of objects.
    pub(super) fn objects<'i, T: 'i>(
        &mut self,
        name: &'static str,
        all: impl IntoIterator<Item = &'i T>,
        fields: impl Fn(&T, &mut Object<'_>),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (number, of) in all.into_iter().enumerate() {
            if number > 0 {
                self.out.push(b',');
            }
            Object::write(self.out, |object| fields(of, object));
        }
        self.out.push(b']');
    }

    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        Word(name).write(self.out);
        self.out.push(b':');
    }
}

/// Value of a field.
pub(super) trait Value {
    /// Writes it as JSON.
    fn write(self, out: &mut Vec<u8>);
}

/// Null.
pub(super) struct Null;

/// A constant string without characters to escape.
pub(super) struct Word(pub(super) &'static str);

/// A time in UTC with nine fractional digits, so that lines sort as text.
pub(super) struct Moment(pub(super) SystemTime);

impl Value for Null {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"null");
    }
}

impl<T: Value> Value for Option<T> {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => Null.write(out),
        }
    }
}

impl Value for bool {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self { b"true" } else { b"false" });
    }
}

impl Value for u64 {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(self).as_bytes());
    }
}

impl Value for u32 {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        u64::from(self).write(out);
    }
}

impl Value for u8 {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        u64::from(self).write(out);
    }
}

impl Value for u16 {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        u64::from(self).write(out);
    }
}

impl Value for Word {
    #[inline(always)]
    fn write(self, out: &mut Vec<u8>) {
        debug_assert!(is_plain(self.0), "{:?} is to be escaped", self.0);
        out.push(b'"');
        out.extend_from_slice(self.0.as_bytes());
        out.push(b'"');
    }
}

/// A string, possibly external, that is escaped.
impl Value for &str {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        if is_plain(self) {
            out.push(b'"');
            out.extend_from_slice(self.as_bytes());
            out.push(b'"');
        } else {
            fit::write(out, self);
        }
    }
}

impl Value for &[&str] {
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (number, word) in self.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            word.write(out);
        }
        out.push(b']');
    }
}

impl Value for &[u8] {
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (number, value) in self.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            value.write(out);
        }
        out.push(b']');
    }
}

impl Value for SocketId {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        hex(self, out);
        out.push(b'"');
    }
}

impl Value for ConnectionId {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        hex(self.socket, out);
        out.push(b'@');
        ns(self.born_at).write(out);
        if self.attempt > 0 {
            out.push(b'#');
            (u64::from(self.attempt) + 1).write(out);
        }
        out.push(b'"');
    }
}

impl Value for TcpState {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        match self.name() {
            Some(name) => Word(name).write(out),
            None => shown(self, out),
        }
    }
}

impl Value for Errno {
    fn write(self, out: &mut Vec<u8>) {
        shown(self, out);
    }
}

impl Value for IpAddr {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => ipv4(address, out),
            Self::V6(address) => shown(address, out),
        }
    }
}

impl Value for Moment {
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        let Ok(stamp) = Timestamp::try_from(self.0) else {
            return Word("?").write(out);
        };
        let time = Offset::UTC.to_datetime(stamp);
        let (Ok(year), Ok(ns)) = (
            u32::try_from(time.year()),
            u32::try_from(time.subsec_nanosecond()),
        ) else {
            return shown(format_args!("{stamp:.9}"), out);
        };
        let two = |of: i8| u32::from(of.unsigned_abs());
        let mut text = *b"\"0000-00-00T00:00:00.000000000Z\"";
        digits(&mut text[1..5], year);
        digits(&mut text[6..8], two(time.month()));
        digits(&mut text[9..11], two(time.day()));
        digits(&mut text[12..14], two(time.hour()));
        digits(&mut text[15..17], two(time.minute()));
        digits(&mut text[18..20], two(time.second()));
        digits(&mut text[21..30], ns);
        out.extend_from_slice(&text);
    }
}

/// Nanoseconds; saturates at 64 bits.
pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// True if the text needs no escapes.
#[inline]
fn is_plain(text: &str) -> bool {
    // Without an early exit the compiler vectorises the loop.
    text.bytes().fold(true, |plain, byte| {
        plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
    })
}

/// Uses `Display`; the text needs no escapes.
fn shown(what: impl std::fmt::Display, out: &mut Vec<u8>) {
    let _infallible = write!(out, "\"{what}\"");
}

/// The number, padded with zeros.
#[inline]
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

/// Matches the `Display` of [`SocketId`].
#[inline]
fn hex(SocketId(number): SocketId, out: &mut Vec<u8>) {
    let mut text = *b"0x0000000000000000";
    for (place, digit) in text[2..].iter_mut().enumerate() {
        let nibble = number >> (60 - 4 * place) & 0xf;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or_default()];
    }
    out.extend_from_slice(&text);
}

fn ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    out.push(b'"');
    for (number, octet) in address.octets().into_iter().enumerate() {
        if number > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn written(value: impl Value) -> Json {
        let mut out = Vec::new();
        value.write(&mut out);
        serde_json::from_slice(&out).unwrap_or_else(|why| {
            panic!("{:?} is no JSON: {why}", String::from_utf8_lossy(&out));
        })
    }

    #[test]
    fn objects_nest_and_fields_keep_their_order() {
        let mut out = Vec::new();
        Object::write(&mut out, |object| {
            object.field("a", 1_u64);
            object.field("b", None::<u64>);
            object.object("c", |object| object.field("d", true));
            object.maybe_object("e", None::<u8>, |_, _| {});
            object.object("f", |_| {});
            object.field("g", ["x", "y"].as_slice());
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":1,"b":null,"c":{"d":true},"e":null,"f":{},"g":["x","y"]}"#
        );
    }

    #[test]
    fn a_moment_has_all_its_digits() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399_000_000_001, "2000-02-28T23:59:59.000000001Z"),
            (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_nanos(ns);
            assert_eq!(written(Moment(time)), text);
        }
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(written(Moment(far)), "?");
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        assert_eq!(written(Moment(before)), "1969-12-31T23:59:59.999999999Z");
        let before_christ = UNIX_EPOCH - Duration::from_secs(63_000_000_000);
        assert_eq!(
            written(Moment(before_christ)),
            "-000027-08-11T08:00:00.000000000Z"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_from_outside_is_the_same_when_it_is_read(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(written(&*text), json!(text));
        }

        #[test]
        fn numbers_and_names_are_those_that_people_are_shown(
            number in any::<u64>(), address in any::<IpAddr>(), state in any::<u8>(), errno in 0..4096_i32
        ) {
            prop_assert_eq!(written(number), json!(number));
            prop_assert_eq!(written(SocketId(number)), json!(SocketId(number).to_string()));
            let born_at = Duration::from_nanos(number);
            let id = ConnectionId { socket: SocketId(number), born_at, attempt: u32::from(state) };
            prop_assert_eq!(written(id), json!(id.to_string()));
            prop_assert_eq!(written(address), json!(address.to_string()));
            prop_assert_eq!(written(TcpState(state)), json!(TcpState(state).to_string()));
            prop_assert_eq!(written(Errno(errno)), json!(Errno(errno).to_string()));
            let time = UNIX_EPOCH + Duration::from_nanos(number);
            let stamp = Timestamp::try_from(time).unwrap();
            prop_assert_eq!(written(Moment(time)), json!(format!("{stamp:.9}")));
        }
    }
}
