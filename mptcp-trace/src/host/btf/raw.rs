//! The types in a kernel's BTF. Nothing is copied: one pass records where each type begins, and
//! lookups read it in place.
//!
//! The content is untrusted: every read is checked, and every walk has a limit, so that a truncated
//! or forged file is an error and nothing worse.

pub(super) mod small;

use std::{ffi::CStr, ops::Range};

use anyhow::{Context as _, bail, ensure};

/// The first bytes of a header, without later extensions.
const HEADER_BYTES: usize = 24;
/// Header of every type: name, kind and count, size or type.
const TYPE_BYTES: usize = 12;
/// One member of a structure: name, type, offset.
const MEMBER_BYTES: usize = 12;
/// One parameter of a function: name, type.
const PARAMETER_BYTES: usize = 8;
/// One value of an enumeration: name, number.
const ENUMERATOR_BYTES: usize = 8;

/// Maximum length of a name, bytes (`KSYM_NAME_LEN`); a longer one is ignored.
const NAME_BYTES_MAX: usize = 512;

/// At most this many members are visited per lookup; no kernel needs a tenth of that.
const STEPS_MAX: u32 = 10_000;
/// Maximum nesting of structures and typedefs.
const DEPTH_MAX: u32 = 64;

/// The kinds of types that are distinguished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Enum64,
    Float,
    Func,
    FuncProto,
    Typedef,
    /// `const`, `volatile`, `restrict`, and type tags.
    Qualifier,
    /// A type without size and members.
    Other,
}

impl Kind {
    /// The kind with this number, and the length of the data after the header, bytes.
    fn of(number: u32, count: usize) -> Option<(Self, usize)> {
        Some(match number {
            1 => (Self::Int, 4),
            2 => (Self::Ptr, 0),
            3 => (Self::Array, 12),
            4 => (Self::Struct, count * MEMBER_BYTES),
            5 => (Self::Union, count * MEMBER_BYTES),
            6 => (Self::Enum, count * ENUMERATOR_BYTES),
            // A forward declaration.
            7 => (Self::Other, 0),
            8 => (Self::Typedef, 0),
            9..=11 | 18 => (Self::Qualifier, 0),
            12 => (Self::Func, 0),
            13 => (Self::FuncProto, count * PARAMETER_BYTES),
            // A variable, a data section, and a declaration tag.
            14 | 17 => (Self::Other, 4),
            15 => (Self::Other, count * 12),
            16 => (Self::Float, 0),
            19 => (Self::Enum64, count * 12),
            _ => return None,
        })
    }
}

/// One type, in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    pub(super) kind: Kind,
    name: u32,
    /// Kind, count and flag, packed.
    info: u32,
    /// Its size, or the type that it refers to.
    pub(super) size_or_type: u32,
    /// The data after the header: members, parameters, values.
    rest: &'a [u8],
}

/// Position of a member within its structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At this byte.
    Byte(u32),
    /// From this bit on, with this width in bits.
    Bits(u32, u32),
}

impl Place {
    fn plus(self, inner: Self) -> Option<Self> {
        let Self::Byte(outer) = self else {
            // A bit field has no members.
            return None;
        };
        Some(match inner {
            Self::Byte(inner) => Self::Byte(outer.checked_add(inner)?),
            Self::Bits(bit, width) => Self::Bits(outer.checked_mul(8)?.checked_add(bit)?, width),
        })
    }
}

/// True for the name of `unsigned long`: that of gcc, or that of clang.
pub(super) fn is_unsigned_long(name: &[u8]) -> bool {
    [&b"long unsigned int"[..], b"unsigned long"].contains(&name)
}

/// All types of a kernel. Their ids begin with 1; 0 is `void`.
pub(super) struct Types {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Offset of each type.
    places: Vec<u32>,
}

impl Types {
    /// Records where each type begins.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not BTF, or incomplete.
    pub(super) fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        const MAGIC: [u8; 2] = 0xeb9f_u16.to_le_bytes();
        ensure!(
            bytes.starts_with(&MAGIC),
            "it does not start with the BTF magic number"
        );
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().context("it ends within its header")?;
        let word = |at| word(header, at).context("it ends within its header");
        let base = word(4)?;
        let section = |at: usize| -> anyhow::Result<Range<usize>> {
            let (offset, length) = (word(at)?, word(at + 4)?);
            let begin = base
                .checked_add(offset)
                .context("the start of a section overflows")?;
            let end = begin
                .checked_add(length)
                .context("the end of a section overflows")?;
            let range = begin as usize..end as usize;
            ensure!(
                range.end <= bytes.len(),
                "it ends in the middle of its types"
            );
            Ok(range)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let places = places(&bytes, types)?;
        Ok(Self {
            bytes,
            strings,
            places,
        })
    }

