//! The date that a template can ask for by `strftime_now`; it knows no time zone but UTC.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where `strftime_now` takes its time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The machine's time, in UTC.
    System,
    /// Always this many seconds after 1970-01-01 00:00:00 UTC.
    Fixed(u64),
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment in the proleptic Gregorian calendar.
struct Moment {
    year: u64,
    month: usize,
    day: u64,
    day_of_year: u64,
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Clock {
    fn seconds(self) -> u64 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::System => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            }
        }
    }

    /// Python's `datetime.strftime` for the directives that have a meaning without a locale.
    ///
    /// An unknown directive is left as it stands, as the C library does.
    pub(crate) fn strftime(self, format: &str) -> String {
        let now = Moment::at(self.seconds());
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                // glibc's `-` leaves out the padding.
                Some('-') => {
                    let text = chars.next().map(|d| now.directive(d)).unwrap_or_default();
                    let bare = text.trim_start_matches(['0', ' ']);
                    out.push_str(if bare.is_empty() && !text.is_empty() { "0" } else { bare });
                }
                Some(directive) => out.push_str(&now.directive(directive)),
                None => out.push('%'),
            }
        }
        out
    }
}

impl Moment {
    fn at(seconds: u64) -> Self {
        // Years after 9999 are outside of what Python can write.
        let seconds = seconds.min(253_402_300_799);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut year = 1970;
        let mut day = days;
        while day >= 365 + u64::from(leap(year)) {
            day -= 365 + u64::from(leap(year));
            year += 1;
        }
        let day_of_year = day + 1;
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        for length in lengths {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        Self {
            year,
            month,
            day: day + 1,
            day_of_year,
            weekday: (days % 7) as usize,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    fn directive(&self, directive: char) -> String {
        let name = |names: &[&str], idx: usize| names.get(idx).copied().unwrap_or("").to_owned();
        let short = |text: String| text.chars().take(3).collect::<String>();
        let hour12 = (self.hour + 11) % 12 + 1;
        match directive {
            'Y' => format!("{:04}", self.year),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'f' => "000000".to_owned(),
            'j' => format!("{:03}", self.day_of_year),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => name(&MONTHS, self.month),
            'b' | 'h' => short(name(&MONTHS, self.month)),
            'A' => name(&DAYS, self.weekday),
            'a' => short(name(&DAYS, self.weekday)),
            // 1970-01-01, a Thursday, is index 0 of DAYS; %w counts from Sunday.
            'w' => ((self.weekday + 4) % 7).to_string(),
            'u' => ((self.weekday + 3) % 7 + 1).to_string(),
            'F' => self.all("Y-m-d"),
            'T' | 'X' => self.all("H:M:S"),
            'D' | 'x' => self.all("m/d/y"),
            'R' => self.all("H:M"),
            'c' => self.all("a b e H:M:S Y"),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            // A naive datetime has no zone.
            'Z' | 'z' => String::new(),
            other => format!("%{other}"),
        }
    }

    /// Each letter of `letters` as a directive, other characters as they are.
    fn all(&self, letters: &str) -> String {
        let mut out = String::new();
        for c in letters.chars() {
            let text = if c.is_alphabetic() { self.directive(c) } else { c.to_string() };
            // Writing into a String cannot fail.
            let _ = out.write_str(&text);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // 2025-07-10 12:00:00 UTC, a Thursday.
        let clock = Clock::Fixed(1_752_148_800);
        assert_eq!(clock.strftime("%Y-%m-%d %H:%M:%S"), "2025-07-10 12:00:00");
        assert_eq!(
            clock.strftime("%d %b %Y|%A, %B %d|%-d/%-m|%j %p %I"),
            "10 Jul 2025|Thursday, July 10|10/7|191 PM 12"
        );
        assert_eq!(clock.strftime("%w %u %a 100%% %c"), "4 4 Thu 100% Thu Jul 10 12:00:00 2025");
        assert_eq!(Clock::Fixed(951_782_400).strftime("%F"), "2000-02-29");
        assert_eq!(Clock::Fixed(0).strftime("%F %T %A"), "1970-01-01 00:00:00 Thursday");
    }
}
