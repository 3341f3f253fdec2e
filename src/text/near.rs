//! The known names that are nearest to one that is not known, for errors that say what was probably meant.

use core::fmt;

/// Names that are alike enough to be meant: at most three, and at least one.
pub(crate) struct Nearest([Option<&'static str>; 3]);

/// Longer names are compared by their beginning.
const COMPARED: usize = 40;

impl Nearest {
    pub(crate) fn to(given: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        let given = Plain::new(given);
        let mut found: [(Option<&'static str>, usize); 3] = [(None, usize::MAX); 3];
        for name in known {
            let distance = given.distance(&Plain::new(name));
            if let Some(at) = found.iter().position(|(_, other)| distance < *other) {
                found[at..].rotate_right(1);
                found[at] = (Some(name), distance);
            }
        }
        let enough = (given.len / 3).clamp(1, 3);
        let best = found[0].1;
        let is_near = |at: usize, distance: usize| at == 0 || (best <= enough && distance == best);
        let mut at = 0;
        Self(found.map(|(name, distance)| {
            at += 1;
            name.filter(|_| is_near(at - 1, distance))
        }))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied().flatten()
    }

    /// Shows them as a sentence, each as `show` writes it.
    pub(crate) const fn shown<F>(&self, show: F) -> Shown<'_, F>
    where
        F: Fn(&str, &mut fmt::Formatter<'_>) -> fmt::Result,
    {
        Shown {
            nearest: self,
            show,
        }
    }
}

pub(crate) struct Shown<'a, F> {
    nearest: &'a Nearest,
    show: F,
}

impl<F: Fn(&str, &mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.nearest.names().count();
        f.write_str(if count == 1 {
            "the nearest is "
        } else {
            "the nearest are "
        })?;
        for (at, name) in self.nearest.names().enumerate() {
            f.write_str(match at {
                0 => "",
                _ if at + 1 == count => " and ",
                _ => ", ",
            })?;
            (self.show)(name, f)?;
        }
        Ok(())
    }
}

/// A name's letters and digits in lower case: how its words are joined does not matter.
struct Plain {
    letters: [u8; COMPARED],
    len: usize,
}

impl Plain {
    fn new(name: &str) -> Self {
        let mut plain = Self {
            letters: [0; COMPARED],
            len: 0,
        };
        let letters = name.bytes().filter(|byte| !b"_- .".contains(byte));
        for (place, letter) in plain.letters.iter_mut().zip(letters) {
            *place = letter.to_ascii_lowercase();
            plain.len += 1;
        }
        plain
    }

    fn letters(&self) -> &[u8] {
        &self.letters[..self.len]
    }

    /// How many letters to insert, remove, replace or swap with the next. A name that has the other in it is near.
    fn distance(&self, other: &Self) -> usize {
        let (one, other) = (self.letters(), other.letters());
        let (short, long) = if one.len() < other.len() {
            (one, other)
        } else {
            (other, one)
        };
        if short.len() >= 4 && long.windows(short.len()).any(|part| part == short) {
            return usize::from(short.len() < long.len());
        }
        let mut before = [0; COMPARED + 1];
        let mut last = core::array::from_fn(|at| at);
        for (at, letter) in one.iter().enumerate() {
            let mut row = [at + 1; COMPARED + 1];
            for (to, target) in other.iter().enumerate() {
                let replaced = last[to] + usize::from(letter != target);
                let mut least = replaced.min(last[to + 1] + 1).min(row[to] + 1);
                let is_swapped =
                    at > 0 && to > 0 && *letter == other[to - 1] && one[at - 1] == *target;
                if is_swapped {
                    least = least.min(before[to - 1] + 1);
                }
                row[to + 1] = least;
            }
            before = last;
            last = row;
        }
        last[other.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString as _};

    const KNOWN: [&str; 6] = [
        "flush_interval",
        "flush_timeout",
        "drop_timeout",
        "http_timeout",
        "max_retries",
        "max_batch_size",
    ];

    fn nearest(given: &str) -> String {
        let nearest = Nearest::to(given, KNOWN);
        nearest.shown(|name, f| f.write_str(name)).to_string()
    }

    #[test]
    fn a_slip_of_the_pen_another_spelling_and_a_part_of_a_name_are_near() {
        for given in [
            "flush_intervall",
            "flsuh_interval",
            "flushInterval",
            "FLUSH-INTERVAL",
            "interval",
            "flush_interval_secs",
        ] {
            assert_eq!(nearest(given), "the nearest is flush_interval", "{given}");
        }
        assert_eq!(nearest("retries"), "the nearest is max_retries");
        assert_eq!(
            nearest("timeout"),
            "the nearest are flush_timeout, drop_timeout and http_timeout"
        );
    }

    #[test]
    fn there_is_always_one_and_what_is_far_away_does_not_matter() {
        for given in ["", "_", "x", &"é".repeat(1_000), &"flush".repeat(1_000)] {
            assert_eq!(Nearest::to(given, KNOWN).names().count(), 1, "{given}");
        }
        assert_eq!(Nearest::to("x", []).names().count(), 0);
    }
}
