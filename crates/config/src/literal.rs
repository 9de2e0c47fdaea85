//! Values of `DASK_*` variables: Python literals where they parse, text where not.
//!
//! Accepts what `ast.literal_eval` accepts except bytes, complex numbers, `...` and f-strings, which no
//! configuration key takes; those stay text.

use std::collections::HashSet;

use crate::value::{ConfigMap, ConfigValue};

/// Brackets within brackets; Python itself stops at 200.
const MAX_DEPTH: usize = 100;

/// The value of a `DASK_*` variable: a Python literal, or (releases ≥ 2022) `none`, `null`, `true`,
/// `false` in any case, or else the text itself.
#[must_use]
pub fn interpret_value(text: &str) -> ConfigValue {
    if let Some(value) = Parser::new(text).parse_all() {
        return value;
    }
    match text.to_lowercase().as_str() {
        "none" | "null" => ConfigValue::None,
        "true" => ConfigValue::Bool(true),
        "false" => ConfigValue::Bool(false),
        _ => ConfigValue::Str(text.to_owned()),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// Open brackets: within them line ends are blanks.
    depth: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Self {
            chars: text.trim_start_matches([' ', '\t']).chars().collect(),
            at: 0,
            depth: 0,
        }
    }

    fn parse_all(mut self) -> Option<ConfigValue> {
        let first = self.value()?;
        self.blanks();
        // A comma outside brackets makes a tuple: `1, 2`.
        let value = if self.peek() == Some(',') {
            self.bare_tuple(first)?
        } else {
            first
        };
        loop {
            self.blanks();
            match self.next() {
                None => return Some(value),
                Some('\n' | '\r') => {}
                Some(_) => return None,
            }
        }
    }

    fn bare_tuple(&mut self, first: ConfigValue) -> Option<ConfigValue> {
        let mut items = vec![first];
        while self.peek() == Some(',') {
            self.at += 1;
            self.blanks();
            if matches!(self.peek(), None | Some('\n' | '\r')) {
                break;
            }
            items.push(self.value()?);
            self.blanks();
        }
        Some(ConfigValue::List(items))
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn eat(&mut self, word: &str) -> bool {
        let end = self.at + word.chars().count();
        let found = self
            .chars
            .get(self.at..end)
            .is_some_and(|c| c.iter().copied().eq(word.chars()));
        if found {
            self.at = end;
        }
        found
    }

    /// Skips blanks, comments, and line ends within brackets.
    fn blanks(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\x0c' => self.at += 1,
                '\n' | '\r' if self.depth > 0 => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                '\\' if self.chars.get(self.at + 1) == Some(&'\n') => self.at += 2,
                _ => break,
            }
        }
    }

    fn value(&mut self) -> Option<ConfigValue> {
        self.blanks();
        match self.peek()? {
            '[' => self
                .bracketed(']')
                .map(|(items, _)| ConfigValue::List(items)),
            '(' => self.parenthesised(),
            '{' => self.braced(),
            '\'' | '"' => self.strings(),
            '+' | '-' => self.signed(),
            c if c.is_ascii_digit() || c == '.' => self.number(),
            _ => self.word(),
        }
    }

    /// Items up to `close`; and whether a comma was seen.
    fn bracketed(&mut self, close: char) -> Option<(Vec<ConfigValue>, bool)> {
        self.open()?;
        let (mut items, mut comma) = (Vec::new(), false);
        loop {
            self.blanks();
            if self.peek()? == close {
                self.close();
                return Some((items, comma));
            }
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.value()?);
            self.blanks();
            comma = self.comma(close)?;
        }
    }

    /// After an item: true for a comma, false for the closing bracket (left in place).
    fn comma(&mut self, close: char) -> Option<bool> {
        match self.peek()? {
            ',' => {
                self.at += 1;
                Some(true)
            }
            c if c == close => Some(false),
            _ => None,
        }
    }

    fn open(&mut self) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    fn parenthesised(&mut self) -> Option<ConfigValue> {
        let (mut items, comma) = self.bracketed(')')?;
        if items.len() == 1 && !comma {
            items.pop()
        } else {
            Some(ConfigValue::List(items))
        }
    }

    /// A dictionary, or a set, which the first item decides.
    fn braced(&mut self) -> Option<ConfigValue> {
        self.open()?;
        self.blanks();
        if self.peek()? == '}' {
            self.close();
            return Some(ConfigValue::Map(ConfigMap::new()));
        }
        let first = self.value()?;
        self.blanks();
        if self.peek()? == ':' {
            self.dict(&first)
        } else {
            self.set(first)
        }
    }

    /// The rest of a dictionary after its first key.
    fn dict(&mut self, first: &ConfigValue) -> Option<ConfigValue> {
        let mut map = ConfigMap::new();
        let mut key = key_text(first)?;
        loop {
            self.blanks();
            if self.next()? != ':' {
                return None;
            }
            map.insert(key, self.value()?);
            self.blanks();
            let comma = self.comma('}')?;
            self.blanks();
            if self.peek()? == '}' {
                self.close();
                return Some(ConfigValue::Map(map));
            }
            if !comma {
                return None;
            }
            key = key_text(&self.value()?)?;
        }
    }

    /// The rest of a set after its first item.
    fn set(&mut self, first: ConfigValue) -> Option<ConfigValue> {
        let mut items = vec![first];
        loop {
            self.blanks();
            let comma = self.comma('}')?;
            self.blanks();
            if self.peek()? == '}' {
                self.close();
                break;
            }
            if !comma {
                return None;
            }
            items.push(self.value()?);
        }
        let mut seen = HashSet::new();
        items.retain(|item| seen.insert(item.to_string()));
        let hashable = !items.iter().any(|item| matches!(item, ConfigValue::Map(_)));
        hashable.then_some(ConfigValue::List(items))
    }

    fn signed(&mut self) -> Option<ConfigValue> {
        let negative = self.next()? == '-';
        self.blanks();
        match self.number()? {
            ConfigValue::Int(value) if negative => Some(ConfigValue::Int(value.checked_neg()?)),
            ConfigValue::Float(value) if negative => Some(ConfigValue::Float(-value)),
            value => Some(value),
        }
    }

    fn number(&mut self) -> Option<ConfigValue> {
        let start = self.at;
        for (prefix, radix) in [
            ("0x", 16),
            ("0o", 8),
            ("0b", 2),
            ("0X", 16),
            ("0O", 8),
            ("0B", 2),
        ] {
            if self.eat(prefix) {
                return self.radix_number(radix);
            }
        }
        while let Some(c) = self.peek() {
            let after_exponent = matches!(self.chars.get(self.at.wrapping_sub(1)), Some('e' | 'E'));
            let part = c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (matches!(c, '+' | '-') && after_exponent && self.at > start);
            if !part {
                break;
            }
            self.at += 1;
        }
        let text: String = self.chars.get(start..self.at)?.iter().collect();
        number_value(&text)
    }

    fn radix_number(&mut self, radix: u32) -> Option<ConfigValue> {
        let mut digits = String::new();
        let mut separator_allowed = true;
        while let Some(c) = self.peek() {
            if c == '_' && separator_allowed {
                separator_allowed = false;
            } else if c.is_ascii_alphanumeric() {
                digits.push(c);
                separator_allowed = true;
            } else if c == '_' || c == '.' {
                return None;
            } else {
                break;
            }
            self.at += 1;
        }
        if digits.is_empty() || !separator_allowed {
            return None;
        }
        i64::from_str_radix(&digits, radix)
            .ok()
            .map(ConfigValue::Int)
    }

    /// Names, and texts with a prefix.
    fn word(&mut self) -> Option<ConfigValue> {
        for (name, value) in [
            ("None", ConfigValue::None),
            ("True", ConfigValue::Bool(true)),
            ("False", ConfigValue::Bool(false)),
        ] {
            if self.eat(name) {
                let ends = !self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_');
                return ends.then_some(value);
            }
        }
        if self.eat("set") {
            self.blanks();
            if self.next()? != '(' {
                return None;
            }
            self.blanks();
            return (self.next()? == ')').then(|| ConfigValue::List(Vec::new()));
        }
        self.strings()
    }

    /// One text or several side by side, which Python joins.
    fn strings(&mut self) -> Option<ConfigValue> {
        let mut joined = String::new();
        loop {
            let raw = match self.peek()? {
                'r' | 'R' => {
                    self.at += 1;
                    true
                }
                'u' | 'U' => {
                    self.at += 1;
                    false
                }
                _ => false,
            };
            self.string(raw, &mut joined)?;
            self.blanks();
            let again = matches!(self.peek(), Some('\'' | '"'))
                || (matches!(self.peek(), Some('r' | 'R' | 'u' | 'U'))
                    && matches!(self.chars.get(self.at + 1), Some('\'' | '"')));
            if !again {
                return Some(ConfigValue::Str(joined));
            }
        }
    }

    fn string(&mut self, raw: bool, out: &mut String) -> Option<()> {
        let quote = self.next().filter(|c| matches!(c, '\'' | '"'))?;
        let fence: String = [quote; 3].iter().collect();
        let triple = self.chars.get(self.at..self.at + 2) == Some(&[quote, quote]);
        if triple {
            self.at += 2;
        }
        loop {
            if triple && self.eat(&fence) {
                return Some(());
            }
            match self.next()? {
                c if c == quote && !triple => return Some(()),
                '\n' if !triple => return None,
                '\\' if raw => {
                    out.push('\\');
                    out.push(self.next()?);
                }
                '\\' => self.escape(out)?,
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let c = self.next()?;
        let plain = match c {
            '\n' => return Some(()),
            '\\' | '\'' | '"' => c,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.code(16, 2, 2)?,
            'u' => self.code(16, 4, 4)?,
            'U' => self.code(16, 8, 8)?,
            '0'..='7' => {
                self.at -= 1;
                self.code(8, 1, 3)?
            }
            'N' => return None,
            other => {
                // Unknown escapes keep their backslash.
                out.push('\\');
                other
            }
        };
        out.push(plain);
        Some(())
    }

    /// A character by number, of `least` to `most` digits. Half surrogates, which text here cannot
    /// hold, make the whole value plain text.
    fn code(&mut self, radix: u32, least: usize, most: usize) -> Option<char> {
        let (mut code, mut digits) = (0_u32, 0);
        while digits < most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            code = code.checked_mul(radix)?.checked_add(digit)?;
            self.at += 1;
            digits += 1;
        }
        if digits < least {
            return None;
        }
        char::from_u32(code)
    }
}

/// A decimal number in Python's spelling.
fn number_value(text: &str) -> Option<ConfigValue> {
    let digits_only = text.chars().all(|c| c.is_ascii_digit() || c == '_');
    let number = crate::units::parse_number(text)?;
    if !digits_only {
        // `parse_number` also knows words such as `inf`, which cannot come first here.
        return Some(ConfigValue::Float(number));
    }
    let digits = text.replace('_', "");
    let leading_zero = digits.starts_with('0') && !digits.trim_matches('0').is_empty();
    if leading_zero {
        return None;
    }
    Some(
        digits
            .parse()
            .map_or(ConfigValue::Float(number), ConfigValue::Int),
    )
}

/// Keys of a mapping as `json.dumps` would write them.
pub(crate) fn key_text(key: &ConfigValue) -> Option<String> {
    match key {
        ConfigValue::Str(text) => Some(text.clone()),
        ConfigValue::List(_) | ConfigValue::Map(_) => None,
        other => Some(other.to_string()),
    }
}
