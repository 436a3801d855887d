//! A reward expression: compiled or refused with a place in its text, and then finite work.
#![no_main]

use gristmill_fuzz::rule::expression::Expression;
use gristmill_fuzz::{text, watched};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    let names = ["accuracy", "format", "language", "tokens"];
    match watched("compile", || Expression::compile(&text, &names)) {
        Ok(expression) => {
            assert!(expression.uses().iter().all(|&slot| slot < names.len()), "{text:?}");
            assert!(expression.needs().iter().all(|slot| expression.uses().contains(slot)), "{text:?}");
            for slots in [[0.0; 4], [1.0, 0.5, 0.25, 300.0], [f64::NAN, 1.0, 1.0, f64::NAN], [-1e308; 4]] {
                let value = watched("evaluate", || expression.eval(&slots));
                assert_eq!(value.to_bits(), expression.eval(&slots).to_bits(), "{text:?}");
            }
        }
        Err(fault) => {
            assert!(!fault.message.is_empty());
            assert!(fault.span.start <= fault.span.end && fault.span.end <= text.len(), "{text:?}: {fault:?}");
            assert!(text.is_char_boundary(fault.span.start) && text.is_char_boundary(fault.span.end), "{text:?}");
        }
    }
});
