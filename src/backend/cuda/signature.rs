//! What kernels take, read from their sources.
//!
//! A launch hands over untyped addresses: two arguments in the wrong order would be wrong numbers, or memory
//! written by accident. So every launch is compared with the declaration it is for, and on machines without a
//! GPU too, since the sources are in the binary.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::driver::{Arg, Kind, Pointer};
use super::kernels;
use crate::error::{Error, Result};

/// A parameter's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `const T*`.
    In(Kind),
    /// `T*`.
    Out(Kind),
    /// `int`, as [`Arg::Int`].
    Int,
    /// `u32`, as [`Arg::U32`].
    U32,
    /// `u64`, as [`Arg::U64`].
    U64,
    /// `float`, as [`Arg::Float`].
    Float,
}

/// One kernel's declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The file it stands in.
    pub file: &'static str,
    /// Name and type of each parameter.
    pub params: Vec<(&'static str, Type)>,
}

impl Signature {
    /// # Errors
    /// Names the first argument that the kernel does not take there.
    pub fn check(&self, kernel: &str, args: &[Arg]) -> Result<()> {
        let wrong = |what: String| Err(Error::new(format!("a launch of {kernel} (kernels/{}) {what}", self.file)));
        if args.len() != self.params.len() {
            return wrong(format!("has {} arguments of {}", args.len(), self.params.len()));
        }
        for (i, (&(name, expected), arg)) in self.params.iter().zip(args).enumerate() {
            let fits = match (expected, *arg) {
                // What a kernel only reads may be memory that others write.
                (Type::In(kind), Arg::Pointer(Pointer { kind: given, .. })) => kind == given,
                (Type::Out(kind), Arg::Pointer(Pointer { kind: given, mutable, .. })) => kind == given && mutable,
                (Type::Int, Arg::Int(_))
                | (Type::U32, Arg::U32(_))
                | (Type::U64, Arg::U64(_))
                | (Type::Float, Arg::Float(_)) => true,
                _ => false,
            };
            if !fits {
                return wrong(format!("gives {arg:?} for argument {i}, `{name}`, which is {expected:?}"));
            }
        }
        Ok(())
    }
}

/// The declaration of a kernel.
///
/// # Errors
/// Where no file has a kernel of this name.
pub fn signature(kernel: &str) -> Result<&'static Signature> {
    all().get(kernel).ok_or_else(|| Error::new(format!("there is no kernel `{kernel}`")))
}

/// Every kernel by name.
pub fn all() -> &'static BTreeMap<&'static str, Signature> {
    static ALL: OnceLock<BTreeMap<&'static str, Signature>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of = |&(file, text): &(&'static str, &'static str)| {
            kernels::entry_points(text)
                .filter_map(move |name| Some((name, Signature { file, params: parse(parameters(text, name)?)? })))
        };
        kernels::SOURCES.iter().flat_map(of).collect()
    })
}

/// The text between the parentheses of a kernel's declaration, or of the macro that writes it.
fn parameters<'a>(text: &'a str, kernel: &str) -> Option<&'a str> {
    let rest = text.split("extern \"C\" __global__ void").skip(1).find_map(|rest| {
        let rest = match rest.trim_start().strip_prefix("__launch_bounds__(") {
            Some(bounds) => bounds.split_once(')')?.1,
            None => rest,
        };
        let (head, rest) = rest.trim_start().split_once('(')?;
        if head == kernel {
            return Some(rest);
        }
        let first = rest.split([',', ')']).next()?.trim();
        let (_, body) = text.split_once(&format!("#define {head}("))?;
        // The macro's own parameters, then the kernel's, after its name.
        (first == kernel).then(|| body.split_once(')')?.1.split_once('(').map(|(_, rest)| rest)).flatten()
    })?;
    rest.split_once(')').map(|(inside, _)| inside)
}

/// `const act* __restrict__ x, int rows` as names and types.
fn parse(text: &'static str) -> Option<Vec<(&'static str, Type)>> {
    text.split(',')
        .map(|param| {
            let mut words = param.split([' ', '\n', '\\']).filter(|w| !w.is_empty() && *w != "__restrict__").peekable();
            let constant = words.next_if_eq(&"const").is_some();
            let (kind, name) = (words.next()?, words.next()?);
            let found = match (kind, constant) {
                ("int", false) => Type::Int,
                ("u32", false) => Type::U32,
                ("u64", false) => Type::U64,
                ("float", false) => Type::Float,
                (pointer, _) => {
                    let kind = match pointer.strip_suffix('*')? {
                        "act" => Kind::Act,
                        "float" => Kind::F32,
                        "double" => Kind::F64,
                        "u32" => Kind::U32,
                        _ => return None,
                    };
                    if constant { Type::In(kind) } else { Type::Out(kind) }
                }
            };
            words.next().is_none().then_some((name, found))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_every_file_has_a_signature() {
        for (file, text) in kernels::SOURCES {
            for name in kernels::entry_points(text) {
                let found = signature(name).unwrap_or_else(|_| panic!("{file}: {name} is not understood"));
                assert_eq!(&found.file, file);
            }
        }
    }

    #[test]
    fn declarations_are_read_with_and_without_macros() {
        use Kind::{Act, F32, U32};
        let swiglu = signature("swiglu").unwrap();
        assert_eq!(swiglu.params, [("gate_up", Type::In(Act)), ("width", Type::Int), ("out", Type::Out(Act))]);
        let dq = signature("attention_dq_64").unwrap();
        assert_eq!(dq.params.len(), 8);
        assert_eq!(dq.params[4], ("tiles", Type::In(U32)));
        assert_eq!(dq.params[7], ("dqkv", Type::Out(Act)));
        let cached = signature("attention_cached_8").unwrap();
        assert_eq!((cached.params[0], cached.params[10]), (("layer", Type::In(Act)), ("out", Type::Out(Act))));
        let adamw = signature("adamw").unwrap();
        assert_eq!((adamw.params[0], adamw.params[4]), (("value", Type::Out(F32)), ("len", Type::U64)));
    }

    #[test]
    fn a_launch_with_other_arguments_is_refused_by_name() {
        let pointer = |kind, mutable| Arg::Pointer(Pointer { kind, address: 256, bytes: 4, mutable });
        let swiglu = signature("swiglu").unwrap();
        let (read, out) = (pointer(Kind::Act, false), pointer(Kind::Act, true));
        assert!(swiglu.check("swiglu", &[read, Arg::Int(3), out]).is_ok());
        for (args, word) in [
            (&[read, out][..], "2 arguments of 3"),
            (&[read, out, Arg::Int(3)], "`width`"),
            (&[pointer(Kind::F32, false), Arg::Int(3), out], "`gate_up`"),
            (&[read, Arg::Int(3), read], "`out`"),
            (&[read, Arg::U32(3), out], "`width`"),
        ] {
            let said = swiglu.check("swiglu", args).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
