//! Which bytes may stand where.

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const HOST: u8 = 8;

const CLASS: [u8; 256] = {
    let mut t = [0; 256];
    let mut b = 0x21;
    while b < 0x7f {
        let c = b as u8;
        let alnum = c.is_ascii_alphanumeric();
        if alnum || one_of(c, b"!#$%&'*+-.^_`|~") {
            t[b] |= TOKEN;
        }
        // RFC 3986 pchar and "/", and what browsers leave unencoded although they should not.
        if alnum || one_of(c, b"-._~!$&'()*+,;=:@%/[]|^") {
            t[b] |= PATH;
        }
        if alnum || one_of(c, b"-._~!$&'()*+,;=:@%/[]|^?{}`\\") {
            t[b] |= QUERY;
        }
        // reg-name without sub-delims that no host name has (a comma is a disguised list).
        if alnum || one_of(c, b"-._~") {
            t[b] |= HOST;
        }
        b += 1;
    }
    t
};

const fn one_of(c: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == c {
            return true;
        }
        i += 1;
    }
    false
}

/// RFC 9110 tchar.
#[inline]
pub(super) fn token(b: u8) -> bool {
    CLASS[b as usize] & TOKEN != 0
}
/// May stand in a path.
#[inline]
pub(super) fn path(b: u8) -> bool {
    CLASS[b as usize] & PATH != 0
}
/// May stand in a query.
#[inline]
pub(super) fn query(b: u8) -> bool {
    CLASS[b as usize] & QUERY != 0
}
/// May stand in a registered name.
#[inline]
pub(super) fn host(b: u8) -> bool {
    CLASS[b as usize] & HOST != 0
}

/// The first byte at or after `from` that may not stand in a field value: a control other than HTAB, or DEL.
/// Eight bytes a step: values are most of a head.
#[inline]
pub(super) fn value_end(b: &[u8], mut from: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    loop {
        while let Some(w) = b.get(from..from + 8) {
            let w = u64::from_le_bytes(w.try_into().unwrap_or_default());
            let ctl = w.wrapping_sub(ONES * 0x20) & !w;
            let x = w ^ (ONES * 0x7f);
            let del = x.wrapping_sub(ONES) & !x;
            let hit = (ctl | del) & HIGH;
            if hit != 0 {
                from += (hit.trailing_zeros() / 8) as usize;
                break;
            }
            from += 8;
        }
        while let Some(&c) = b.get(from) {
            if (c < 0x20 && c != b'\t') || c == 0x7f {
                return from;
            }
            from += 1;
            if c == b'\t' || from.is_multiple_of(8) {
                break;
            }
        }
        if from >= b.len() {
            return b.len();
        }
    }
}
