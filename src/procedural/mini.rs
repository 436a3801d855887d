//! The tiny-vocabulary family that `r1_mini` trains on: a whole world of about 130 tokens.
//!
//! # Tokens
//! A token is a word, a sign or one digit. Text has one space between words; a
//! number's digits follow each other, so a digit has two forms, with and without a
//! space before it (`▁4`, `2`), and decoding gives the text back exactly.
//!
//! ```text
//! special    <pad> <bos> <eos> <unk>
//! tag        <think> </think> <answer> </answer>
//! sign       ( ) + - * / = , . ? : ! x
//! digit      ▁0 … ▁9 0 … 9
//! word       English and French, no spelling in both; names in neither
//! ```
//!
//! # Prompts (about 14 tokens)
//! ```text
//! expression question   en  what is E ? | compute E . | find the value of E .
//!                       fr  combien font E ? | calcule E . | trouve la valeur de E .
//! equation question     en  solve Q for x . | find x if Q .
//!                       fr  résous Q pour x . | trouve x si Q .
//!
//! family   level  E or Q                                       operands
//! mix      1      ( a ± b ) * c ± d | ( a ± b ) + c ± d        a b ≤ 12, c ≤ 5 or 12, d ≤ 20
//!          2                                                   a b ≤ 20, c ≤ 9 or 20, d ≤ 50
//!          3                                                   a b ≤ 50, c ≤ 9 or 50, d ≤ 99
//!          4                                                   a b ≤ 99, c ≤ 12 or 99, d ≤ 99
//! linear   1      a * x ± b = c                                a 2–12, x b ≤ 99
//!          2      a * x ± b = d * x + c                        a 3–12, d < a, x b ≤ 99
//!          3      a * ( x + e ) ± b = c                        a 2–9, x e ≤ 50, b ≤ 99
//! sum      1–3    a + b                                        2, 3 or 4 digits each
//! total    1–4    a ± b ± c …                                  3 to 6 terms, ≤ 50 (1, 2) or ≤ 99
//! ```
//! No value on the way is negative. [`tasks::space`] counts each space exactly.
//!
//! # Completions (about 30 tokens)
//! ```text
//! <think> first S . then S . next S . thus S . </think> <answer> N </answer>
//! <think> d'abord S . puis S . ensuite S . donc S . </think> <answer> N </answer>
//! ```
//! where each step S is an equation, and the last one ends in the answer. A column
//! addition adds digit by digit, the carry as the last term, then states the sum.
//! An untagged chain is the same without tags, followed by the answer.
//!
//! # Languages
//! Prompts and chains differ in their words alone: [`language_of`] names the
//! language of a word, [`language_consistency`] is the share of a text's
//! words that are in the wanted language.

pub mod base_text;
pub mod general;
pub mod language;
pub mod tasks;
pub mod tokenizer;
mod words;

pub use base_text::{BaseText, Document};
pub use tasks::{Family, Task, space};
pub use tokenizer::{tokenizer_json, vocabulary};
pub use words::{language_consistency, language_of};

/// The completion R1's template asks for: reasoning and answer in their tags.
pub fn tagged(chain: &str, answer: &str) -> String {
    format!("<think> {chain} </think> <answer> {answer} </answer>")
}
