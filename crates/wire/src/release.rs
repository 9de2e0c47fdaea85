//! Releases of `distributed`, and the boundaries at which the protocol changed.

use std::fmt;

/// A release of `distributed`, as a peer tells it in `versions.packages.distributed`.
///
/// Ordered as released: `2.30.1 < 2020.12.0 < 2022.12.0`. `2022.05.0` and `2022.5.0` are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    major: u16,
    minor: u16,
    patch: u16,
    fourth: u16,
}

impl Release {
    /// A release by its numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
            fourth: 0,
        }
    }

    /// Newest release this crate was written against; assumed for a peer that does not tell.
    pub const NEWEST: Self = Self::new(2026, 8, 0);
    /// Oldest release whose peers are served.
    pub const OLDEST: Self = Self::new(2, 17, 0);
    /// First release with the comm handshake.
    pub const HANDSHAKE: Self = Self::new(2, 23, 0);
    /// First release whose frames carry a total length (framing F2).
    pub const FRAMING_2: Self = Self::new(2021, 3, 0);
    /// First release with inline payload markers (M3).
    pub const INLINE_MARKERS: Self = Self::new(2021, 3, 1);
    /// First release with `__Pickled__` (M4).
    pub const PICKLED_MARKERS: Self = Self::new(2022, 4, 0);

    /// Reads `2.30.1`, `2022.05.0`, `2023.3.2.1`, `2026.8.0+12.gabc`, `2022.12.0rc1`. Anything
    /// behind the numbers is ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [0u16; 4];
        let mut count = 0;
        let text = text.split(['+', '-']).next()?.trim();
        for (slot, part) in parts.iter_mut().zip(text.split('.')) {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
            if digits.is_empty() {
                break;
            }
            *slot = digits.parse().ok()?;
            count += 1;
            if digits.len() != part.len() {
                break;
            }
        }
        let [major, minor, patch, fourth] = parts;
        (count >= 2).then_some(Self {
            major,
            minor,
            patch,
            fourth,
        })
    }
}

impl fmt::Display for Release {
    /// Prints as the release itself does: months have two digits up to 2022.05.2.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let two_digits = self.major > 2000 && *self < Self::new(2022, 6, 0);
        if two_digits {
            write!(f, "{}.{:02}.{}", self.major, self.minor, self.patch)?;
        } else {
            write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        }
        if self.fourth != 0 {
            write!(f, ".{}", self.fourth)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shape of a transport message. The numbers are those of `protocol/README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// ≤ 2.22.0: framing F1, no handshake, payloads by path.
    M0,
    /// 2.23.0 – 2021.02.0: framing F1, handshake, payloads by path.
    M1,
    /// 2021.03.0: framing F2, payloads by path.
    M2,
    /// ≥ 2021.03.1: framing F2, inline markers (`__Pickled__` since 2022.04.0).
    M3,
}

impl Generation {
    /// What a release speaks.
    pub fn of(release: &Release) -> Self {
        if *release >= Release::INLINE_MARKERS {
            Self::M3
        } else if *release >= Release::FRAMING_2 {
            Self::M2
        } else if *release >= Release::HANDSHAKE {
            Self::M1
        } else {
            Self::M0
        }
    }

    /// The same over WebSocket, which has no framing of its own and is given the newer one.
    pub fn over_websocket(self) -> Self {
        self.max(Self::M2)
    }

    /// Whether payloads are found by path instead of by markers.
    pub fn is_path_based(self) -> bool {
        self < Self::M3
    }

    /// Whether a frame list is preceded by its total length (F2).
    pub fn has_total_length(self) -> bool {
        self >= Self::M2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_and_orders_as_released() {
        let order = [
            "2.17.0",
            "2.30.1",
            "2020.12.0",
            "2021.03.0",
            "2022.05.2",
            "2022.6.0",
            "2022.12.0",
            "2023.3.2",
            "2023.3.2.1",
            "2023.12.1",
            "2026.8.0",
        ];
        let parsed: Vec<Release> = order.iter().map(|t| Release::parse(t).expect(t)).collect();
        assert!(parsed.is_sorted(), "{parsed:?}");
        for (text, release) in order.iter().zip(&parsed) {
            assert_eq!(release.to_string(), *text);
        }
        assert_eq!(Release::parse("2022.5.0"), Release::parse("2022.05.0"));
        assert_eq!(Release::parse("2026.8.0+12.gabc"), Some(Release::NEWEST));
        assert_eq!(Release::parse("2026.8.0rc1"), Some(Release::NEWEST));
        for bad in ["", "x", "2", "2.x", "999999.1.1"] {
            assert_eq!(Release::parse(bad), None, "{bad}");
        }
    }
}
