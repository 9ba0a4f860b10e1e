//! The kernel's type information: offsets, widths and functions, by name.

mod raw;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use mptcp_trace_common::layout::{
    ABSENT, Architecture, BIT, KernelLayout, KernelNumbers, MemberSpec, NO_NUMBER, RENAMED,
};

use self::raw::{Kind, Place, Types, small::small};
use crate::probes::{self, alone, function, tracepoint};

/// The running kernel's own BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Maximum size of a BTF file, bytes; more than four times that of any kernel.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Functions whose type, or type id, is needed besides those that a probe may attach to.
fn functions_too() -> impl Iterator<Item = &'static str> {
    let others = [alone::FILES_TYPE, function::REGISTER_FTRACE_DIRECT];
    function::DECOYS.into_iter().chain(others)
}

/// The enumeration of MPTCP counters, whose names are also those of fallback causes.
const COUNTERS: &str = "linux_mptcp_mib_field";
/// Enumerations of the status of a mapping and of packet extensions.
const NUMBERED: [&str; 2] = ["mapping_status", "skb_ext_id"];

/// The member that a kernel with MPTCP for IPv4 only does not have.
const ADDRESS_V6: &str = "mptcp_addr_info.addr6";

/// Facts from the BTF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BtfFacts {
    /// The architecture whose member names were looked up.
    pub architecture: Architecture,
    /// Offsets of the members that the probes read.
    pub layout: KernelLayout,
    /// Members that are missing or of another width, with the reason.
    pub missing: Vec<(String, String)>,
    /// Functions of interest that the BTF describes.
    pub functions: Vec<String>,
    /// Does `struct mptcp_subflow_context` exist? Kernels without MPTCP also have a `struct
    /// mptcp_sock`, an empty one.
    pub has_mptcp: bool,
    /// Tracepoints of interest that exist.
    pub tracepoints: Vec<String>,
    /// Does `__mptcp_try_fallback` take the cause as an argument?
    pub has_cause_parameter: bool,
    /// MPTCP counters by index, with the names of their enumerators.
    pub counters: Vec<(i32, String)>,
    /// Values of the kernel's `mapping_status` and `skb_ext_id`.
    pub numbers: KernelNumbers,
    /// Type ids of functions and typed tracepoints.
    pub function_numbers: BTreeMap<&'static str, u32>,
}

impl Default for BtfFacts {
    fn default() -> Self {
        Self {
            architecture: Architecture::NATIVE,
            layout: KernelLayout::EMPTY,
            missing: Vec::new(),
            functions: Vec::new(),
            has_mptcp: false,
            tracepoints: Vec::new(),
            has_cause_parameter: false,
            counters: Vec::new(),
            numbers: KernelNumbers::NONE,
            function_numbers: BTreeMap::new(),
        }
    }
}

/// Reads the BTF of the running kernel, whose release string is `release`, or `file`.
///
/// # Errors
///
/// Fails if the file cannot be read or is not BTF.
pub fn read(release: &str, file: Option<&Path>) -> anyhow::Result<BtfFacts> {
    let path = file.unwrap_or(Path::new(KERNEL_BTF));
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(why) if file.is_none() && why.kind() == ErrorKind::NotFound => {
            let found = described_in(Path::new("/"), release);
            bail!(how_to_describe(release, found))
        }
        Err(why) => {
            return Err(why)
                .with_context(|| format!("cannot read type information from {}", path.display()));
        }
    };
    parse(bytes)
        .with_context(|| format!("{} is not the type information of a kernel", path.display()))
}

/// What to do about a kernel that does not describe its types. `found`: its debug information.
fn how_to_describe(release: &str, found: Option<PathBuf>) -> String {
    let debug_information = match found {
        Some(file) => format!(
            "{} has the debug information of this kernel",
            file.display()
        ),
        None => format!(
            "first install the debug information of exactly this kernel (Debian: \
             linux-image-{release}-dbg; Ubuntu: linux-image-{release}-dbgsym; Fedora, RHEL: dnf \
             debuginfo-install kernel-core-{release}), which is then in {}",
            Path::new("/").join(debug_file(release)).display()
        ),
    };
    format!(
        "this kernel does not describe its types ({KERNEL_BTF} is missing, CONFIG_DEBUG_INFO_BTF); \
         provide it with --btf FILE. To make FILE: {debug_information}; then type: pahole \
         --btf_encode_detached FILE VMLINUX (package dwarves), where VMLINUX is that file"
    )
}

/// Where distributions' packages install a kernel with its debug information.
fn debug_file(release: &str) -> String {
    format!("usr/lib/debug/lib/modules/{release}/vmlinux")
}

