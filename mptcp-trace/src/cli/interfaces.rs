//! Names of network interfaces.

use std::{fs, os::unix::fs::MetadataExt as _, sync::OnceLock};

use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};

/// The name of an interface in a network namespace (an inode number), if it is this process's own:
/// other namespaces number and name theirs independently.
pub(super) fn name(netns: u32, index: u32) -> Option<String> {
    static OWN: OnceLock<Option<u64>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let metadata = fs::metadata("/proc/self/ns/net").ok()?;
        Some(metadata.ino())
    });
    if *own != Some(u64::from(netns)) {
        return None;
    }
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    index_to_name(socket, index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interfaces_of_this_namespace_have_a_name() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let own = u32::try_from(own).unwrap();
        assert_eq!(name(own, 1).as_deref(), Some("lo"));
        assert_eq!(name(own, u32::MAX), None);
        assert_eq!(name(own.wrapping_add(1), 1), None);
    }
}
