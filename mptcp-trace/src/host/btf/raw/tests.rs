use std::fs;

use super::*;

/// A hand-made blob of types, for cases that no compiler emits.
#[derive(Default)]
pub(super) struct Made {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Made {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) {
        self.types
            .extend(words.into_iter().flat_map(u32::to_le_bytes));
    }

    fn a_type(&mut self, name: &str, kind: u32, flag: bool, count: u32, size_or_type: u32) {
        let name = self.string(name);
        self.words([
            name,
            u32::from(flag) << 31 | kind << 24 | count,
            size_or_type,
        ]);
    }

    fn int(&mut self, name: &str, bytes: u32) {
        self.a_type(name, 1, false, 0, bytes);
        self.words([bytes * 8]);
    }

    /// Members as (name, type, offset in bits, width of a bit field).
    fn structure(&mut self, name: &str, bytes: u32, members: &[(&str, u32, u32, u32)]) {
        let flag = members.iter().any(|(.., width)| *width > 0);
        let count = u32::try_from(members.len()).unwrap();
        self.a_type(name, 4, flag, count, bytes);
        for (name, number, bit, width) in members {
            let name = self.string(name);
            self.words([name, *number, width << 24 | bit]);
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = |section: &[u8]| u32::try_from(section.len()).unwrap();
        let (types, strings) = (length(&self.types), length(&self.strings));
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(
            [24, 0, types, types, strings]
                .into_iter()
                .flat_map(u32::to_le_bytes),
        );
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }

    pub(super) fn types(&self) -> Types {
        Types::new(self.bytes()).unwrap()
    }
}

/// Members of `struct outer`, type 5.
pub(super) fn made() -> Made {
    made_by("long unsigned int")
}

/// The same, with the compiler's name of `unsigned long`.
fn made_by(unsigned_long: &str) -> Made {
    let mut made = Made::new();
    made.int(unsigned_long, 8);
    made.int("unsigned char", 1);
    made.a_type("", 3, false, 0, 0);
    made.words([2, 1, 16]);
    made.structure("", 8, &[("a", 2, 0, 0), ("b", 2, 8, 0)]);
    made.structure(
        "outer",
        40,
        &[
            ("word", 1, 0, 0),
            ("name", 3, 64, 0),
            ("", 4, 192, 0),
            ("bit", 2, 259, 1),
            ("pair", 6, 272, 0),
            ("to", 7, 288, 0),
        ],
    );
    made.a_type("pair_t", 8, false, 0, 4);
    made.a_type("", 2, false, 0, 5);
    made
}

#[test]
fn members_are_where_the_type_says() {
    let types = made().types();
    for (path, place, bytes) in [
        ("word", Place::Byte(0), 8),
        ("name", Place::Byte(8), 16),
        ("name[3]", Place::Byte(11), 1),
        ("a", Place::Byte(24), 1),
        ("b", Place::Byte(25), 1),
        ("bit", Place::Bits(259, 1), 1),
        ("pair", Place::Byte(34), 8),
        ("pair.b", Place::Byte(35), 1),
        ("to", Place::Byte(36), 8),
    ] {
        let (number, found) = types.locate(5, path).unwrap();
        assert_eq!(
            (found, types.size(number).unwrap()),
            (place, bytes),
            "{path}"
        );
    }
}

#[test]
fn a_path_that_does_not_resolve_is_an_error_with_its_reason() {
    let types = made().types();
    for (structure, path, why) in [
        (5, "c", "it has no member c"),
        (5, "word.x", "it is not a structure"),
        (5, "to.word", "it is not a structure"),
        (5, "name[16]", "it has 16 elements only"),
        (5, "name[x]", "invalid digit found in string"),
        (5, "name[1", "an index without closing bracket"),
        (5, "word[0]", "it is not an array"),
        (5, "", "it has no member "),
        (1, "x", "it is not a structure"),
        (99, "x", "its type is missing"),
        (0, "x", "its type is missing"),
    ] {
        let said = format!("{:#}", types.locate(structure, path).unwrap_err());
        assert_eq!(said, why, "{path}");
    }
}

#[test]
fn what_leads_to_itself_ends() {
    let mut made = Made::new();
    made.a_type("me", 8, false, 0, 1);
    made.a_type("", 3, false, 0, 0);
    made.words([2, 1, 0xffff_ffff]);
    // All paths through it are equivalent: there are 2 to the 64th.
    made.structure("", 8, &[("", 3, 0, 0), ("", 3, 0, 0)]);
    let types = made.types();
    for number in 0..5 {
        assert!(types.size(number).is_err() || number == 3);
        assert!(types.locate(number, "x.y[0]").is_err());
    }
}

#[test]
fn a_blob_cut_off_anywhere_is_an_error() {
    let whole = made().bytes();
    for length in 0..whole.len() {
        assert!(Types::new(whole[..length].to_vec()).is_err(), "{length}");
    }
    assert!(Types::new(whole).is_ok());
}

/// Reads everything that can be read.
fn look_at_everything(bytes: Vec<u8>) {
    let Ok(types) = Types::new(bytes) else {
        return;
    };
    for (number, it) in types.iter() {
        let _name = types.name(&it);
        let _values = types.enumerators(&it);
        let _parameters = types.parameters(number).count();
        let _size = types.size(number);
        let _place = types.locate(number, "name[3]");
        let _place = types.locate(number, "pair.b");
    }
}

/// A deterministic random number generator (Marsaglia's xorshift).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 16).unwrap()
}

#[test]
fn bytes_that_were_changed_are_read_without_a_panic() {
    let whole = made().bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(&mut state) % 4 {
            let at = next(&mut state) % bytes.len();
            bytes[at] = next(&mut state).to_le_bytes()[0];
        }
        look_at_everything(bytes);
    }
}

#[test]
fn noise_behind_a_good_header_is_read_without_a_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for _ in 0..20_000 {
        let mut made = Made::new();
        let words: Vec<u32> = (0..next(&mut state) % 64)
            .map(|_| u32::try_from(next(&mut state) & 0x1f1f_000f).unwrap())
            .collect();
        made.words(words);
        made.string("name");
        look_at_everything(made.bytes());
    }
}

#[test]
fn types_of_this_kernel_are_all_read() {
    let Ok(whole) = fs::read(super::super::KERNEL_BTF) else {
        println!("skipped: this kernel does not describe its types");
        return;
    };
    let types = Types::new(whole).unwrap();
    // A kernel has no unknown kinds, and no unnamed functions.
    assert_eq!(types.iter().count(), types.places.len());
    let nameless = |(_, it): &(u32, Type<'_>)| it.kind == Kind::Func && types.name(it).is_empty();
    assert_eq!(types.iter().filter(nameless).count(), 0);
}

#[test]
fn a_pointer_is_as_wide_as_unsigned_long_whatever_the_compiler_calls_that() {
    for (name, width) in [
        ("long unsigned int", Some(8)),
        ("unsigned long", Some(8)),
        ("unsigned int", None),
    ] {
        let types = made_by(name).types();
        let (number, _place) = types.locate(5, "to").unwrap();
        assert_eq!(types.size(number).ok(), width, "{name}");
    }
}
