//! A program that reads untrusted files restricts itself before it does (Landlock, `man 7
//! landlock`): a bug in the reader then cannot open other files or connections.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// The newest Landlock ABI in use; rights that an older kernel does not support are left out.
const INTERFACE: ABI = ABI::V5;

/// Files needed for local time.
const TIME_ZONES: [&str; 3] = ["/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"];

/// Device for keys and the window size.
const TERMINAL: &str = "/dev/tty";

/// Restricts this thread, and threads that it creates: it can only open time zones and `reads` for
/// reading, and `writes` and the terminal for writing, and can neither connect nor listen. Open
/// files are unaffected. A directory covers its content; missing paths are skipped.
///
/// On a kernel without Landlock this does nothing: the reader is safe by itself, and this is a
/// second layer.
pub fn enter(reads: &[&Path], writes: &[&Path]) {
    match restrict(reads, writes) {
        Ok(RestrictionStatus {
            ruleset: RulesetStatus::NotEnforced,
            ..
        }) => log::debug!("sandbox: this kernel has no Landlock, or it is disabled (lsm=)"),
        Ok(_enforced) => log::debug!("sandbox: no other files and no network from here on"),
        Err(why) => log::debug!("sandbox: unavailable: {why}"),
    }
}

fn restrict(reads: &[&Path], writes: &[&Path]) -> Result<RestrictionStatus, RulesetError> {
    let (read, all) = (
        AccessFs::from_read(INTERFACE),
        AccessFs::from_all(INTERFACE),
    );
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(INTERFACE))?
        .create()?;
    let zones = TIME_ZONES.iter().map(PathBuf::from);
    let named = std::env::var_os("TZDIR").map(PathBuf::from);
    for path in zones.chain(named) {
        allow(&mut rules, &path, read);
    }
    for path in reads {
        allow(&mut rules, path, read);
    }
    for path in writes.iter().copied().chain([Path::new(TERMINAL)]) {
        allow(&mut rules, path, all);
    }
    rules.restrict_self()
}

/// A missing path, or one of a kind without rules (a pipe), needs no rule.
fn allow(mut rules: &mut RulesetCreated, path: &Path, access: landlock::BitFlags<AccessFs>) {
    let Ok(opened) = PathFd::new(path) else {
        return;
    };
    if let Err(why) = (&mut rules).add_rule(PathBeneath::new(opened, access)) {
        log::debug!("sandbox: no rule for {}: {why}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::ErrorKind,
        net::TcpListener,
        thread,
    };

    use super::*;

    #[test]
    fn only_the_named_paths_are_accessible_inside() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("named");
        let other = folder.path().join("other");
        let output = folder.path().join("output");
        for file in [&named, &other] {
            fs::write(file, "x").unwrap();
        }
        fs::create_dir(&output).unwrap();
        // The restriction of a thread is permanent.
        let inside = thread::spawn(move || {
            let open = File::open(&other).unwrap();
            let status = restrict(&[&named], &[&output]).unwrap();
            if status.ruleset == RulesetStatus::NotEnforced {
                stderr_line!("not tried: this kernel has no Landlock");
                return;
            }
            assert_eq!(fs::read(&named).unwrap(), b"x");
            fs::write(output.join("page"), "y").unwrap();
            fs::rename(output.join("page"), output.join("page.html")).unwrap();
            // Open files are unaffected.
            assert_eq!(open.metadata().unwrap().len(), 1);
            let denied = |what: std::io::Result<()>| {
                assert_eq!(what.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(File::open(&other).map(drop));
            denied(fs::write(&named, "z"));
            denied(File::open("/proc/self/status").map(drop));
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
        });
        inside.join().unwrap();
    }
}
