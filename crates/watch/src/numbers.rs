//! Short forms of numbers.

/// `2438616` → `2,438,616`.
pub fn thousands(n: u64) -> String {
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

/// `2_560_000` → `2.56 M`.
pub fn millions(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// `410_000_000` → `0.41 GB`; below a hundredth of a gigabyte in megabytes or kilobytes.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// Seconds as `0:52` or `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A value of a metric in at most seven characters: `3.610`, `0.0125`, `1.7e-3`, `24,913`.
pub(crate) fn value(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 {
        "0".to_owned()
    } else if !x.is_finite() {
        "-".to_owned()
    } else if !(0.01..1e6).contains(&size) {
        format!("{x:.1e}")
    } else if size >= 10_000.0 {
        let sign = if x < 0.0 { "-" } else { "" };
        format!("{sign}{}", thousands(size.round() as u64))
    } else if size >= 100.0 {
        format!("{x:.0}")
    } else if size >= 10.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_short_forms() {
        assert_eq!(thousands(2_438_616), "2,438,616");
        assert_eq!(thousands(999), "999");
        assert_eq!(millions(2_560_000), "2.56 M");
        assert_eq!(bytes(410_000_000), "0.41 GB");
        assert_eq!(clock(52.4), "0:52");
        assert_eq!(clock(3723.0), "1:02:03");
    }

    #[test]
    fn values_are_short() {
        let all = [3.61, 0.0, 0.0017, -12.34, 24_913.0, 345.6, 1e9, f64::NAN, 0.0125, -20_000.0];
        let all: Vec<String> = all.into_iter().map(value).collect();
        assert_eq!(all.join(" "), "3.610 0 1.7e-3 -12.3 24,913 346 1.0e9 - 0.013 -20,000");
    }
}
