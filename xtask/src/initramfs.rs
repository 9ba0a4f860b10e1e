//! The root file system of a virtual machine: static programs, kernel modules, and a job. It
//! contains no distribution and no shell.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder, ModeFileType};
use serde::Serialize;

use crate::{build::StaticPrograms, kernels::Module};

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

/// Writes the archive uncompressed: QEMU loads it quickly, and every kernel can read it.
pub(crate) fn write(
    path: &Path,
    programs: &StaticPrograms,
    modules: &[Module],
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
        programs.go.as_deref().map(read).transpose()?.as_deref(),
        modules,
        &serde_json::to_vec(&job).context("cannot write the job")?,
    );
    written.context("cannot build the initramfs")?;
    fs::write(path, archive.bytes).with_context(|| format!("cannot write {}", path.display()))
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
        go: Option<&[u8]>,
        modules: &[Module],
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
        if let Some(go) = go {
            self.entry(GO, ModeFileType::Regular, 0o755, go)?;
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
        newc::trailer(&mut self.bytes)?;
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
        let module = Module {
            name: "veth".to_owned(),
            content: b"ko".to_vec(),
        };
        archive
            .fill(b"lab", b"tracer", Some(b"go"), &[module], b"{}")
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
        ] {
            assert!(
                got.contains(&(want.0.to_owned(), want.1)),
                "{want:?} is not in {got:?}"
            );
        }
    }
}
