//! Damage to a file: what has been written is no longer what is read.

use super::files::Node;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// A bit changes.
    BitFlip,
    /// 512 bytes become zeros.
    ZeroedSector,
    /// 4096 bytes cannot be read any more.
    BadSector,
}

impl Node {
    /// Damages the file somewhere: a random number says where.
    pub(crate) fn damage(&mut self, damage: Damage, random: u64) {
        let len = self.data.len() as u64;
        if len == 0 {
            return;
        }
        let at = random % len;
        match damage {
            Damage::BitFlip => self.data[at as usize] ^= 1 << ((random >> 40) % 8),
            Damage::ZeroedSector => {
                let start = (at / 512 * 512) as usize;
                let end = (start + 512).min(self.data.len());
                self.data[start..end].fill(0);
            }
            Damage::BadSector => {
                let start = at / 4096 * 4096;
                // What is written later goes to another place.
                self.bad.push(start..(start + 4096).min(len));
            }
        }
        self.is_damaged = true;
    }
}
