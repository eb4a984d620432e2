//! The proleptic Gregorian calendar, with day 0 on 2000-01-01.
//!
//! Years are astronomical: 0 is 1 BC, -1 is 2 BC. Cycles of 400 years (146,097 days) are counted from
//! 1 March of year 0, so that the leap day is the last day of a year.

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Astronomical year
    pub year: i32,
    /// 1 to 12
    pub month: i32,
    /// 1 to 31
    pub day: i32,
}

/// Days from 1 March of year 0 to 2000-01-01.
const EPOCH: i64 = 730_425;
/// Days in 400 years.
const CYCLE: i64 = 146_097;

/// Days since 2000-01-01; the day may lie outside its month and then counts on.
pub fn days_from_civil(year: i32, month: i32, day: i32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let from_march = i64::from((month + 9) % 12);
    let cycle = year.div_euclid(400);
    let year_of_cycle = year.rem_euclid(400);
    let day_of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * CYCLE + day_of_cycle - EPOCH
}

/// The calendar day of a number of days since 2000-01-01.
pub fn civil_from_days(days: i64) -> Civil {
    let shifted = days + EPOCH;
    let cycle = shifted.div_euclid(CYCLE);
    let day_of_cycle = shifted.rem_euclid(CYCLE);
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
    Civil { year: year as i32, month: month as i32, day: day as i32 }
}

/// Days in a month of an astronomical year.
pub fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Day of the week of a number of days since 2000-01-01, a Saturday: 0 is Sunday.
pub fn weekday(days: i64) -> i32 {
    (days + 6).rem_euclid(7) as i32
}

/// ISO 8601's year and week of a day.
pub fn iso_week(days: i64) -> (i32, i32) {
    let monday = days - i64::from((weekday(days) + 6) % 7);
    let year = civil_from_days(monday + 3).year;
    let january_4 = days_from_civil(year, 1, 4);
    let first_monday = january_4 - i64::from((weekday(january_4) + 6) % 7);
    (year, ((monday - first_monday) / 7 + 1) as i32)
}

/// Days since 2000-01-01 of the Monday of an ISO week.
pub fn iso_week_monday(year: i32, week: i32) -> i64 {
    let january_4 = days_from_civil(year, 1, 4);
    january_4 - i64::from((weekday(january_4) + 6) % 7) + i64::from(week - 1) * 7
}
