use super::*;

fn tree(text: &str) -> Node {
    let (node, flaws) = parse(text).unwrap();
    assert_eq!(flaws, []);
    node
}

fn path(text: &str) -> Path {
    text.split('.').fold(Path::default(), |p, seg| match seg.parse() {
        Ok(i) => p.at(i),
        Err(_) => p.key(seg),
    })
}

fn text(node: &Node, at: &str) -> String {
    match &node.find(&path(at)).unwrap_or_else(|| panic!("nothing at {at}")).value {
        Value::Scalar { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_knows_where_it_stands() {
    let t = tree("a: 1\nlist:\n  - {x: é, yy: 'two words'}\n  - z: |\n      long\n      text\n");
    assert_eq!(t.place(&path("a")), Some(Place { line: 1, column: 4, width: 1 }));
    assert_eq!(t.place(&path("list.0.yy")), Some(Place { line: 3, column: 16, width: 11 }), "columns count characters, not bytes");
    assert_eq!(t.key_place(&path("list.0.yy")), Some(Place { line: 3, column: 12, width: 2 }));
    assert_eq!(t.place(&path("list")), Some(Place { line: 2, column: 1, width: 4 }), "a block is shown at its key");
    assert_eq!(t.place(&path("list.1")).unwrap().line, 4);
    assert_eq!(t.place(&path("list.9.z")), t.place(&path("list")), "what is missing is shown at what is around it");
    assert_eq!(text(&t, "list.1.z"), "long\ntext\n");
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let t = tree("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: {<<: [*b, {z: 4}]}\nsame: *b\n");
    assert_eq!((text(&t, "one.x"), text(&t, "one.y")), ("1".into(), "3".into()), "what is written beats what is merged");
    assert_eq!((text(&t, "two.y"), text(&t, "two.z"), text(&t, "same.x")), ("2".into(), "4".into(), "1".into()));
    assert!(parse("a: &a [*a]\n").is_err(), "an anchor inside itself");
    assert!(parse("a: *nothing\n").is_err());
    assert!(parse("a: {<<: 5}\n").is_err());
}

#[test]
fn anchors_cannot_be_used_to_fill_the_memory() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    assert!(parse(&bomb).unwrap_err()[0].message.contains("more than 500,000 values"));
    let deep = "[".repeat(100_000);
    assert!(parse(&deep).is_err());
}

#[test]
fn a_tab_is_told_in_every_line_but_only_where_it_breaks_something() {
    let flaws = parse("a:\n\tb: 1\n\tc: 2\n").unwrap_err();
    assert_eq!(flaws.iter().map(|f| f.place.line).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(text(&tree("a: |\n  x\n  \ty\n"), "a"), "x\n\ty\n");
}

#[test]
fn quotes_decide_what_is_null() {
    let t = tree("a:\nb: ~\nc: null\nd: 'null'\ne: ''\n");
    let nulls: Vec<bool> = ["a", "b", "c", "d", "e"].iter().map(|k| t.find(&path(k)).unwrap().is_null()).collect();
    assert_eq!(nulls, [true, true, true, false, false]);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-c:{}\\[\\],&*<|>'\"#\\- \\t\\n]{0,60}") {
        let _ = parse(&text);
    }
}
