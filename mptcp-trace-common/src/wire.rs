//! Macros that declare the wire types: plain data on the BPF side. With the feature `bytes`, which
//! userspace enables, they can also be read from bytes and written to bytes.

/// Declares a number with names for its known values.
macro_rules! names {
    (
        $(#[$attribute:meta])*
        $name:ident: $bits:ty { $($(#[$doc:meta])* $value:ident = $number:expr,)* }
    ) => {
        $(#[$attribute])*
        #[cfg_attr(
            feature = "bytes",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name(pub $bits);

        impl $name {
            $($(#[$doc])* pub const $value: Self = Self($number);)*
        }
    };
}

/// Declares a word of flags.
macro_rules! flags {
    (
        $(#[$attribute:meta])*
        $name:ident: $bits:ty { $($(#[$($doc:tt)*])* $flag:ident = $bit:expr,)* }
    ) => {
        $(#[$attribute])*
        #[cfg_attr(
            feature = "bytes",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name($bits);

        bitflags::bitflags! {
            impl $name: $bits {
                $($(#[$($doc)*])* const $flag = 1 << $bit;)*
                // Unknown bits, which a newer version may set, are kept.
                const _ = !0;
            }
        }
    };
}

/// Declares a wire structure.
macro_rules! structure {
    ($(#[$attribute:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$attribute])*
        #[cfg_attr(
            feature = "bytes",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        #[repr(C)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name { $($fields)* }
    };
}

pub(crate) use {flags, names, structure};
