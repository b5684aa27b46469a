//! Instruction sets: which this machine has, and which one is used.

use crate::error::{Error, Result};
use std::fmt;
use std::sync::OnceLock;

/// The instruction sets that have kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// An instruction set that this machine has: holding one is the proof that its kernels may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

impl Isa {
    /// The one that runs everywhere.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// All that this machine has, best first.
    pub fn available() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // Of AVX-512, what Ice Lake and Zen 4 have; older ones lack the byte-wise expands.
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vbmi2");
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("popcnt");
            if has_avx512 && has_avx2 {
                all.push(Isa(Level::Avx512));
            }
            if has_avx2 {
                all.push(Isa(Level::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.push(Isa(Level::Neon));
        }
        all.push(Isa::SCALAR);
        all
    }

    /// The one in use: the best, or the one that the environment variable `BIGSMALL_ISA` names.
    ///
    /// # Errors
    /// `Option` if that variable names none of this machine.
    pub fn current() -> Result<Isa> {
        static CURRENT: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        let choice = CURRENT.get_or_init(|| match std::env::var("BIGSMALL_ISA") {
            Err(_) => Ok(Isa::available()[0]),
            Ok(name) => Isa::named(&name).map_err(|e| format!("BIGSMALL_ISA: {}", e.message)),
        });
        choice.clone().map_err(Error::option)
    }

    /// The one with that name.
    ///
    /// # Errors
    /// `Option` if this machine has none of that name.
    pub fn named(name: &str) -> Result<Isa> {
        let all = Isa::available();
        all.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
            Error::option(format!("no instruction set {name:?} on this machine (it has {})", names.join(", ")))
        })
    }

    /// Its name: `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compiles a function, which may be generic over one type, for each instruction set, and calls the one of `isa`. Modules that use it must allow
/// unsafe code.
macro_rules! for_each_isa {
    ($isa:expr, $body:ident $(<$word:ident: $bound:path>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi2,popcnt")]
        fn avx2 $(<$word: $bound>)? ($($arg: $ty),*) $(-> $ret)? { $body $(::<$word>)? ($($arg),*) }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt")]
        fn avx512 $(<$word: $bound>)? ($($arg: $ty),*) $(-> $ret)? { $body $(::<$word>)? ($($arg),*) }
        match $isa.level() {
            // SAFETY: holding an `Isa` of that level proves that the machine has its instructions.
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx2 => unsafe { avx2 $(::<$word>)? ($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx512 => unsafe { avx512 $(::<$word>)? ($($arg),*) },
            // NEON is part of every aarch64 target, so the plain build has it.
            _ => $body $(::<$word>)? ($($arg),*),
        }
    }};
}

pub(crate) use for_each_isa;
