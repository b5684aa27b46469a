//! Arithmetic of GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, of which 2 is a generator.

const POLYNOMIAL: u16 = 0x11D;
/// Elements but zero.
pub const ORDER: usize = 255;

/// Powers of 2, twice over so that sums of two logarithms need no modulus; and logarithms, of which that of zero means nothing.
const TABLES: ([u8; 2 * ORDER], [u8; 256]) = {
    let (mut powers, mut logs) = ([0; 2 * ORDER], [0; 256]);
    let (mut power, mut i) = (1u16, 0);
    while i < ORDER {
        powers[i] = power as u8;
        powers[i + ORDER] = power as u8;
        logs[power as usize] = i as u8;
        power <<= 1;
        if power > 255 {
            power ^= POLYNOMIAL;
        }
        i += 1;
    }
    (powers, logs)
};

/// 2 to the power of `n`.
pub fn power(n: usize) -> u8 {
    TABLES.0[n % ORDER]
}

/// The product.
pub fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    TABLES.0[TABLES.1[a as usize] as usize + TABLES.1[b as usize] as usize]
}

/// The quotient.
pub fn div(a: u8, b: u8) -> u8 {
    assert!(b != 0, "division by zero");
    if a == 0 {
        return 0;
    }
    TABLES.0[TABLES.1[a as usize] as usize + ORDER - TABLES.1[b as usize] as usize]
}

/// The value of a polynomial, lowest coefficient first.
pub fn value(polynomial: &[u8], x: u8) -> u8 {
    polynomial.iter().rev().fold(0, |sum, &c| mul(sum, x) ^ c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The product by its definition.
    fn product(a: u8, b: u8) -> u8 {
        let mut product = (0..8).filter(|i| b >> i & 1 == 1).fold(0u16, |sum, i| sum ^ (a as u16) << i);
        for i in (8..16).rev() {
            if product >> i & 1 == 1 {
                product ^= POLYNOMIAL << (i - 8);
            }
        }
        product as u8
    }

    #[test]
    fn products_and_quotients_are_those_of_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(mul(a, b), product(a, b));
                if b != 0 {
                    assert_eq!(div(product(a, b), b), a);
                }
            }
        }
    }

    #[test]
    fn two_generates_all_elements() {
        let mut powers: Vec<u8> = (0..ORDER).map(power).collect();
        powers.sort_unstable();
        assert!(powers.into_iter().eq(1..=255));
    }
}
