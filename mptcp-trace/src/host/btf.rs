//! The kernel's type information: offsets, widths and functions, by name.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use mptcp_trace_common::layout::{
    ABSENT, BIT, KernelLayout, KernelNumbers, MemberSpec, NO_NUMBER, RENAMED,
    SYSCALL_CONTEXT_OFFSET,
};

use super::{Fact, system};

/// The running kernel's own description.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Functions whose description decides about a rung.
const FUNCTIONS: [&str; 20] = [
    "mptcp_getsockopt",
    "tcp_getsockopt",
    "do_tcp_getsockopt",
    "sock_getsockopt",
    "sk_getsockopt",
    "mptcp_setsockopt",
    "mptcp_getsockopt_sol_tcp",
    "__mptcp_try_fallback",
    "mptcp_connect",
    "subflow_state_change",
    "mptcp_syn_options",
    "mptcp_active_detect_blackhole",
    "mptcp_active_disable",
    "mptcp_pm_mp_fail_received",
    "mptcp_subflow_drop_ctx",
    "mptcp_init_sock",
    "mptcp_destroy",
    "mptcp_stream_accept",
    "mptcp_sendmsg",
    "mptcp_recvmsg",
];

/// Tracepoints that a probe may hang on; the kernel has a type of this name with `btf_trace_` before it.
const TRACEPOINTS: [&str; 6] = [
    "inet_sock_set_state",
    "tcp_destroy_sock",
    "subflow_check_data_avail",
    "mptcp_subflow_get_send",
    "sock_send_length",
    "sock_recv_length",
];

/// The enumeration of MPTCP's counters, which also names the causes of fallbacks.
const COUNTERS: &str = "linux_mptcp_mib_field";
/// What the kernel says of a mapping, and what a packet can carry along.
const NUMBERED: [&str; 2] = ["mapping_status", "skb_ext_id"];

/// What the type information says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BtfFacts {
    /// Offsets of the members that the probes read.
    pub layout: KernelLayout,
    /// Members that are missing or of another width, with the reason.
    pub missing: Vec<(String, String)>,
    /// Which of the functions that we ask for are described.
    pub functions: Vec<String>,
    /// Is there a `struct mptcp_sock`?
    pub has_mptcp: bool,
    /// The tracepoints that the probes ask for, as far as they are there.
    pub tracepoints: Vec<String>,
    /// Is `__mptcp_try_fallback` told the cause?
    pub cause_is_told: bool,
    /// Counters of MPTCP by number, with the names of their enumerators.
    pub counters: Vec<(i32, String)>,
    /// Numbers of what the kernel says of a mapping.
    pub numbers: KernelNumbers,
    /// Does the context of syscall tracepoints look as the probes expect?
    pub syscall_context: Fact,
}

impl Default for BtfFacts {
    fn default() -> Self {
        Self {
            layout: KernelLayout::EMPTY,
            missing: Vec::new(),
            functions: Vec::new(),
            has_mptcp: false,
            tracepoints: Vec::new(),
            cause_is_told: false,
            counters: Vec::new(),
            numbers: KernelNumbers::NONE,
            syscall_context: Fact::Unknown("no type information".into()),
        }
    }
}

/// A whole file in memory, as the parser wants it.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(buffer.len()));
        match start
            .zip(end)
            .and_then(|(start, end)| self.0.get(start..end))
        {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(btfparse::Error::new(
                btfparse::ErrorKind::IOError,
                "the file ends in the middle of its types",
            )),
        }
    }
}

/// Reads the running kernel's type information, or `file`.
///
/// # Errors
///
/// Fails if the file cannot be read or is not BTF.
pub fn read(file: Option<&Path>) -> anyhow::Result<BtfFacts> {
    let path = file.unwrap_or(Path::new(KERNEL_BTF));
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(why) if file.is_none() && why.kind() == std::io::ErrorKind::NotFound => bail!(
            "this kernel does not describe its types ({KERNEL_BTF} is missing, CONFIG_DEBUG_INFO_BTF); \
             give its description with --btf FILE (pahole --btf_encode_detached FILE vmlinux)"
        ),
        Err(why) => {
            return Err(why)
                .with_context(|| format!("cannot read type information from {}", path.display()));
        }
    };
    parse(bytes)
        .with_context(|| format!("{} is not the type information of a kernel", path.display()))
}

