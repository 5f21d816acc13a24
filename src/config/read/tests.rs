use super::super::tree;
use super::*;
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    n: u8,
    text: String,
    on: bool,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Plain,
    With(Inner),
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Outer {
    one: Inner,
    many: Vec<Inner>,
    maybe: Option<u32>,
    kinds: Vec<Kind>,
    words: Vec<String>,
}

fn reading(text: &str) -> (Outer, Vec<String>) {
    let (tree, _) = tree::parse(text).unwrap();
    let reading = read::<Outer>(&tree);
    (reading.value, reading.wrong.iter().map(|w| format!("{}: {}", w.path, w.message.lines().next().unwrap())).collect())
}

#[test]
fn what_is_right_is_read() {
    let (o, wrong) =
        reading("one: {n: 3, text: 8080, on: true}\nmany: [{n: 1}, {}]\nmaybe: null\nkinds: [plain, {with: {n: 9}}]\nwords: [true, a]\n");
    assert_eq!(wrong, [""; 0]);
    assert_eq!(o.one, Inner { n: 3, text: "8080".into(), on: true }, "a number is text, where text is wanted");
    assert_eq!((o.many.len(), o.maybe), (2, None));
    assert_eq!(o.kinds, [Kind::Plain, Kind::With(Inner { n: 9, ..Inner::default() })]);
    assert_eq!(o.words, ["true", "a"]);
}

#[test]
fn every_mistake_is_told_and_the_rest_is_read() {
    let (o, wrong) = reading(
        "one: {n: 300, on: yes, tetx: a}\nmany: [{n: -1, text: kept}, 7, {n: '5'}]\nmaybe: 1.5\nkinds: [with, {palin: 1}, {with: 3}, {plain: 1}]\nwords: {a: b}\n",
    );
    assert_eq!(
        wrong,
        [
            "one.n: `300` is too large",
            "one.on: must be true or false, but is `yes`",
            "many[0].n: must be a whole number, but `-1` is negative",
            "many[1]: must be a block with keys like `n`, `text` or `on`, but is `7`",
            "many[2].n: must be a whole number, but is the text \"5\"",
            "maybe: must be a whole number, but is `1.5`",
            "kinds[0]: `with` needs its settings",
            "kinds[1]: `palin` is not known here",
            "kinds[2].with: must be a block with keys like `n`, `text` or `on`, but is `3`",
            "kinds[3]: `plain` takes no settings",
            "words: must be a list, but is a block with the keys a",
            "one.tetx: unknown key `tetx`",
        ]
    );
    assert_eq!(o.many, [Inner { text: "kept".into(), ..Inner::default() }, Inner::default()]);
    assert_eq!(o.kinds, []);
}

#[test]
fn a_file_that_is_something_else_altogether() {
    let (o, wrong) = reading("- a\n- b\n");
    assert_eq!((o, wrong.len()), (Outer::default(), 1));
}

#[test]
fn nobody_reads_more_than_a_hundred() {
    let (_, wrong) = reading(&format!("many: [{}]\n", vec!["1"; 500].join(", ")));
    assert_eq!(wrong.len(), MAX_PROBLEMS);
}
