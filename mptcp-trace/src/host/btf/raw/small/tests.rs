use super::{
    super::{Place, tests::made},
    *,
};

/// `struct outer` of [`made`], reduced.
fn reduced() -> Types {
    let is_wanted = |kind, name: &[u8]| {
        let number = (Kind::Int, &b"long unsigned int"[..]);
        [number, (Kind::Struct, b"outer")].contains(&(kind, name))
    };
    Types::new(small(&made().types(), is_wanted).unwrap()).unwrap()
}

#[test]
fn members_stay_where_they_were_and_as_wide() {
    let (whole, small) = (made().types(), reduced());
    let outer = small.iter().find(|(_, it)| small.name(it) == b"outer");
    let (outer, _) = outer.unwrap();
    for (path, bytes) in [
        ("word", 8),
        ("name[3]", 1),
        ("b", 1),
        ("bit", 1),
        ("pair.b", 1),
        ("to", 8),
    ] {
        let (number, place) = small.locate(outer, path).unwrap();
        let (_, in_whole) = whole.locate(5, path).unwrap();
        assert_eq!(place, in_whole, "{path}");
        assert_eq!(small.size(number).unwrap(), bytes, "{path}");
    }
    assert_eq!(
        small.locate(outer, "bit").unwrap().1,
        Place::Bits(259, 1),
        "a bit field is still one"
    );
    assert!(small.locate(outer, "c").is_err());
}

#[test]
fn typedefs_and_what_is_not_wanted_are_left_out() {
    let small = reduced();
    let kinds: Vec<Kind> = small.iter().map(|(_, it)| it.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Int,
            Kind::Int,
            Kind::Array,
            Kind::Struct,
            Kind::Struct,
            Kind::Ptr
        ]
    );
    let nothing = super::small(&made().types(), |_, _| false).unwrap();
    assert_eq!(Types::new(nothing).unwrap().iter().count(), 0);
}

#[test]
fn a_reduced_file_cannot_be_reduced_further() {
    let small = reduced();
    let again = super::small(&small, |kind, _| kind == Kind::Struct || kind == Kind::Int).unwrap();
    assert_eq!(again, small.bytes);
}
