use super::*;

#[test]
fn integers_and_fractions() {
    let c = MathConfig::default();
    assert_eq!(equivalent("1/2", r"\frac12", &c), Equivalence::Equal);
}
