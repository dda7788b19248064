//! Seconds to calendar and back, and the forms in which the registers hold them.

/// Seconds of a day.
pub(super) const DAY_S: i64 = 86_400;

/// A moment as the registers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Moment {
    /// The moment `seconds` after 1970-01-01 00:00:00.
    pub fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
        let (mut year, mut left) = (1970, days);
        // Whole cycles of the Gregorian calendar, then single years.
        year += left.div_euclid(146_097) * 400;
        left = left.rem_euclid(146_097);
        while left >= year_days(year) {
            left -= year_days(year);
            year += 1;
        }
        let mut month = 1;
        while left >= month_days(year, month) {
            left -= month_days(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: left as u8 + 1,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// Seconds since 1970-01-01 00:00:00, or none if there is no such moment.
    pub fn seconds(&self) -> Option<i64> {
        let valid = (1..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && self.day >= 1
            && i64::from(self.day) <= month_days(self.year, self.month)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if !valid {
            return None;
        }
        // Days before a year, counted from year 1; 719162 of them lie before 1970.
        let past = self.year - 1;
        let before_year = past * 365 + past / 4 - past / 100 + past / 400 - 719_162;
        let before_month: i64 = (1..self.month).map(|month| month_days(self.year, month)).sum();
        let days = before_year + before_month + i64::from(self.day) - 1;
        let time = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        Some(days * DAY_S + time)
    }
}

/// The day of the week of a moment, 1 for Sunday.
pub(super) fn weekday(seconds: i64) -> u8 {
    // 1970-01-01 was a Thursday.
    ((seconds.div_euclid(DAY_S) + 4).rem_euclid(7) + 1) as u8
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_days(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_days(year: i64, month: u8) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// How register B says that numbers are held (MC146818 datasheet, "Time, calendar and alarm").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Binary rather than BCD.
    pub binary: bool,
    /// Hours 0 to 23 rather than 1 to 12 with bit 7 for the afternoon.
    pub hours_24: bool,
}

/// Bit 7 of a 12-hour register.
const AFTERNOON: u8 = 0x80;

impl Form {
    /// A number below 100 in a register.
    pub fn encode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }

    /// A register's number; 255 if it holds none.
    pub fn decode(self, register: u8) -> u8 {
        let (tens, units) = (register >> 4, register & 0x0f);
        match self.binary {
            true => register,
            false if tens > 9 || units > 9 => u8::MAX,
            false => tens * 10 + units,
        }
    }

    /// An hour in a register.
    pub fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = (hour + 11) % 12 + 1;
        self.encode(twelve) | if hour >= 12 { AFTERNOON } else { 0 }
    }

    /// A register's hour; 255 if it holds none.
    pub fn decode_hour(self, register: u8) -> u8 {
        if self.hours_24 {
            return self.decode(register);
        }
        match self.decode(register & !AFTERNOON) {
            hour @ 1..=12 => hour % 12 + if register & AFTERNOON == 0 { 0 } else { 12 },
            _ => u8::MAX,
        }
    }
}

/// A time of day at which the alarm goes off; each part may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub hour: Option<u8>,
    pub minute: Option<u8>,
    pub second: Option<u8>,
}

impl Alarm {
    /// The first alarm after the second `after`, or none if no time of day is like that.
    pub fn next(&self, after: i64) -> Option<i64> {
        let fits = |wanted: Option<u8>, value: i64| wanted.is_none_or(|wanted| i64::from(wanted) == value);
        let limits = [(self.hour, 24), (self.minute, 60), (self.second, 60)];
        if limits
            .iter()
            .any(|(part, limit)| part.is_some_and(|part| part >= *limit))
        {
            return None;
        }
        let end = after.checked_add(DAY_S)?;
        let mut at = after.checked_add(1)?;
        // Skips whole hours and minutes: some 150 steps at most.
        while at <= end {
            let time = at.rem_euclid(DAY_S);
            if !fits(self.hour, time / 3600) {
                at += 3600 - time % 3600;
            } else if !fits(self.minute, time / 60 % 60) {
                at += 60 - time % 60;
            } else if !fits(self.second, time % 60) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_and_seconds_agree() {
        let moment = Moment::of(1_709_210_096);
        let parts = (
            moment.year,
            moment.month,
            moment.day,
            moment.hour,
            moment.minute,
            moment.second,
        );
        assert_eq!(parts, (2024, 2, 29, 12, 34, 56));
        assert_eq!(weekday(1_709_210_096), 5, "a Thursday");
        for seconds in (-60_000_000_000..200_000_000_000).step_by(86_399 * 1_001) {
            assert_eq!(Moment::of(seconds).seconds(), Some(seconds));
        }
    }

    #[test]
    fn there_are_no_such_moments() {
        let good = Moment::of(0);
        for bad in [
            Moment { month: 13, ..good },
            Moment {
                month: 2,
                day: 29,
                ..good
            },
            Moment { day: 0, ..good },
            Moment { hour: 24, ..good },
            Moment { second: 255, ..good },
            Moment { year: 25_599, ..good },
        ] {
            assert_eq!(bad.seconds(), None);
        }
    }

    #[test]
    fn registers_hold_numbers_in_four_forms() {
        for binary in [false, true] {
            for hours_24 in [false, true] {
                let form = Form { binary, hours_24 };
                for value in 0..100 {
                    assert_eq!(form.decode(form.encode(value)), value);
                }
                for hour in 0..24 {
                    assert_eq!(form.decode_hour(form.encode_hour(hour)), hour);
                }
            }
        }
        let form = Form {
            binary: false,
            hours_24: false,
        };
        assert_eq!(
            [0, 1, 12, 23].map(|hour| form.encode_hour(hour)),
            [0x12, 0x01, 0x92, 0x91]
        );
        assert_eq!((form.decode(0x1a), form.decode_hour(0x13)), (255, 255));
    }

    #[test]
    fn alarms_find_their_second() {
        let at = |hour, minute, second| Alarm { hour, minute, second };
        assert_eq!(at(None, None, None).next(100), Some(101));
        assert_eq!(at(None, None, Some(0)).next(60), Some(120));
        assert_eq!(at(Some(7), Some(30), Some(0)).next(0), Some(27_000));
        assert_eq!(at(Some(7), Some(30), Some(0)).next(27_000), Some(27_000 + DAY_S));
        assert_eq!(at(None, Some(59), Some(59)).next(3_598), Some(3_599));
        assert_eq!(at(Some(30), None, None).next(0), None);
        assert_eq!(at(None, None, Some(99)).next(0), None);
    }
}
