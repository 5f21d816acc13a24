//! What fuzzing found, replayed; and a little of it again: every input of the corpora, and seeded mutations of each.
//! The long search is cargo-fuzz's (`tests/fuzz/README.md`); this is what `make test` can afford on every commit.

mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Mutations of each input.
const MUTATIONS: u64 = 60;
/// Fragments that mean something to one of the readers.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:\tchunked\r\n",
    b"Host: b\r\n",
    b"Connection: close, x\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b";a=b",
    b"-1",
    b"1e999",
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"&a ",
    b"*a ",
    b"<<: ",
    b"- ",
    b"? ",
    b"|\n",
    b"\xff",
    b"\xc3\xa9",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"../",
    b"%2e",
    b"?",
    b"#",
];

/// Same everywhere, for a failure must be seen again (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutated(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(out.len() + 1);
        match dice.below(6) {
            0 if at < out.len() => out[at] ^= 1 << dice.below(8),
            1 => out.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied()).for_each(drop),
            2 => out.truncate(at),
            3 => {
                let end = (at + dice.below(20)).min(out.len());
                out.drain(at..end);
            }
            4 => {
                let from = dice.below(other.len());
                let to = (from + dice.below(40)).min(other.len());
                out.splice(at..at, other[from..to].iter().copied()).for_each(drop);
            }
            _ => {
                let end = (at + dice.below(30)).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
        }
    }
    out
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|f| f.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    found.sort();
    assert!(found.len() > 2, "a corpus of next to nothing: {}", folder.display());
    found
}

fn replay(name: &str) {
    let (_, holds) = properties::ALL.iter().find(|(n, _)| *n == name).expect("a property of that name");
    let inputs = corpus(name);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for (path, input) in &inputs {
        let tried = catch_unwind(AssertUnwindSafe(|| holds(input)));
        assert!(tried.is_ok(), "does not hold for {}", path.display());
        for _ in 0..MUTATIONS {
            let other = &inputs[dice.below(inputs.len())].1;
            let mutant = mutated(input, other, &mut dice);
            let tried = catch_unwind(AssertUnwindSafe(|| holds(&mutant)));
            assert!(
                tried.is_ok(),
                "does not hold for a mutant of {}; keep it in the corpus: {:?}",
                path.display(),
                mutant.escape_ascii().to_string()
            );
        }
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*
        #[test]
        fn every_property_is_replayed() {
            let all: Vec<&str> = properties::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(all, [$(stringify!($name)),*]);
        }
    };
}

replayed!(body config grpc guard journal proxy request response spool);
