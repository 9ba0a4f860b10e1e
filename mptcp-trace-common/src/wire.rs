//! How the types of the wire are declared: plain data for the half in the kernel, and for the half
//! in userspace also readable from bytes and writable to bytes (feature `bytes`).

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
                // Newer versions may set more: they are kept.
                const _ = !0;
            }
        }
    };
}

/// Declares a structure of the wire.
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
