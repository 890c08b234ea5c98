//! Short forms of numbers.

/// A measured value with about four significant digits; `–` for none.
pub(crate) fn value(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "not a number".to_owned();
    }
    // Zero in every form of it.
    if size == 0.0 {
        return "0".to_owned();
    }
    if size < 1e-3 {
        return format!("{value:.2e}");
    }
    if size >= 10_000.0 {
        let sign = if value < 0.0 { "−" } else { "" };
        return format!("{sign}{}", thousands(size.round() as u64));
    }
    let decimals = match size {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        _ => 4,
    };
    minus(&format!("{value:.decimals$}"))
}

/// A tick of an axis whose ticks are `step` apart.
pub(crate) fn tick(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step * 1e-6 {
        return "0".to_owned();
    }
    if step < 5e-4 {
        // As many digits as the distance to the next tick needs.
        let digits = (size.log10().floor() - step.log10().floor()).clamp(0.0, 8.0) as usize;
        return minus(&format!("{value:.digits$e}"));
    }
    if size >= 1e6 && step >= 1e5 {
        return minus(&format!("{}M", trimmed(value / 1e6)));
    }
    if size >= 1e4 && step >= 1e2 {
        return minus(&format!("{}k", trimmed(value / 1e3)));
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    minus(&format!("{value:.decimals$}"))
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A number with a true minus sign.
fn minus(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None => text.to_owned(),
    }
}

/// `2438616` → `2,438,616`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun, in the plural unless the number is 1.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// `2_560_000` → `2.56 M`.
pub(crate) fn millions(n: u64) -> String {
    match n {
        0..10_000 => thousands(n),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// `410_000_000` → `0.41 GB`.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{} B", thousands(n)),
        10_000..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// Seconds as `0:52` or `1:02:03`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// Floating-point operations, as in `1.250 TFLOP`.
pub(crate) fn operations(flops: f64) -> String {
    let units = [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")];
    let unit = units.into_iter().find(|(size, _)| flops >= *size).unwrap_or((1e6, "MFLOP"));
    format!("{} {}", value(flops / unit.0), unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_about_four_digits() {
        let of = [0.0, 0.0005, 0.12345, -1.23456, 12.3456, 123.456, 1234.5, 24_913.0, f64::NAN];
        let shown = of.map(value);
        assert_eq!(
            shown,
            [
                "0",
                "5.00e-4",
                "0.1235",
                "−1.235",
                "12.35",
                "123.5",
                "1234",
                "24,913",
                "not a number"
            ]
        );
    }

    #[test]
    fn ticks_have_the_digits_that_their_distance_needs() {
        assert_eq!(tick(0.5, 0.25), "0.5");
        assert_eq!(tick(0.25, 0.05), "0.25");
        assert_eq!(tick(-2.0, 1.0), "−2");
        assert_eq!(tick(25_000.0, 5_000.0), "25k");
        assert_eq!(tick(0.0002, 0.0002), "2e-4");
        assert_eq!(tick(0.00095, 0.00005), "9.5e-4");
        assert_eq!(tick(1_500_000.0, 500_000.0), "1.5M");
    }
}
