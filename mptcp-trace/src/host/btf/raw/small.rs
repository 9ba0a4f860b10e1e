//! Writes a subset of a kernel's types to a BTF file of their own.
//!
//! A structure keeps all of its members, and the types embedded in it. Targets of pointers are left
//! out: all pointers become `void *`. Typedefs and qualifiers of members are left out too, since no
//! offset or size depends on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, bail};

use super::{
    DEPTH_MAX, ENUMERATOR_BYTES, HEADER_BYTES, Kind, MEMBER_BYTES, PARAMETER_BYTES, Type, Types,
    word,
};

/// A value of an `enum64`: name, lower and upper half.
const ENUMERATOR_64_BYTES: usize = 12;

/// The wanted types and those embedded in them, as the bytes of a BTF file.
///
/// Types keep their order, so that a lookup finds the same one of two with the same name.
///
/// # Errors
///
/// Fails if a wanted type refers to a missing one.
pub(in crate::host::btf) fn small(
    types: &Types,
    is_wanted: impl Fn(Kind, &[u8]) -> bool,
) -> anyhow::Result<Vec<u8>> {
    let kept = kept(types, is_wanted)?;
    let numbers = kept.iter().copied().zip(1..).collect();
    let mut writer = Writer::new(types, numbers);
    for number in kept {
        let it = types.get(number).context("a type is missing")?;
        writer.write(&it)?;
    }
    writer.file()
}

/// Ids of the wanted types, and of those embedded in them.
fn kept(types: &Types, is_wanted: impl Fn(Kind, &[u8]) -> bool) -> anyhow::Result<BTreeSet<u32>> {
    let wanted = types
        .iter()
        .filter(|(_, it)| is_wanted(it.kind, types.name(it)));
    let mut open: Vec<u32> = wanted.map(|(number, _)| number).collect();
    let mut kept = BTreeSet::new();
    while let Some(number) = open.pop() {
        if kept.insert(number) {
            let it = types.get(number).context("a type is missing")?;
            for inner in inside(&it) {
                open.extend(bare(types, inner)?);
            }
        }
    }
    Ok(kept)
}

/// Ids of the types that a type embeds. The target of a pointer is not embedded.
fn inside(it: &Type<'_>) -> Vec<u32> {
    let each = |bytes: usize| {
        let parts = it.rest.chunks_exact(bytes);
        parts.filter_map(|part| word(part, 4)).collect()
    };
    match it.kind {
        Kind::Array => [0, 4]
            .into_iter()
            .filter_map(|at| word(it.rest, at))
            .collect(),
        Kind::Struct | Kind::Union => each(MEMBER_BYTES),
        Kind::FuncProto => {
            let mut parts: Vec<u32> = each(PARAMETER_BYTES);
            parts.push(it.size_or_type);
            parts
        }
        Kind::Func | Kind::Typedef | Kind::Qualifier => vec![it.size_or_type],
        Kind::Int | Kind::Ptr | Kind::Enum | Kind::Enum64 | Kind::Float | Kind::Other => Vec::new(),
    }
}

/// The id of a type without typedefs and qualifiers; `None` for `void`, and for a type without a
/// size.
fn bare(types: &Types, number: u32) -> anyhow::Result<Option<u32>> {
    let mut number = number;
    for _ in 0..DEPTH_MAX {
        if number == 0 {
            return Ok(None);
        }
        let it = types
            .get(number)
            .context("it leads to a type that is missing")?;
        match it.kind {
            Kind::Typedef | Kind::Qualifier => number = it.size_or_type,
            Kind::Other => return Ok(None),
            Kind::Ptr => return Ok(first_pointer(types)),
            Kind::Int
            | Kind::Array
            | Kind::Struct
            | Kind::Union
            | Kind::Enum
            | Kind::Enum64
            | Kind::Float
            | Kind::Func
            | Kind::FuncProto => return Ok(Some(number)),
        }
    }
    bail!("typedefs are nested too deeply")
}

/// The pointer type that represents all of them.
fn first_pointer(types: &Types) -> Option<u32> {
    let mut all = types.iter();
    all.find_map(|(number, it)| (it.kind == Kind::Ptr).then_some(number))
}

