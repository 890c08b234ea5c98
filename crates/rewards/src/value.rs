//! Exact values of written numbers.

use std::cmp::Ordering;

/// A rational number, reduced, with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    /// `numerator / denominator`; `None` for a denominator of 0.
    pub(crate) fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let divisor = i128::try_from(gcd(numerator.unsigned_abs(), denominator.unsigned_abs()));
        let divisor = divisor.ok().filter(|divisor| *divisor != 0)?;
        let sign = match denominator.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => return None,
            Ordering::Greater => 1,
        };
        Some(Self {
            numerator: sign * (numerator / divisor),
            denominator: sign * (denominator / divisor),
        })
    }

    /// An integer.
    pub(crate) fn integer(value: i128) -> Self {
        Self { numerator: value, denominator: 1 }
    }

    pub(crate) fn is_integer(self) -> bool {
        self.denominator == 1
    }

    /// The negated number.
    pub(crate) fn negated(self) -> Option<Self> {
        Some(Self { numerator: self.numerator.checked_neg()?, ..self })
    }

    /// Sum; `None` if it does not fit.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// Product; `None` if it does not fit.
    pub(crate) fn times(self, other: Self) -> Option<Self> {
        Self::new(
            self.numerator.checked_mul(other.numerator)?,
            self.denominator.checked_mul(other.denominator)?,
        )
    }

    /// Quotient; `None` if it does not fit or the divisor is 0.
    pub(crate) fn over(self, other: Self) -> Option<Self> {
        Self::new(
            self.numerator.checked_mul(other.denominator)?,
            self.denominator.checked_mul(other.numerator)?,
        )
    }

    /// Integer power; `None` if it does not fit.
    pub(crate) fn power(self, exponent: i32) -> Option<Self> {
        let size = exponent.unsigned_abs();
        let (numerator, denominator) =
            (self.numerator.checked_pow(size)?, self.denominator.checked_pow(size)?);
        if exponent < 0 {
            Self::new(denominator, numerator)
        } else {
            Self::new(numerator, denominator)
        }
    }

    /// Nearest floating-point number.
    pub(crate) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A written number: its value and whether a percent sign follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) value: Rational,
    pub(crate) is_percent: bool,
}

impl Number {
    /// Whether two numbers mean the same, up to an absolute difference of `tolerance`.
    ///
    /// A percentage equals the same percentage, the number before its sign, and a hundredth of it: 50 %, 50 and 0.5.
    pub(crate) fn equals(self, gold: Self, tolerance: f64) -> bool {
        let near = |a: Rational, b: Rational| {
            let difference = (a.to_f64() - b.to_f64()).abs();
            a == b || (tolerance > 0.0 && difference <= tolerance * (1.0 + 1e-12))
        };
        if near(self.value, gold.value) {
            return true;
        }
        let hundredth = |number: Self| number.value.over(Rational::integer(100));
        match (self.is_percent, gold.is_percent) {
            (true, false) => hundredth(self).is_some_and(|value| near(value, gold.value)),
            (false, true) => hundredth(gold).is_some_and(|gold| near(self.value, gold)),
            (true, true) | (false, false) => false,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value.is_integer() {
            write!(f, "{}", self.value.numerator)?;
        } else {
            write!(f, "{}", self.value.to_f64())?;
        }
        if self.is_percent { f.write_str("%") } else { Ok(()) }
    }
}
