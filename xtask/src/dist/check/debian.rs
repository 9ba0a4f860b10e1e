//! Tests the .deb in a fresh Debian tree: it installs, works, and leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{DOCUMENTS, Looked, documents, unit};
use crate::{apt, command, places};

/// The oldest supported Debian.
pub(super) const SUITE: &str = "bookworm";
/// Files that apt, dpkg and rpm maintain. Another step checks whether they still list the package.
const NOT_COMPARED: [&str; 6] = [
    "var/lib/dpkg",
    "var/lib/apt",
    "var/lib/rpm",
    "root/.rpmdb",
    "var/cache",
    "var/log",
];

/// A directory tree with a Debian in it.
pub(super) struct Tree {
    root: PathBuf,
}

/// Installs the package, runs doctor, checks the unit, removes the package, and compares the tree.
pub(super) fn step(looked: &Looked<'_>) -> Result<()> {
    let tree = Tree::fresh(looked)?;
    let before = tree.files()?;
    tree.install(&looked.release.deb())?;
    let outcome = works(looked, &tree);
    tree.run(
        &["dpkg", "--purge", "mptcp-trace"],
        "cannot remove the .deb",
    )?;
    outcome?;
    tree.is_as_it_was(&before)?;
    if tree.run(&["dpkg", "--status", "mptcp-trace"], "").is_ok() {
        bail!("dpkg still lists the package after it was purged");
    }
    Ok(())
}

fn works(looked: &Looked<'_>, tree: &Tree) -> Result<()> {
    for file in [
        "usr/bin/mptcp-trace",
        "usr/share/man/man1/mptcp-trace-doctor.1.gz",
        "usr/share/bash-completion/completions/mptcp-trace",
        "usr/share/doc/mptcp-trace/changelog.Debian.gz",
        "usr/share/doc/mptcp-trace/copyright",
        "usr/share/lintian/overrides/mptcp-trace",
        "etc/mptcp-trace/serve.toml",
    ] {
        if !tree.root.join(file).is_file() {
            bail!("the .deb does not contain /{file}");
        }
    }
    documents::check(&tree.root.join(DOCUMENTS))?;
    let said = tree.run(
        &["mptcp-trace", "doctor"],
        "doctor does not work in a fresh Debian",
    )?;
    if !said.contains("query") || !said.contains("fallback") {
        bail!("doctor does not report the sensors:\n{said}");
    }
    unit::check(looked, &tree.root)
}

impl Tree {
    /// Unpacks an unmodified tree.
    pub(super) fn fresh(looked: &Looked<'_>) -> Result<Self> {
        let base = looked.places.target.join("dist");
        let archive = base.join("debian.tar");
        if !archive.is_file() {
            make(&archive)?;
        }
        let root = base.join("debian");
        places::make_empty(&root)?;
        let mut tar = Command::new("tar");
        tar.arg("-xpf").arg(&archive).arg("-C").arg(&root);
        command::output(&mut tar, "cannot unpack the fresh Debian tree")?;
        Ok(Self { root })
    }

    /// The root directory of the tree.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn install(&self, deb: &Path) -> Result<()> {
        let name = Path::new("tmp/package.deb");
        fs::copy(deb, self.root.join(name)).context("cannot copy the .deb into the tree")?;
        let installed = self.run(
            &["apt-get", "-q", "-y", "install", "/tmp/package.deb"],
            "cannot install the .deb",
        );
        fs::remove_file(self.root.join(name)).context("cannot remove the .deb from the tree")?;
        installed.map(drop)
    }

    /// Runs a program in the tree, with this machine's /proc and /sys, in a temporary mount
    /// namespace.
    pub(super) fn run(&self, argv: &[&str], purpose: &str) -> Result<String> {
        const SCRIPT: &str = "mount -t proc proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && \
                              exec chroot \"$0\" \"$@\"";
        let mut enter = Command::new("unshare");
        enter
            .args([
                "--mount",
                "--propagation",
                "private",
                "--",
                "sh",
                "-c",
                SCRIPT,
            ])
            .arg(&self.root)
            .args(argv)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8");
        command::text(&mut enter, purpose)
    }

    /// All files, with the attributes that reveal a change.
    pub(super) fn files(&self) -> Result<BTreeMap<PathBuf, (u32, u64, PathBuf)>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("cannot list {}", folder.display()))?;
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let name = path.strip_prefix(&self.root)?.to_owned();
                if NOT_COMPARED.iter().any(|not| name.starts_with(not)) {
                    continue;
                }
                let about = path.symlink_metadata()?;
                if about.is_dir() {
                    folders.push(path.clone());
                }
                // The length of a directory depends on its history, not on its content.
                let length = if about.is_dir() { 0 } else { about.len() };
                let target = fs::read_link(&path).unwrap_or_default();
                files.insert(name, (about.mode(), length, target));
            }
        }
        Ok(files)
    }

    /// Fails if files were left behind, removed or changed, and names them.
    pub(super) fn is_as_it_was(
        &self,
        before: &BTreeMap<PathBuf, (u32, u64, PathBuf)>,
    ) -> Result<()> {
        let after = self.files()?;
        let mut differences: Vec<String> = Vec::new();
        for (name, was) in before {
            match after.get(name) {
                None => differences.push(format!("gone: /{}", name.display())),
                Some(is) if is != was => differences.push(format!("changed: /{}", name.display())),
                Some(_) => {}
            }
        }
        let new = after.keys().filter(|name| !before.contains_key(*name));
        differences.extend(new.map(|name| format!("left: /{}", name.display())));
        if !differences.is_empty() {
            bail!("the tree differs from before:\n{}", differences.join("\n"));
        }
        Ok(())
    }
}

/// Creates a Debian tree with apt and systemd, from this machine's mirror and with an apt state of
/// its own.
fn make(archive: &Path) -> Result<()> {
    let (mirror, _security) = apt::mirrors_of_this_machine()?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=minbase"])
        .args(["--include=init-system-helpers,systemd", SUITE])
        .arg(archive)
        .arg(mirror);
    command::output(&mut make, "cannot make a fresh Debian tree")?;
    Ok(())
}

/// Deletes the trees and the archive that they were unpacked from.
pub(super) fn clean(looked: &Looked<'_>) -> Result<()> {
    let base = looked.places.target.join("dist");
    let (tree, archive) = (base.join("debian"), base.join("debian.tar"));
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    if archive.exists() {
        fs::remove_file(&archive)
            .with_context(|| format!("cannot remove {}", archive.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_gone_or_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree {
            root: folder.path().to_owned(),
        };
        let file = |name: &str| folder.path().join(name);
        fs::create_dir_all(file("etc")).unwrap();
        fs::create_dir_all(file("var/log")).unwrap();
        fs::write(file("etc/a"), "1").unwrap();
        fs::write(file("etc/b"), "1").unwrap();
        let before = tree.files().unwrap();
        fs::write(file("var/log/dpkg.log"), "installed").unwrap();
        tree.is_as_it_was(&before).unwrap();
        fs::write(file("etc/a"), "22").unwrap();
        fs::remove_file(file("etc/b")).unwrap();
        fs::write(file("etc/c"), "").unwrap();
        let said = tree.is_as_it_was(&before).unwrap_err().to_string();
        for line in ["changed: /etc/a", "gone: /etc/b", "left: /etc/c"] {
            assert!(said.contains(line), "{said}");
        }
    }
}