/// The sections of the file under construction.
struct Writer<'a> {
    types: &'a Types,
    /// The new id of each kept type, by its old one.
    numbers: BTreeMap<u32, u32>,
    section: Vec<u8>,
    strings: Vec<u8>,
    /// Offset of each string.
    places: HashMap<Vec<u8>, u32>,
}

impl<'a> Writer<'a> {
    fn new(types: &'a Types, numbers: BTreeMap<u32, u32>) -> Self {
        Self {
            types,
            numbers,
            section: Vec::new(),
            strings: vec![0],
            places: HashMap::from([(Vec::new(), 0)]),
        }
    }

    fn write(&mut self, it: &Type<'_>) -> anyhow::Result<()> {
        let name = self.string(it.name)?;
        let size_or_type = match it.kind {
            Kind::Ptr => 0,
            Kind::Func | Kind::FuncProto | Kind::Typedef | Kind::Qualifier => {
                self.number(it.size_or_type)?
            }
            Kind::Int
            | Kind::Array
            | Kind::Struct
            | Kind::Union
            | Kind::Enum
            | Kind::Enum64
            | Kind::Float
            | Kind::Other => it.size_or_type,
        };
        self.words([name, it.info, size_or_type]);
        match it.kind {
            Kind::Array => self.array(it.rest),
            Kind::Struct | Kind::Union => self.named_parts(it.rest, MEMBER_BYTES, true),
            Kind::FuncProto => self.named_parts(it.rest, PARAMETER_BYTES, true),
            Kind::Enum => self.named_parts(it.rest, ENUMERATOR_BYTES, false),
            Kind::Enum64 => self.named_parts(it.rest, ENUMERATOR_64_BYTES, false),
            Kind::Int
            | Kind::Ptr
            | Kind::Float
            | Kind::Func
            | Kind::Typedef
            | Kind::Qualifier
            | Kind::Other => {
                self.section.extend(it.rest);
                Ok(())
            }
        }
    }

    /// Element type, index type, and length.
    fn array(&mut self, rest: &[u8]) -> anyhow::Result<()> {
        let [element, index, count] = [0, 4, 8].map(|at| word(rest, at));
        let (element, index) = element.zip(index).context("an empty array")?;
        let words = [
            self.number(element)?,
            self.number(index)?,
            count.unwrap_or(0),
        ];
        self.words(words);
        Ok(())
    }

    /// Parts that begin with a name: members and parameters, whose second word is a type, and
    /// values, whose second word is not.
    fn named_parts(&mut self, rest: &[u8], bytes: usize, has_type: bool) -> anyhow::Result<()> {
        for part in rest.chunks_exact(bytes) {
            let (name, second) = word(part, 0).zip(word(part, 4)).context("half a member")?;
            let second = if has_type {
                self.number(second)?
            } else {
                second
            };
            let name = self.string(name)?;
            self.words([name, second]);
            self.section.extend(&part[8..]);
        }
        Ok(())
    }

    /// The new id of a referenced type.
    fn number(&self, old: u32) -> anyhow::Result<u32> {
        let Some(old) = bare(self.types, old)? else {
            return Ok(0);
        };
        let new = self.numbers.get(&old);
        new.copied().context("a type was dropped")
    }

    /// The new offset of a string.
    fn string(&mut self, old: u32) -> anyhow::Result<u32> {
        let text = self.types.string(old);
        if let Some(place) = self.places.get(text) {
            return Ok(*place);
        }
        let place = u32::try_from(self.strings.len())?;
        self.places.insert(text.to_owned(), place);
        self.strings.extend(text);
        self.strings.push(0);
        Ok(place)
    }

    fn words<const N: usize>(&mut self, words: [u32; N]) {
        self.section
            .extend(words.into_iter().flat_map(u32::to_le_bytes));
    }

    fn file(self) -> anyhow::Result<Vec<u8>> {
        // Magic number, version 1, no flags.
        let mut file = vec![0x9f, 0xeb, 1, 0];
        let types = u32::try_from(self.section.len())?;
        let strings = u32::try_from(self.strings.len())?;
        let header = u32::try_from(HEADER_BYTES)?;
        let sections = [header, 0, types, types, strings];
        file.extend(sections.into_iter().flat_map(u32::to_le_bytes));
        file.extend(self.section);
        file.extend(self.strings);
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