/// Resolves what the probes need in a BTF blob.
///
/// # Errors
///
/// Fails if the bytes are not BTF.
pub fn parse(bytes: Vec<u8>) -> anyhow::Result<BtfFacts> {
    const MAGIC: [u8; 2] = 0xeb9f_u16.to_le_bytes();
    ensure!(
        bytes.starts_with(&MAGIC),
        "it does not begin with the magic number of BTF"
    );
    let types =
        TypeInformation::new(&Bytes(bytes)).map_err(|why| anyhow::anyhow!("{}", why.message()))?;
    let index = Index::new(&types);
    ensure!(
        index.structs.contains_key("task_struct"),
        "it has no struct task_struct"
    );
    let mut offsets = [ABSENT; KernelLayout::MEMBERS.len()];
    let mut missing = Vec::new();
    for (slot, member) in offsets.iter_mut().zip(KernelLayout::MEMBERS) {
        match index.resolve(member) {
            Ok(offset) => *slot = offset,
            Err(why) => missing.push((member.path.to_owned(), format!("{why:#}"))),
        }
    }
    let layout = KernelLayout::from_offsets(&offsets);
    missing.retain(|(path, _)| !has_other_name(&layout, path));
    let facts = BtfFacts {
        layout,
        missing,
        functions: FUNCTIONS
            .into_iter()
            .filter(|name| index.functions.contains_key(name))
            .map(str::to_owned)
            .collect(),
        tracepoints: index.tracepoints.iter().map(|&it| it.to_owned()).collect(),
        cause_is_told: index.has_parameter("__mptcp_try_fallback", "fb_mib"),
        counters: index.counters.clone(),
        numbers: index.numbers,
        has_mptcp: index.structs.contains_key("mptcp_sock"),
        syscall_context: index.syscall_context(),
    };
    // More than a hundred thousand types: giving them back takes nearly as long as reading them, and nobody
    // has to wait for it.
    std::thread::spawn(move || {
        drop(types);
        system::return_free_memory();
    });
    Ok(facts)
}

/// The types by kind and name: one name can be a structure, a function and a typedef at once.
struct Index<'a> {
    types: &'a TypeInformation,
    structs: HashMap<String, u32>,
    /// With the type of its prototype.
    functions: HashMap<&'static str, u32>,
    tracepoints: Vec<&'static str>,
    counters: Vec<(i32, String)>,
    numbers: KernelNumbers,
}

impl<'a> Index<'a> {
    fn new(types: &'a TypeInformation) -> Self {
        let wanted: Vec<&str> = KernelLayout::MEMBERS
            .iter()
            .filter_map(|member| member.path.split('.').next())
            .chain(["mptcp_sock", "task_struct"])
            .chain(["trace_event_raw_sys_enter", "trace_event_raw_sys_exit"])
            .collect();
        let mut structs = HashMap::new();
        let mut functions = HashMap::new();
        let mut tracepoints = Vec::new();
        let mut counters = Vec::new();
        let mut numbered = Vec::new();
        for (id, variant) in types.get() {
            if let TypeVariant::Struct(it) = variant
                && let Some(name) = it.name().as_deref()
                && wanted.contains(&name)
            {
                structs.entry(name.to_owned()).or_insert(*id);
            } else if let TypeVariant::Func(it) = variant
                && let Some(name) = it.name().as_deref()
                && let Some(name) = FUNCTIONS.into_iter().find(|known| *known == name)
            {
                functions.insert(name, *it.prototype_tid());
            } else if let TypeVariant::Typedef(it) = variant
                && let Some(name) = it.name().as_deref()
                && let Some(name) = name.strip_prefix("btf_trace_")
                && let Some(name) = TRACEPOINTS.into_iter().find(|known| *known == name)
            {
                tracepoints.push(name);
            } else if let TypeVariant::Enum(it) = variant {
                match it.name().as_deref() {
                    Some(COUNTERS) => counters = enumerators(it),
                    Some(name) if NUMBERED.contains(&name) => numbered.extend(enumerators(it)),
                    Some(_) | None => {}
                }
            }
        }
        Self {
            types,
            structs,
            functions,
            tracepoints,
            counters,
            numbers: numbers_among(&numbered),
        }
    }

    /// True if the function is described and has a parameter of this name.
    fn has_parameter(&self, function: &str, parameter: &str) -> bool {
        let prototype = self
            .functions
            .get(function)
            .and_then(|id| self.types.from_id(*id));
        let Some(TypeVariant::FuncProto(prototype)) = prototype else {
            return false;
        };
        prototype
            .parameter_list()
            .iter()
            .any(|it| it.name().as_deref() == Some(parameter))
    }