/// A file on this machine with the debug information of a kernel, at one of the usual places below
/// `root`.
fn described_in(root: &Path, release: &str) -> Option<PathBuf> {
    let places = [
        debug_file(release),
        format!("usr/lib/debug/boot/vmlinux-{release}"),
        format!("lib/modules/{release}/build/vmlinux"),
        format!("boot/vmlinux-{release}"),
    ];
    let mut files = places.iter().map(|place| root.join(place));
    files.find(|file| file.is_file())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // The kernel's own file reports its length.
    let length = file.metadata().map_or(0, |it| it.len()).min(FILE_BYTES_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("it is longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Type ids of the running kernel's functions, whatever other file describes its types; empty if it
/// has no BTF.
#[must_use]
pub fn function_numbers() -> BTreeMap<&'static str, u32> {
    let types = fs::read(KERNEL_BTF).ok().map(Types::new);
    match types {
        Some(Ok(types)) => Index::new(&types).numbered_functions(),
        Some(Err(_)) | None => BTreeMap::new(),
    }
}

/// Resolves what the probes need in a BTF blob of the running kernel's architecture.
///
/// # Errors
///
/// Fails if the bytes are not BTF.
pub fn parse(bytes: Vec<u8>) -> anyhow::Result<BtfFacts> {
    parse_for(Architecture::NATIVE, bytes)
}

/// Resolves what the probes need in a BTF blob of a kernel for `architecture`.
///
/// # Errors
///
/// Fails if the bytes are not BTF.
pub fn parse_for(architecture: Architecture, bytes: Vec<u8>) -> anyhow::Result<BtfFacts> {
    let types = Types::new(bytes)?;
    let index = Index::new(&types);
    ensure!(
        index.structs.contains_key(&b"task_struct"[..]),
        "it has no struct task_struct"
    );
    let members = KernelLayout::members(architecture);
    let mut offsets = [ABSENT; KernelLayout::MEMBERS.len()];
    let mut missing = Vec::new();
    for (slot, member) in offsets.iter_mut().zip(members) {
        match index.resolve(&member) {
            Ok(offset) => *slot = offset,
            Err(why) => missing.push((member.path.to_owned(), format!("{why:#}"))),
        }
    }
    let layout = KernelLayout::from_offsets(&offsets);
    missing.retain(|(path, _)| {
        let is_of_ipv6 = super::is_v4_only(&layout) && path == ADDRESS_V6;
        !is_of_ipv6 && !has_other_name(&layout, path)
    });
    Ok(BtfFacts {
        architecture,
        layout,
        missing,
        functions: probes::functions()
            .into_iter()
            .chain([function::REGISTER_FTRACE_DIRECT])
            .filter(|name| index.functions.contains_key(name))
            .map(str::to_owned)
            .collect(),
        tracepoints: index.tracepoints.iter().map(|&it| it.to_owned()).collect(),
        has_cause_parameter: index
            .has_parameter(function::MPTCP_TRY_FALLBACK, function::CAUSE_PARAMETER),
        counters: index.counters.clone(),
        numbers: index.numbers,
        has_mptcp: index.structs.contains_key(&b"mptcp_subflow_context"[..]),
        function_numbers: index.numbered_functions(),
    })
}

/// Reduces a BTF blob to the types that [`parse_for`] looks up, for every architecture: it returns
/// the same facts for both blobs, except for the type ids of functions.
///
/// # Errors
///
/// Fails if the bytes are not the BTF of a kernel.
pub fn reduce(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let types = Types::new(bytes)?;
    let wanted = WantedTypes::new();
    small(&types, |kind, name| wanted.matches(kind, name))
}

/// Types by kind and name: one name can be a structure, a function and a typedef at once.
struct Index<'a> {
    types: &'a Types,
    structs: HashMap<&'static [u8], u32>,
    /// Type ids of the function and of its prototype.
    functions: BTreeMap<&'static str, (u32, u32)>,
    tracepoints: Vec<&'static str>,
    counters: Vec<(i32, String)>,
    numbers: KernelNumbers,
}

impl<'a> Index<'a> {
    fn new(types: &'a Types) -> Self {
        let wanted = WantedTypes::new();
        let mut index = Self {
            types,
            structs: HashMap::new(),
            functions: BTreeMap::new(),
            tracepoints: Vec::new(),
            counters: Vec::new(),
            numbers: KernelNumbers::NONE,
        };
        let mut numbered = Vec::new();
        for (number, it) in types.iter() {
            match it.kind {
                Kind::Struct => {
                    if let Some(name) = wanted.structs.get(types.name(&it)) {
                        index.structs.entry(name.as_bytes()).or_insert(number);
                    }
                }
                Kind::Func => {
                    if let Some(name) = wanted.functions.get(types.name(&it)) {
                        index.functions.insert(name, (number, it.size_or_type));
                    }
                }
                Kind::Typedef => {
                    if let Some(name) = wanted.typed.get(types.name(&it)) {
                        index.functions.insert(name, (number, it.size_or_type));
                    }
                    if let Some(name) = types.name(&it).strip_prefix(b"btf_trace_")
                        && let Some(name) = wanted.tracepoints.get(name)
                    {
                        index.tracepoints.push(name);
                    }
                }
                Kind::Enum => match types.name(&it) {
                    name if name == COUNTERS.as_bytes() => index.counters = types.enumerators(&it),
                    name if NUMBERED.iter().any(|known| known.as_bytes() == name) => {
                        numbered.extend(types.enumerators(&it));
                    }
                    _other => {}
                },
                Kind::Int
                | Kind::Ptr
                | Kind::Array
                | Kind::Union
                | Kind::Enum64
                | Kind::Float
                | Kind::FuncProto
                | Kind::Qualifier
                | Kind::Other => {}
            }
        }
        index.numbers = numbers_among(&numbered);
        index
    }

    /// True if the function is described and has a parameter of this name.
    fn has_parameter(&self, function: &str, parameter: &str) -> bool {
        self.functions.get(function).is_some_and(|(_, prototype)| {
            self.types
                .parameters(*prototype)
                .any(|name| name == parameter.as_bytes())
        })
    }

    fn numbered_functions(&self) -> BTreeMap<&'static str, u32> {
        let number = |(name, (number, _)): (&&'static str, &(u32, u32))| (*name, *number);
        self.functions.iter().map(number).collect()
    }

    /// Offset of a member, if it exists, is byte-aligned, and has the width that the probes read.
    fn resolve(&self, member: &MemberSpec) -> anyhow::Result<u16> {
        let (name, path) = member
            .path
            .split_once('.')
            .context("path without a member")?;
        if member.width == BIT {
            return self.locate_bit(name, path);
        }
        let (offset, size) = self.locate(name, path)?;
        ensure!(
            size == u64::from(member.width),
            "it is {size} bytes wide where {} are read",
            member.width
        );
        let offset = u16::try_from(offset).context("its offset is too large")?;
        ensure!(offset != ABSENT, "its offset is too large");
        Ok(offset)
    }

    /// Offset in bits of a bit field of one bit, or of a `bool` (of which the lowest bit counts).
    fn locate_bit(&self, name: &str, path: &str) -> anyhow::Result<u16> {
        let bits = match self.find(name, path)? {
            (number, Place::Byte(offset)) => {
                let size = self.types.size(number)?;
                ensure!(size == 1, "it is {size} bytes wide where a bool is read");
                offset.checked_mul(8).context("its offset is too large")?
            }
            (_, Place::Bits(offset, size)) => {
                ensure!(size == 1, "it is {size} bits wide where one is read");
                offset
            }
        };
        let bits = u16::try_from(bits).context("its offset is too large")?;
        ensure!(bits != ABSENT, "its offset is too large");
        Ok(bits)
    }

    /// Byte offset and size of `path` in structure `name`.
    fn locate(&self, name: &str, path: &str) -> anyhow::Result<(u32, u64)> {
        let (number, place) = self.find(name, path)?;
        let Place::Byte(offset) = place else {
            bail!("it is a bit field");
        };
        Ok((offset, self.types.size(number)?))
    }

    fn find(&self, name: &str, path: &str) -> anyhow::Result<(u32, Place)> {
        let number = self
            .structs
            .get(name.as_bytes())
            .with_context(|| format!("this kernel has no struct {name}"))?;
        self.types.locate(*number, path)
    }
}

/// The names of interest, with which a hundred thousand types are compared.
struct WantedTypes {
    structs: Names,
    functions: Names,
    tracepoints: Names,
    typed: Names,
}

/// Names by their bytes.
struct Names(HashMap<&'static [u8], &'static str>);

impl Names {
    fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(
            names
                .into_iter()
                .map(|name| (name.as_bytes(), name))
                .collect(),
        )
    }

    fn get(&self, name: &[u8]) -> Option<&'static str> {
        self.0.get(name).copied()
    }
}

