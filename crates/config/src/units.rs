//! Amounts of bytes and of time as `dask.utils` reads them, and memory limits of workers.

use crate::error::UnitError;

/// Bytes per unit of size; `unit` in lower case. Single letters are decimal, `ki`, `mi`, … binary.
fn byte_unit(unit: &str) -> Option<f64> {
    let size = match unit {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "pi" | "pib" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(size)
}

/// Seconds per unit of time; `unit` in lower case.
fn time_unit(unit: &str) -> Option<f64> {
    let seconds = match unit {
        "s" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "m" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    };
    Some(seconds)
}

/// A number in the forms Python's `float` accepts (`1_000`, `1e6`, `inf`, blanks around).
#[must_use]
pub fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if !text.contains('_') {
        return text.parse().ok();
    }
    let chars: Vec<char> = text.chars().collect();
    let separates_digits = |index: usize| {
        let digit = |at: Option<usize>| {
            at.and_then(|at| chars.get(at))
                .is_some_and(char::is_ascii_digit)
        };
        digit(index.checked_sub(1)) && digit(index.checked_add(1))
    };
    if chars
        .iter()
        .enumerate()
        .any(|(at, c)| *c == '_' && !separates_digits(at))
    {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Splits trailing letters off.
fn split_unit(text: &str) -> (&str, &str) {
    let number = text.trim_end_matches(char::is_alphabetic);
    text.split_at(number.len())
}

/// Bytes of `5kB`, `1.5 GiB`, `1e6`, `MB`: the rules of `dask.utils.parse_bytes` of all releases.
/// Negative amounts, which stock lets through, are refused.
///
/// # Errors
/// When the number or the unit cannot be read or the amount does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let mut compact = text.replace(' ', "");
    if !compact.chars().any(char::is_numeric) {
        compact.insert(0, '1');
    }
    let (number, unit) = split_unit(&compact);
    let number = parse_number(number).ok_or_else(|| UnitError::Number(number.to_owned()))?;
    let size =
        byte_unit(&unit.to_lowercase()).ok_or_else(|| UnitError::ByteUnit(unit.to_owned()))?;
    whole_bytes(number * size).ok_or_else(|| UnitError::Range(text.to_owned()))
}

/// Truncates to whole bytes; None when negative, not finite or beyond 64 bits.
pub(crate) fn whole_bytes(amount: f64) -> Option<u64> {
    let limit = 2f64.powi(64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    (amount >= 0.0 && amount < limit).then_some(amount as u64)
}

/// Seconds of `500ms`, `2 minutes`, `1h`; `default_unit` applies to bare numbers. The rules of
/// `dask.utils.parse_timedelta` of all releases, with its oddity that an amount must start with a
/// digit: `.5s` reads as `1.5s`, `ms` as `1ms`.
///
/// # Errors
/// When the number or the unit cannot be read.
pub fn parse_timedelta(text: &str, default_unit: &str) -> Result<f64, UnitError> {
    let mut compact = text.replace(' ', "");
    match compact.chars().next() {
        None => return Err(UnitError::Number(text.to_owned())),
        Some(first) if !first.is_numeric() => compact.insert(0, '1'),
        Some(_) => {}
    }
    let (number, unit) = split_unit(&compact);
    let unit = if unit.is_empty() { default_unit } else { unit };
    let number = parse_number(number).ok_or_else(|| UnitError::Number(number.to_owned()))?;
    let seconds =
        time_unit(&unit.to_lowercase()).ok_or_else(|| UnitError::TimeUnit(unit.to_owned()))?;
    Ok(number * seconds)
}

/// What `--memory-limit` of a worker says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// A share of the machine's memory by share of its cores.
    Auto,
    /// No memory management.
    Unlimited,
    /// This part of the machine's memory, at most 1.
    Fraction(f64),
    /// So many bytes.
    Bytes(u64),
}

impl MemoryLimit {
    /// Reads `auto`, `0`, `none`, `0.5`, `4GB`, `10Gi`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::Unlimited);
        }
        match parse_number(text) {
            Some(0.0) => Ok(Self::Unlimited),
            Some(part) if part > 0.0 && part <= 1.0 => Ok(Self::Fraction(part)),
            Some(amount) => whole_bytes(amount)
                .map(Self::Bytes)
                .ok_or_else(|| UnitError::Range(text.to_owned())),
            None => parse_bytes(text).map(|bytes| {
                if bytes == 0 {
                    Self::Unlimited
                } else {
                    Self::Bytes(bytes)
                }
            }),
        }
    }

    /// The limit in bytes of one worker with `nthreads` of `cores` on a machine with `system` bytes;
    /// None: unlimited. Never more than the machine has.
    #[must_use]
    pub fn resolve(self, system: u64, nthreads: u32, cores: u32) -> Option<u64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory sizes need no more than 53 bits"
        )]
        let part_of_system = |part: f64| whole_bytes(system as f64 * part).unwrap_or(system);
        let limit = match self {
            Self::Unlimited => 0,
            Self::Auto => part_of_system((f64::from(nthreads) / f64::from(cores.max(1))).min(1.0)),
            Self::Fraction(part) => part_of_system(part),
            Self::Bytes(bytes) => bytes,
        };
        (limit != 0).then(|| limit.min(system))
    }
}
