//! Names of network interfaces.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};

/// At most this many addresses have a known interface.
const ADDRESSES_MAX: usize = 4096;
/// How long the addresses of this host are believed.
const READ_EVERY: Duration = Duration::from_secs(1);

/// True if a network namespace (an inode number) is this process's own: other namespaces number and
/// name their interfaces independently.
fn is_own(netns: u32) -> bool {
    static OWN: OnceLock<Option<u64>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let metadata = fs::metadata("/proc/self/ns/net").ok()?;
        Some(metadata.ino())
    });
    *own == Some(u64::from(netns))
}

/// The name of an interface in a network namespace, if it is this process's own.
pub(super) fn name(netns: u32, index: u32) -> Option<String> {
    if !is_own(netns) {
        return None;
    }
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    index_to_name(socket, index).ok()
}

/// The name of the interface that has an address in a network namespace, if it is this process's
/// own.
pub(super) fn of_address(netns: u32, address: IpAddr) -> Option<String> {
    static BOOK: Mutex<Book> = Mutex::new(Book {
        names: None,
        read_at: None,
    });
    if !is_own(netns) {
        return None;
    }
    let mut book = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
    book.read(Instant::now(), || {
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let all = found.into_iter().map(|it| (it.ip(), it.name));
        all.collect()
    });
    book.names.as_ref()?.get(&address).cloned()
}

/// Addresses of this host and the interfaces that have, or had, them: a path that ends because its
/// address is gone still belongs to the interface.
struct Book {
    names: Option<HashMap<IpAddr, String>>,
    read_at: Option<Instant>,
}

impl Book {
    /// Adds what is known now, unless that was read a moment ago.
    fn read(&mut self, now: Instant, read: impl FnOnce() -> Vec<(IpAddr, String)>) {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < READ_EVERY;
        if self.read_at.is_some_and(is_fresh) {
            return;
        }
        self.read_at = Some(now);
        let names = self.names.get_or_insert_default();
        for (address, name) in read() {
            if names.len() < ADDRESSES_MAX || names.contains_key(&address) {
                names.insert(address, name);
            }
        }
    }
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
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(of_address(own, loopback).as_deref(), Some("lo"));
        assert_eq!(of_address(own.wrapping_add(1), loopback), None);
        assert_eq!(of_address(own, IpAddr::from([192, 0, 2, 99])), None);
    }

    #[test]
    fn an_address_that_is_gone_keeps_its_interface_and_addresses_are_bounded() {
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let mut book = Book {
            names: None,
            read_at: None,
        };
        let start = Instant::now();
        book.read(start, || vec![(address(1), "wlan0".into())]);
        book.read(start, || panic!("read again at once"));
        let later = start + READ_EVERY;
        book.read(later, || {
            (2..10_000)
                .map(|it| (address(it), "eth0".to_owned()))
                .collect()
        });
        book.read(later + READ_EVERY, || vec![(address(2), "eth1".into())]);
        let names = book.names.unwrap();
        assert_eq!(names[&address(1)], "wlan0");
        assert_eq!(names[&address(2)], "eth1", "it moved");
        assert_eq!(names.len(), ADDRESSES_MAX);
    }
}