    /// Offset of a member, if it is there, byte-aligned, and as wide as the probes read.
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
            size == usize::from(member.width),
            "it is {size} bytes wide where {} are read",
            member.width
        );
        let offset = u16::try_from(offset).context("its offset is too large")?;
        ensure!(offset != ABSENT, "its offset is too large");
        Ok(offset)
    }

    /// Offset in bits of a bit field of one bit, or of a `bool` (of which the lowest bit counts).
    fn locate_bit(&self, name: &str, path: &str) -> anyhow::Result<u16> {
        let id = self
            .structs
            .get(name)
            .with_context(|| format!("this kernel has no struct {name}"))?;
        let (member_type, offset) = self
            .types
            .offset_of(*id, path)
            .map_err(|why| anyhow::anyhow!("{}", why.message()))?;
        let bits = match offset {
            Offset::ByteOffset(offset) => {
                let size = self
                    .types
                    .size_of(member_type)
                    .map_err(|why| anyhow::anyhow!("{}", why.message()))?;
                ensure!(size == 1, "it is {size} bytes wide where a bool is read");
                offset * 8
            }
            Offset::BitOffsetAndSize(offset, size) => {
                ensure!(size == 1, "it is {size} bits wide where one is read");
                offset
            }
        };
        let bits = u16::try_from(bits).context("its offset is too large")?;
        ensure!(bits != ABSENT, "its offset is too large");
        Ok(bits)
    }

    /// Byte offset and size of `path` in structure `name`.
    fn locate(&self, name: &str, path: &str) -> anyhow::Result<(u32, usize)> {
        let id = self
            .structs
            .get(name)
            .with_context(|| format!("this kernel has no struct {name}"))?;
        let (member_type, offset) = self
            .types
            .offset_of(*id, path)
            .map_err(|why| anyhow::anyhow!("{}", why.message()))?;
        let Offset::ByteOffset(offset) = offset else {
            bail!("it is a bit field");
        };
        let size = self
            .types
            .size_of(member_type)
            .map_err(|why| anyhow::anyhow!("{}", why.message()))?;
        Ok((offset, size))
    }

    /// The verifier wants literal offsets into the context: compare them with this kernel's.
    fn syscall_context(&self) -> Fact {
        let places = [
            ("trace_event_raw_sys_enter", "args"),
            ("trace_event_raw_sys_exit", "ret"),
        ];
        for (name, member) in places {
            match self.locate(name, member) {
                Ok((offset, _)) if offset as usize == SYSCALL_CONTEXT_OFFSET => {}
                Ok((offset, _)) => {
                    return Fact::No(format!(
                        "{name}.{member} is at {offset} where {SYSCALL_CONTEXT_OFFSET} is expected"
                    ));
                }
                Err(why) => return Fact::No(format!("{name}.{member}: {why:#}")),
            }
        }
        Fact::Yes
    }
}

/// True for a member that this kernel has under its other name.
fn has_other_name(layout: &KernelLayout, path: &str) -> bool {
    let is_there = |name: &&str| {
        let mut members = KernelLayout::MEMBERS.iter().zip(layout.offsets());
        members.any(|(member, offset)| member.path == *name && offset != ABSENT)
    };
    RENAMED
        .iter()
        .any(|names| names.contains(&path) && names.iter().any(is_there))
}

/// Numbers and names of an enumeration.
fn enumerators(it: &btfparse::Enum) -> Vec<(i32, String)> {
    it.named_value_list()
        .iter()
        .filter_map(|named| {
            let value = match named.value {
                btfparse::Integer32Value::Signed(value) => value,
                btfparse::Integer32Value::Unsigned(value) => i32::try_from(value).ok()?,
            };
            Some((value, named.name.clone()))
        })
        .collect()
}

fn numbers_among(enumerators: &[(i32, String)]) -> KernelNumbers {
    KernelNumbers::from_numbers(KernelNumbers::NAMES.map(|name| {
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
        assert_eq!(facts.tracepoints.len(), TRACEPOINTS.len());
        assert!(
            facts
                .counters
                .iter()
                .any(|(_, name)| name == "MPTCP_MIB_MPCAPABLEACTIVEFALLBACK")
        );
        assert_ne!(facts.numbers, KernelNumbers::NONE);
        assert_eq!(facts.syscall_context, Fact::Yes);
    }
}
