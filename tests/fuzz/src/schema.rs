//! The words of the contract that rules use, from the contract's own files (links), without
//! their Arrow columns.

mod row {
    /// The row struct alone.
    macro_rules! dataset {
        (
            $kind:ident;
            $(#[doc = $struct_doc:literal])*
            pub struct $name:ident {
                $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty $(as $is:ident $(($argument:literal))?)?, )+
            }
        ) => {
            $(#[doc = $struct_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $name { $( $(#[doc = $doc])+ pub $field: $type, )+ }
        };
    }
    pub(crate) use dataset;
}

mod completion;
// What imports alone use of it goes unused here.
#[allow(dead_code)]
mod prompt;
mod verdict;

pub use completion::{Completion, FinishReason};
pub use prompt::{Message, Prompt, Role};
pub use verdict::{Outcome, Score, VerdictRow};
