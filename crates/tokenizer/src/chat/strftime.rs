//! The current date for chat templates, formatted with the codes of Python's `strftime`.

use chrono::format::{DelayedFormat, StrftimeItems};
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

/// Source of the time for a template's `strftime_now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The machine's local time, like Python's `datetime.now()`.
    System,
    /// Seconds after 1970-01-01 00:00:00, without a time zone.
    Fixed(u64),
}

/// Directives that print a number, so a flag can change their padding.
const NUMERIC: &str = "CdegGHIjklmMSuUVwWyY";
/// Directives that print a name or combine other directives.
const TEXT: &str = "aAbBcDFhnpPrRtTxX%";

impl Clock {
    /// Midnight at the start of the machine's present day.
    pub fn today() -> Self {
        Self::midnight(Local::now().date_naive())
    }

    /// Midnight at the start of a day that is written as `2025-11-29`; `None` for other texts.
    pub fn on(date: &str) -> Option<Self> {
        NaiveDate::parse_from_str(date, "%Y-%m-%d").ok().map(Self::midnight)
    }

    fn midnight(date: NaiveDate) -> Self {
        let seconds = date.and_time(NaiveTime::MIN).and_utc().timestamp();
        Self::Fixed(u64::try_from(seconds).unwrap_or(0))
    }

    /// The day, as [`Self::on`] reads it.
    pub fn date(self) -> String {
        self.strftime("%Y-%m-%d")
    }

    fn now(self) -> NaiveDateTime {
        match self {
            Self::System => Local::now().naive_local(),
            // 9999-12-31 23:59:59 is the last time that Python can write.
            Self::Fixed(seconds) => {
                DateTime::from_timestamp(seconds.min(253_402_300_799) as i64, 0)
                    .unwrap_or_default()
                    .naive_utc()
            }
        }
    }

    /// Formats the time like `datetime.now().strftime(format)` in the C locale.
    ///
    /// Unknown directives stay in the text, as in glibc. The time has no zone, so `%z` and `%Z` are
    /// empty. Of glibc's flags, `-` removes padding, `_` and `0` choose it and `^` converts to upper
    /// case.
    pub(crate) fn strftime(self, format: &str) -> String {
        let now = self.now();
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut letter = chars.next();
            let flag = letter.filter(|c| "-_0^".contains(*c));
            if flag.is_some() {
                letter = chars.next();
            }
            match letter.and_then(|letter| expand(now, flag, letter)) {
                Some(text) => out.push_str(&text),
                None => out.extend(['%'].into_iter().chain(flag).chain(letter)),
            }
        }
        out
    }
}

