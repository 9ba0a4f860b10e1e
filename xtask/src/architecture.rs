//! The architectures that programs are built for and kernels are booted on.

use clap::{ValueEnum, builder::PossibleValue};

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    X86_64,
    Aarch64,
}

impl ValueEnum for Architecture {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).aliases([self.debian(), self.triple()]))
    }
}

impl Architecture {
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of this machine.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const HOST: Self = Self::X86_64;
    /// The architecture of this machine.
    #[cfg(target_arch = "aarch64")]
    pub(crate) const HOST: Self = Self::Aarch64;

    /// The name that Rust, RPM and `uname -m` use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Go's name of the architecture whose programs use the kernel's 32-bit system calls.
    pub(crate) const fn go_32(self) -> &'static str {
        match self {
            Self::X86_64 => "386",
            Self::Aarch64 => "arm",
        }
    }

    /// Rust's target, with a C library that can be linked statically.
    pub(crate) const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Name of Debian's directories of libraries and headers.
    pub(crate) const fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}