impl WantedTypes {
    fn new() -> Self {
        // All architectures read the same structures, but other members.
        let members = KernelLayout::MEMBERS.iter();
        let structs = members
            .filter_map(|member| member.path.split('.').next())
            .chain(["mptcp_subflow_context", "task_struct"]);
        Self {
            structs: Names::new(structs),
            functions: Names::new(probes::functions().into_iter().chain(functions_too())),
            tracepoints: Names::new(probes::tracepoints()),
            typed: Names::new(tracepoint::TYPES),
        }
    }

    /// True for a type that is looked up by name.
    fn matches(&self, kind: Kind, name: &[u8]) -> bool {
        match kind {
            Kind::Struct => self.structs.get(name).is_some(),
            Kind::Func => self.functions.get(name).is_some(),
            Kind::Typedef => {
                let tracepoint = name.strip_prefix(b"btf_trace_");
                self.typed.get(name).is_some()
                    || tracepoint.is_some_and(|it| self.tracepoints.get(it).is_some())
            }
            Kind::Enum => {
                let mut enumerations = [COUNTERS].into_iter().chain(NUMBERED);
                enumerations.any(|known| known.as_bytes() == name)
            }
            // Its size is that of a pointer.
            Kind::Int => raw::is_unsigned_long(name),
            Kind::Ptr
            | Kind::Array
            | Kind::Union
            | Kind::Enum64
            | Kind::Float
            | Kind::FuncProto
            | Kind::Qualifier
            | Kind::Other => false,
        }
    }
}

