//! Keys that the contract has and this version does not: known to the reader and the schema, refused with that reason
//! where somebody relies on them. Shorten the lists as things come to work.

use super::problem::Path;
use super::tree::{Node, Value};
use super::validate::Checker;

/// Refused: the operator would rely on something that does not happen. `*` stands for any name, `[]` for any item.
const UNSUPPORTED: &[(&str, &str)] = &[];

/// Accepted with a warning: nothing breaks, but it does not happen yet.
const INACTIVE: &[(&str, &str)] = &[];

/// Finds both kinds in the tree.
pub(super) fn check(checker: &mut Checker<'_>) {
    for (pattern, instead) in UNSUPPORTED {
        for path in matching(checker.tree, pattern) {
            let name = pattern.rsplit('.').next().unwrap_or(pattern);
            checker.error_at_key(&path, format!("`{name}` is not in this version yet: {instead}"));
        }
    }
    for (pattern, what) in INACTIVE {
        for path in matching(checker.tree, pattern) {
            checker.warn(&path, format!("accepted, not yet active: {what}"));
        }
    }
}

/// The paths that a pattern matches and that ask for something: null and false do not.
fn matching(root: &Node, pattern: &str) -> Vec<Path> {
    let (pattern, value) = pattern.split_once('=').map_or((pattern, None), |(p, v)| (p, Some(v)));
    let asks = |node: &Node| match &node.value {
        _ if node.is_null() => false,
        Value::Scalar { text, .. } => value.map_or(text != "false", |v| v == text),
        Value::List(items) => !items.is_empty(),
        Value::Map(_) => true,
    };
    root.all(pattern).into_iter().filter(|(_, node)| asks(node)).map(|(path, _)| path).collect()
}