/// One directive as text; None for an unknown one.
fn expand(now: NaiveDateTime, flag: Option<char>, letter: char) -> Option<String> {
    let chrono = |directive: &str| {
        let items = StrftimeItems::new(directive);
        DelayedFormat::new(Some(now.date()), Some(now.time()), items).to_string()
    };
    match letter {
        // Microseconds; chrono's `%f` prints nanoseconds.
        'f' => Some(format!("{:06}", now.nanosecond() / 1000)),
        'z' | 'Z' => Some(String::new()),
        letter if NUMERIC.contains(letter) => {
            let padding = flag.filter(|flag| *flag != '^').map(String::from).unwrap_or_default();
            Some(chrono(&format!("%{padding}{letter}")))
        }
        letter if TEXT.contains(letter) => {
            let text = chrono(&format!("%{letter}"));
            Some(if flag == Some('^') { text.to_uppercase() } else { text })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    /// Expected values: CPython 3 on glibc, `datetime.utcfromtimestamp(seconds).strftime(...)`.
    #[test]
    fn directives_match_python() {
        let format = "%Y-%m-%d %H:%M:%S|%d %b %Y|%A, %B %d|%-d/%-m|%j %p %I|%w %u %a 100%% %c|\
                      %x %X|%U %W %V %G %g|%y %C %e %k %l|%D %F %R %r %T|%f|%Z%z|%n%t|%h|%P|%^a %^B|\
                      %_d %_m %-j %-H %-I %-y";
        for (seconds, expected) in [
            (
                1_752_148_800,
                "2025-07-10 12:00:00|10 Jul 2025|Thursday, July 10|10/7|191 PM 12|4 4 Thu 100% Thu Jul 10 12:00:00 2025|07/10/25 12:00:00|27 27 28 2025 25|25 20 10 12 12|07/10/25 2025-07-10 12:00 12:00:00 PM 12:00:00|000000||\n\t|Jul|pm|THU JULY|10  7 191 12 12 25",
            ),
            (
                951_782_400,
                "2000-02-29 00:00:00|29 Feb 2000|Tuesday, February 29|29/2|060 AM 12|2 2 Tue 100% Tue Feb 29 00:00:00 2000|02/29/00 00:00:00|09 09 09 2000 00|00 20 29  0 12|02/29/00 2000-02-29 00:00 12:00:00 AM 00:00:00|000000||\n\t|Feb|am|TUE FEBRUARY|29  2 60 0 12 0",
            ),
            (
                0,
                "1970-01-01 00:00:00|01 Jan 1970|Thursday, January 01|1/1|001 AM 12|4 4 Thu 100% Thu Jan  1 00:00:00 1970|01/01/70 00:00:00|00 00 01 1970 70|70 19  1  0 12|01/01/70 1970-01-01 00:00 12:00:00 AM 00:00:00|000000||\n\t|Jan|am|THU JANUARY| 1  1 1 0 12 70",
            ),
            (
                1_735_603_199,
                "2024-12-30 23:59:59|30 Dec 2024|Monday, December 30|30/12|365 PM 11|1 1 Mon 100% Mon Dec 30 23:59:59 2024|12/30/24 23:59:59|52 53 01 2025 25|24 20 30 23 11|12/30/24 2024-12-30 23:59 11:59:59 PM 23:59:59|000000||\n\t|Dec|pm|MON DECEMBER|30 12 365 23 11 24",
            ),
            (
                1_136_171_045,
                "2006-01-02 03:04:05|02 Jan 2006|Monday, January 02|2/1|002 AM 03|1 1 Mon 100% Mon Jan  2 03:04:05 2006|01/02/06 03:04:05|01 01 01 2006 06|06 20  2  3  3|01/02/06 2006-01-02 03:04 03:04:05 AM 03:04:05|000000||\n\t|Jan|am|MON JANUARY| 2  1 2 3 3 6",
            ),
        ] {
            assert_eq!(Clock::Fixed(seconds).strftime(format), expected, "{seconds}");
        }
        for format in
            ["", "%", "a%-", "%é", "%Q", "%-Q", "%_", "%N", "%v", "%+", "%.f", "%3f", "%:z"]
        {
            assert_eq!(Clock::Fixed(0).strftime(format), format);
        }
        assert_eq!(Clock::Fixed(0).strftime("%-B %-p %-F %_H"), "January AM 1970-01-01  0");
        assert_eq!(Clock::Fixed(u64::MAX).strftime("%F"), "9999-12-31");
    }

    #[test]
    fn a_day_is_read_as_it_is_written() {
        for date in ["1970-01-01", "2000-02-29", "2025-11-29"] {
            let clock = Clock::on(date).unwrap();
            assert_eq!(clock.date(), date);
            assert_eq!(clock.strftime("%H:%M:%S"), "00:00:00");
        }
        assert_eq!(Clock::on("2025-02-29"), None);
        assert_eq!(Clock::on("today"), None);
        assert_eq!(Clock::today().date(), chrono::Local::now().format("%Y-%m-%d").to_string());
    }

    #[test]
    fn the_system_clock_is_local_time() {
        let before = chrono::Local::now().naive_local();
        let text = Clock::System.strftime("%Y-%m-%d %H:%M:%S");
        let after = chrono::Local::now().naive_local();
        let format = "%Y-%m-%d %H:%M:%S";
        assert!(before.format(format).to_string() <= text, "{text}");
        assert!(text <= after.format(format).to_string(), "{text}");
    }
}