    /// The type with this id.
    pub(super) fn get(&self, number: u32) -> Option<Type<'_>> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        let place = *self.places.get(index)? as usize;
        read(&self.bytes, place)
    }

    /// All types, with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Type<'_>)> {
        (1..).zip(
            self.places
                .iter()
                .filter_map(|place| read(&self.bytes, *place as usize)),
        )
    }

    /// The name of a type; empty if it has none.
    pub(super) fn name(&self, of: &Type<'_>) -> &[u8] {
        self.string(of.name)
    }

    fn string(&self, offset: u32) -> &[u8] {
        let strings = &self.bytes[self.strings.clone()];
        strings
            .get(offset as usize..)
            .map(|from| &from[..from.len().min(NAME_BYTES_MAX)])
            .and_then(|from| CStr::from_bytes_until_nul(from).ok())
            .map(CStr::to_bytes)
            .unwrap_or_default()
    }

    /// Names of a function's parameters, from its prototype.
    pub(super) fn parameters(&self, prototype: u32) -> impl Iterator<Item = &[u8]> {
        let prototype = self.get(prototype).filter(|it| it.kind == Kind::FuncProto);
        let parameters = prototype.map(|it| it.rest).unwrap_or_default();
        parameters
            .chunks_exact(PARAMETER_BYTES)
            .filter_map(|parameter| Some(self.string(word(parameter, 0)?)))
    }

    /// Values and names of an enumeration. Values that do not fit into an `i32` are left out.
    pub(super) fn enumerators(&self, of: &Type<'_>) -> Vec<(i32, String)> {
        if of.kind != Kind::Enum {
            return Vec::new();
        }
        let one = |value: &[u8]| {
            let number = word(value, 4)?;
            let number = match of.flag() {
                true => number.cast_signed(),
                false => i32::try_from(number).ok()?,
            };
            let name = String::from_utf8_lossy(self.string(word(value, 0)?));
            Some((number, name.into_owned()))
        };
        of.rest
            .chunks_exact(ENUMERATOR_BYTES)
            .filter_map(one)
            .collect()
    }

    /// Type and position of `path` (`member.member[INDEX]`) in a structure. Members of an anonymous
    /// structure count as the outer one's.
    ///
    /// # Errors
    ///
    /// Reports what is missing.
    pub(super) fn locate(&self, structure: u32, path: &str) -> anyhow::Result<(u32, Place)> {
        let mut steps = STEPS_MAX;
        let mut at = (structure, Place::Byte(0));
        for word in path.split('.') {
            let (name, indices) = match word.split_once('[') {
                Some((name, indices)) => (name, Some(indices)),
                None => (word, None),
            };
            let (number, place) = self
                .member(at.0, name.as_bytes(), DEPTH_MAX, &mut steps)?
                .with_context(|| format!("it has no member {name}"))?;
            at = (number, at.1.plus(place).context("its offset is too large")?);
            // `0][1]` of `name[0][1]`.
            for index in indices.into_iter().flat_map(|it| it.split('[')) {
                let index = index
                    .strip_suffix(']')
                    .context("an index without closing bracket")?;
                let (number, place) = self.element(at.0, index.parse()?)?;
                at = (number, at.1.plus(place).context("its offset is too large")?);
            }
        }
        Ok(at)
    }

    fn member(
        &self,
        structure: u32,
        name: &[u8],
        depth: u32,
        steps: &mut u32,
    ) -> anyhow::Result<Option<(u32, Place)>> {
        let structure = self.plain(structure)?;
        ensure!(
            matches!(structure.kind, Kind::Struct | Kind::Union),
            "it is not a structure"
        );
        let depth = depth
            .checked_sub(1)
            .context("structures are nested too deeply")?;
        for member in structure.rest.chunks_exact(MEMBER_BYTES) {
            *steps = steps.checked_sub(1).context("there are too many members")?;
            let [Some(its_name), Some(number), Some(offset)] = [0, 4, 8].map(|at| word(member, at))
            else {
                continue;
            };
            if its_name == 0 {
                // Anonymous bit fields have no members.
                let inner = self.member(number, name, depth, steps).ok().flatten();
                if let Some((number, place)) = inner {
                    let outer = member_place(offset, structure.flag())?;
                    let place = outer.plus(place).context("its offset is too large")?;
                    return Ok(Some((number, place)));
                }
            } else if self.string(its_name) == name {
                return Ok(Some((number, member_place(offset, structure.flag())?)));
            }
        }
        Ok(None)
    }

    fn element(&self, array: u32, index: u32) -> anyhow::Result<(u32, Place)> {
        let array = self.plain(array)?;
        ensure!(array.kind == Kind::Array, "it is not an array");
        let (number, count) = array.elements().context("an empty array")?;
        // An array without a length is the flexible end of its structure.
        ensure!(count == 0 || index < count, "it has {count} elements only");
        let offset = self.size(number)?.checked_mul(index.into());
        let offset = offset.and_then(|it| u32::try_from(it).ok());
        Ok((
            number,
            Place::Byte(offset.context("its offset is too large")?),
        ))
    }

    /// Size of a type, bytes.
    ///
    /// # Errors
    ///
    /// Fails for a type without a size.
    pub(super) fn size(&self, number: u32) -> anyhow::Result<u64> {
        let (mut number, mut times) = (number, 1_u64);
        for _ in 0..DEPTH_MAX {
            let it = self.plain(number)?;
            let one = match it.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float => it.size_or_type.into(),
                Kind::Ptr => self.pointer_size()?,
                Kind::Array => {
                    let (element, count) = it.elements().context("an empty array")?;
                    times = times.checked_mul(count.into()).context("it is too large")?;
                    number = element;
                    continue;
                }
                Kind::Func | Kind::FuncProto | Kind::Typedef | Kind::Qualifier | Kind::Other => {
                    bail!("it has no size")
                }
            };
            return times.checked_mul(one).context("it is too large");
        }
        bail!("arrays are nested too deeply")
    }

    /// Pointers are as wide as `unsigned long`, on every machine that Linux runs on.
    fn pointer_size(&self) -> anyhow::Result<u64> {
        self.iter()
            .find(|(_, it)| it.kind == Kind::Int && is_unsigned_long(self.name(it)))
            .map(|(_, it)| it.size_or_type.into())
            .context("the width of a pointer is unknown")
    }

    /// The type without typedefs and qualifiers.
    fn plain(&self, number: u32) -> anyhow::Result<Type<'_>> {
        let mut number = number;
        for _ in 0..DEPTH_MAX {
            let it = self.get(number).context("its type is missing")?;
            if !matches!(it.kind, Kind::Typedef | Kind::Qualifier) {
                return Ok(it);
            }
            number = it.size_or_type;
        }
        bail!("typedefs are nested too deeply")
    }
}