/// True for a member that this kernel has under its alternative name.
fn has_other_name(layout: &KernelLayout, path: &str) -> bool {
    let is_present = |name: &&str| {
        let mut members = KernelLayout::MEMBERS.iter().zip(layout.offsets());
        members.any(|(member, offset)| member.path == *name && offset != ABSENT)
    };
    RENAMED
        .iter()
        .any(|names| names.contains(&path) && names.iter().any(is_present))
}

fn numbers_among(enumerators: &[(i32, String)]) -> KernelNumbers {
    zerocopy::transmute!(KernelNumbers::NAMES.map(|name| {
        enumerators
            .iter()
            .find(|(_, known)| known == name)
            .and_then(|(number, _)| u8::try_from(*number).ok())
            .unwrap_or(NO_NUMBER)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let why = read("6.1.0", Some(Path::new("/dev/zero"))).unwrap_err();
        assert!(format!("{why:#}").contains("it is longer than"), "{why:#}");
    }

    #[test]
    fn the_debug_information_of_a_kernel_is_named_whether_it_is_installed_or_not() {
        let root = tempfile::tempdir().unwrap();
        let advice =
            || how_to_describe("6.1.0-9-amd64", described_in(root.path(), "6.1.0-9-amd64"));
        let missing = advice();
        for package in ["linux-image-6.1.0-9-amd64-dbg", "kernel-core-6.1.0-9-amd64"] {
            assert!(missing.contains(package), "{missing}");
        }
        assert!(missing.contains("/usr/lib/debug/lib/modules/6.1.0-9-amd64/vmlinux"));
        let file = root.path().join("boot/vmlinux-6.1.0-9-amd64");
        fs::create_dir(root.path().join("boot")).unwrap();
        fs::write(&file, "").unwrap();
        let present = advice();
        assert!(present.contains(file.to_str().unwrap()), "{present}");
        assert!(!present.contains("install"), "{present}");
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        for garbage in [
            &b""[..],
            b"garbage",
            b"\x7fELF",
            &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0],
        ] {
            let why = format!("{:#}", parse(garbage.to_vec()).unwrap_err());
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn a_blob_cut_off_anywhere_is_an_error_and_no_panic() {
        let Ok(whole) = fs::read(KERNEL_BTF) else {
            println!("skipped: {KERNEL_BTF} cannot be read");
            return;
        };
        for length in [1, 8, 24, 25, 1000, whole.len() / 2, whole.len() - 1] {
            // Cutting only the tail of the string section may leave all types readable.
            if parse(whole[..length].to_vec()).is_ok() {
                assert!(
                    length > whole.len() / 2,
                    "{length} bytes were taken for a whole file"
                );
            }
        }
    }

    #[test]
    fn every_member_is_found_on_a_kernel_with_mptcp() {
        let Ok(whole) = fs::read(KERNEL_BTF) else {
            println!("skipped: {KERNEL_BTF} cannot be read");
            return;
        };
        let facts = parse(whole).unwrap();
        if !facts.has_mptcp {
            println!("skipped: this kernel is built without MPTCP");
            return;
        }
        assert_eq!(facts.missing, Vec::new());
        assert_eq!(facts.tracepoints.len(), probes::tracepoints().len());
        assert!(
            facts
                .counters
                .iter()
                .any(|(_, name)| name == "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK")
        );
        assert_ne!(facts.numbers, KernelNumbers::NONE);
    }
}
