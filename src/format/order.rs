//! Order keys: every value of a column as an i64 that sorts like it (spec 1.4).
//!
//! Zone maps and indexes hold order keys, so that one comparison serves all types. The
//! order of floats is IEEE 754 totalOrder: -0.0 before +0.0.

/// The order key of a float: rises with the total order.
pub(crate) const fn float_key(value: f64) -> i64 {
    flip(value.to_bits().cast_signed())
}

/// The float of an order key.
pub(crate) const fn float_from_key(key: i64) -> f64 {
    f64::from_bits(flip(key).cast_unsigned())
}

/// Turns the magnitude bits of negative numbers around; its own inverse.
const fn flip(bits: i64) -> i64 {
    bits ^ ((bits >> 63) & i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_like_total_order(a in any::<u64>(), b in any::<u64>()) {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            prop_assert_eq!(float_key(a).cmp(&float_key(b)), a.total_cmp(&b));
            prop_assert_eq!(float_from_key(float_key(a)).to_bits(), a.to_bits());
        }
    }

    #[test]
    fn examples_of_the_spec() {
        assert_eq!(float_key(0.0), 0);
        assert_eq!(float_key(-0.0), -1);
        assert_eq!(float_key(1.0), 0x3FF0_0000_0000_0000);
        assert_eq!(float_key(-1.0), -0x3FF0_0000_0000_0001);
        assert_eq!(float_key(f64::MAX), 0x7FEF_FFFF_FFFF_FFFF);
    }
}
