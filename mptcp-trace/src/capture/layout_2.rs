//! Records of captures with layout 2, converted into the current ones: those of connections and paths
//! had no [`Marks`](mptcp_trace_common::record::Marks), which are at their end.

use std::mem::offset_of;

use mptcp_trace_common::record::{ConnRecord, Kind, PathRecord};
use zerocopy::FromBytes as _;

/// Lengths of the records of that time, bytes.
const CONNECTION_BYTES: usize = offset_of!(ConnRecord, marks);
const PATH_BYTES: usize = offset_of!(PathRecord, marks);

/// The record in the current layout. If it is none of that time, it gets a kind that no record has,
/// so that the decoder refuses it.
pub(super) fn converted(mut bytes: Vec<u8>) -> Vec<u8> {
    let Ok((kind, _rest)) = Kind::read_from_prefix(&bytes) else {
        return bytes;
    };
    let (before, now) = match kind {
        Kind::FALLBACK
        | Kind::TCP_CHILD
        | Kind::ACCEPTED
        | Kind::EXISTING
        | Kind::BLACKHOLE
        | Kind::CLOSED => (CONNECTION_BYTES, size_of::<ConnRecord>()),
        kind if kind.is_of_path() => (PATH_BYTES, size_of::<PathRecord>()),
        // Queries and counters have not changed.
        Kind(_) => return bytes,
    };
    if bytes.len() == before {
        bytes.resize(now, 0);
    } else {
        bytes[..size_of::<Kind>()].fill(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use mptcp_trace_common::record::Marks;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn what_was_there_stays_and_marks_are_unknown() {
        let mut connection = ConnRecord::new_zeroed();
        connection.kind = Kind::TCP_CHILD;
        connection.reserved = [7; 2];
        let old = connection.as_bytes()[..224].to_vec();
        assert_eq!(converted(old), connection.as_bytes());
        let mut path = PathRecord::new_zeroed();
        path.kind = Kind::PATH_OWN_PRIORITY;
        path.remote_port_be = 7;
        let old = path.as_bytes()[..296].to_vec();
        let new = PathRecord::read_from_bytes(&converted(old)).unwrap();
        assert_eq!((new, new.marks), (path, Marks::NONE));
        for same in [&[][..], &[1, 0], &[1, 0, 0, 0, 1], &[10, 0, 0, 0, 1]] {
            assert_eq!(converted(same.to_vec()), same);
        }
    }

    #[test]
    fn what_is_no_record_of_that_time_gets_a_kind_that_no_record_has() {
        let mut connection = ConnRecord::new_zeroed();
        connection.kind = Kind::CLOSED;
        let mut path = PathRecord::new_zeroed();
        path.kind = Kind::PATH_UP;
        for bytes in [connection.as_bytes(), path.as_bytes(), &[12, 0, 0, 0, 1]] {
            let refused = converted(bytes.to_vec());
            assert_eq!((&refused[..4], &refused[4..]), (&[0; 4][..], &bytes[4..]));
        }
    }
}