impl Type<'_> {
    /// The kind flag: members may be bit fields, values may be negative.
    fn flag(&self) -> bool {
        self.info >> 31 == 1
    }

    /// Element type and length of an array.
    fn elements(&self) -> Option<(u32, u32)> {
        Some((word(self.rest, 0)?, word(self.rest, 8)?))
    }
}

/// Four bytes as a little-endian number; the magic number has been checked.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn read(bytes: &[u8], at: usize) -> Option<Type<'_>> {
    let (head, rest) = bytes.get(at..)?.split_first_chunk::<TYPE_BYTES>()?;
    let info = word(head, 4)?;
    let (kind, length) = Kind::of(info >> 24 & 0x1f, (info & 0xffff) as usize)?;
    Some(Type {
        kind,
        name: word(head, 0)?,
        info,
        size_or_type: word(head, 8)?,
        rest: rest.get(..length)?,
    })
}

fn places(bytes: &[u8], section: Range<usize>) -> anyhow::Result<Vec<u32>> {
    let types = &bytes[..section.end];
    // A type takes some 30 bytes on average: the vector does not have to grow.
    let mut places = Vec::with_capacity(section.len() / 24);
    let mut at = section.start;
    while at < section.end {
        let it = read(types, at)
            .with_context(|| format!("type {} is of unknown kind or cut off", places.len() + 1))?;
        places.push(u32::try_from(at)?);
        at += TYPE_BYTES + it.rest.len();
    }
    Ok(places)
}

/// Offsets are in bits; with the flag, their upper eight bits are the width of a bit field.
fn member_place(offset: u32, flag: bool) -> anyhow::Result<Place> {
    let (bit, width) = match flag {
        true => (offset & 0x00ff_ffff, offset >> 24),
        false => (offset, 0),
    };
    if width > 0 {
        return Ok(Place::Bits(bit, width));
    }
    ensure!(bit % 8 == 0, "it does not begin with a byte");
    Ok(Place::Byte(bit / 8))
}

#[cfg(test)]
mod tests;
