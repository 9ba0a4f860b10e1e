//! The root file system of a virtual machine: static programs, kernel modules, and a job. It
//! contains no distribution and no shell.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder, ModeFileType};
use serde::Serialize;

use crate::{build::StaticPrograms, golang, kernels::Module};

/// The job that init runs. The other side of this contract is the lab's init.
#[derive(Serialize)]
pub(crate) struct Job {
    /// Paths of modules, in load order.
    pub(crate) modules: Vec<String>,
    /// Time limit after which init kills a program.
    pub(crate) timeout_s: u64,
}

/// Path of the lab inside the virtual machine.
pub(crate) const LAB: &str = "/bin/mptcp-lab";
/// Path of the tracer inside the virtual machine.
pub(crate) const TRACER: &str = "/bin/mptcp-trace";

/// Path of the lab's Go program inside the virtual machine, if it was built.
pub(crate) const GO: &str = "/bin/lab-go";
/// The same for the kernel's 32-bit system calls.
const GO_32: &str = "/bin/lab-go-32";

/// Path of the kernel's type information inside the virtual machine, if the kernel itself has none.
pub(crate) const BTF: &str = "/kernel.btf";

/// Path of the directory tree inside the virtual machine, if one was given.
pub(crate) const TREE: &str = "/tree";

/// Writes the archive uncompressed: QEMU loads it quickly, and every kernel can read it.
pub(crate) fn write(
    path: &Path,
    programs: &StaticPrograms,
    modules: &[Module],
    btf: Option<&Path>,
    tree: Option<&Path>,
    timeout_s: u64,
) -> Result<()> {
    let job = Job {
        modules: modules
            .iter()
            .map(|module| module_path(&module.name))
            .collect(),
        timeout_s,
    };
    let mut archive = Archive {
        bytes: Vec::new(),
        inode: 1,
    };
    let written = archive.fill(
        &read(&programs.lab)?,
        &read(&programs.tracer)?,
        &others(programs.go.as_deref(), btf)?,
        modules,
        tree,
        &serde_json::to_vec(&job).context("cannot write the job")?,
    );
    written.context("cannot build the initramfs")?;
    fs::write(path, archive.bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Files that only some machines have, by their paths inside.
fn others(go: Option<&Path>, btf: Option<&Path>) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let narrow = go.map(golang::beside);
    [(GO, go), (GO_32, narrow.as_deref()), (BTF, btf)]
        .into_iter()
        .filter_map(|(inside, file)| Some((inside, file?)))
        .map(|(inside, file)| Ok((inside, read(file)?)))
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn module_path(name: &str) -> String {
    format!("/modules/{name}.ko")
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn fill(
        &mut self,
        lab: &[u8],
        tracer: &[u8],
        others: &[(&str, Vec<u8>)],
        modules: &[Module],
        tree: Option<&Path>,
        job: &[u8],
    ) -> io::Result<()> {
        for directory in ["bin", "dev", "modules", "proc", "run", "sys", "tmp"] {
            self.entry(directory, ModeFileType::Directory, 0o755, b"")?;
        }
        // The kernel opens it as init's console before anything is mounted.
        let console = self.builder("dev/console", ModeFileType::Char, 0o600);
        self.put(console.rdev_major(5).rdev_minor(1), b"")?;
        self.entry(LAB, ModeFileType::Regular, 0o755, lab)?;
        self.entry(TRACER, ModeFileType::Regular, 0o755, tracer)?;
        for (path, content) in others {
            self.entry(path, ModeFileType::Regular, 0o755, content)?;
        }
        self.entry("init", ModeFileType::Symlink, 0o777, LAB.as_bytes())?;
        self.entry("job.json", ModeFileType::Regular, 0o644, job)?;
        for module in modules {
            self.entry(
                &module_path(&module.name),
                ModeFileType::Regular,
                0o644,
                &module.content,
            )?;
        }
        if let Some(tree) = tree {
            self.copy(tree, TREE)?;
        }
        newc::trailer(&mut self.bytes)?;
        Ok(())
    }

    /// Copies a file, a symbolic link, or a directory with all that is in it; leaves out the rest.
    fn copy(&mut self, from: &Path, to: &str) -> io::Result<()> {
        let about = from.symlink_metadata()?;
        let mode = about.permissions().mode() & 0o7777;
        if about.is_dir() {
            self.entry(to, ModeFileType::Directory, mode, b"")?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name
                    .to_str()
                    .ok_or_else(|| io::Error::other("a name is not UTF-8"))?;
                self.copy(&entry.path(), &format!("{to}/{name}"))?;
            }
        } else if about.is_symlink() {
            let target = fs::read_link(from)?;
            self.entry(
                to,
                ModeFileType::Symlink,
                0o777,
                target.as_os_str().as_encoded_bytes(),
            )?;
        } else if about.is_file() {
            self.entry(to, ModeFileType::Regular, mode, &fs::read(from)?)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        kind: ModeFileType,
        mode: u32,
        content: &[u8],
    ) -> io::Result<()> {
        let builder = self.builder(path, kind, mode);
        self.put(builder, content)
    }

    fn builder(&mut self, path: &str, kind: ModeFileType, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(path.trim_start_matches('/'))
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind)
    }

    fn put(&mut self, builder: Builder, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len())
            .map_err(|_| io::Error::other("a file of 4 GiB does not fit into a cpio archive"))?;
        let mut writer = builder.write(&mut self.bytes, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_what_init_expects() {
        let mut archive = Archive {
            bytes: Vec::new(),
            inode: 1,
        };
        let tree = tempfile::tempdir().unwrap();
        let hosts = tree.path().join("etc/hosts");
        fs::create_dir(tree.path().join("etc")).unwrap();
        fs::write(&hosts, "::1 localhost").unwrap();
        fs::set_permissions(&hosts, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("etc", tree.path().join("link")).unwrap();
        let module = Module {
            name: "veth".to_owned(),
            content: b"ko".to_vec(),
        };
        archive
            .fill(
                b"lab",
                b"tracer",
                &[(GO, b"go".to_vec()), (BTF, b"btf".to_vec())],
                &[module],
                Some(tree.path()),
                b"{}",
            )
            .unwrap();
        let mut rest = archive.bytes.as_slice();
        let mut got = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            got.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().unwrap();
        }
        for want in [
            ("bin", 0o040_755),
            ("dev/console", 0o020_600),
            ("bin/mptcp-lab", 0o100_755),
            ("bin/mptcp-trace", 0o100_755),
            ("bin/lab-go", 0o100_755),
            ("init", 0o120_777),
            ("job.json", 0o100_644),
            ("modules/veth.ko", 0o100_644),
            ("kernel.btf", 0o100_755),
            ("tree/etc/hosts", 0o100_640),
            ("tree/link", 0o120_777),
        ] {
            assert!(
                got.contains(&(want.0.to_owned(), want.1)),
                "{want:?} is not in {got:?}"
            );
        }
    }
}
