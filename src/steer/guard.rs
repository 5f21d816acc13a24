//! Response guards: is a well-formed 200 plausible?
//!
//! The outage this is made for showed zero views on every video, with status 200. A guard names a place in a JSON
//! answer and what is not believed there. Two kinds of rule:
//!
//! - by itself: `missing`, `null`, wrong type, out of range: the answer alone is enough to reject it;
//! - by comparison: `zero_after_nonzero`, `drops_by`: only against the last good answer of the same key. Without
//!   one (a new item) there is nothing to contradict, and the answer passes.
//!
//! A guard that masks does not cost the whole answer: where no region is believed, the field is replaced by null and the
//! answer is marked, instead of an old copy going out.
//!
//! Truth must pass. A rejected answer moves its request to another region; when that one says the same of the same
//! fields, the two agree and it is true ([`Rejection::agrees`]). What a rejection does to the pool is the
//! detector's business, which wants many distinct keys before it believes that the pool and not an item is odd.

use crate::model::policy::{Guard, Reject};
use serde_json::Value;

/// Why an answer is not believed.
#[derive(Clone, PartialEq, Debug)]
pub struct Rejection {
    /// Index of the guard in its route.
    pub guard: usize,
    /// The label of `evenkeel_guard_rejections_total{rule}`.
    pub rule: &'static str,
    /// Where, as an RFC 6901 pointer without wildcards.
    pub at: String,
    /// What stood there.
    pub found: Option<Value>,
}

impl Rejection {
    /// Whether another region's rejection says the same of the same field: then it is the truth.
    pub fn agrees(&self, other: &Self) -> bool {
        self.guard == other.guard && self.rule == other.rule && self.at == other.at && self.found == other.found
    }
}

/// The first thing in `answer` that a guard does not believe; `Ok` if all do. Guards that mask come last: what they find can
/// still be served without it.
pub fn judge(guards: &[Guard], answer: &Value, last_good: Option<&Value>) -> Result<(), Rejection> {
    let (masking, strict): (Vec<_>, Vec<_>) = guards.iter().enumerate().partition(|(_, g)| g.mask);
    for (guard, rule) in strict.into_iter().chain(masking) {
        if let Some((at, rule, found)) = find(rule, answer, last_good) {
            return Err(Rejection { guard, rule, at, found });
        }
    }
    Ok(())
}

/// What would not be believed if there were a past to compare with, however small: for a pool whose answers have
/// been rejected again and again. Such an answer is worth a second opinion, no more.
pub fn doubt(guards: &[Guard], answer: &Value) -> Result<(), Rejection> {
    judge(guards, answer, Some(&ones(answer)))
}

/// The same shape with every number replaced by one.
fn ones(value: &Value) -> Value {
    match value {
        Value::Number(_) => 1.into(),
        Value::Array(items) => items.iter().map(ones).collect(),
        Value::Object(fields) => fields.iter().map(|(name, v)| (name.clone(), ones(v))).collect(),
        other => other.clone(),
    }
}

/// Replaces what masking guards do not believe with null; the pointers of what was replaced.
pub fn mask(guards: &[Guard], answer: &mut Value, last_good: Option<&Value>) -> Vec<String> {
    let mut masked = Vec::new();
    for guard in guards.iter().filter(|g| g.mask) {
        // Each round turns one implausible value into null, which no longer counts, so this ends.
        let quiet = Guard {
            reject: guard.reject.iter().filter(|r| !matches!(r, Reject::Missing | Reject::Null)).cloned().collect(),
            ..guard.clone()
        };
        while let Some((at, ..)) = find(&quiet, answer, last_good) {
            match answer.pointer_mut(&at) {
                Some(place) if !place.is_null() => *place = Value::Null,
                _ => break,
            }
            masked.push(at);
        }
    }
    masked
}

type Found = (String, &'static str, Option<Value>);

fn find(guard: &Guard, answer: &Value, last_good: Option<&Value>) -> Option<Found> {
    let segments: Vec<&str> = guard.json.split('/').skip(1).collect();
    walk(guard, &segments, answer, last_good, String::new())
}

fn walk(guard: &Guard, segments: &[&str], here: &Value, before: Option<&Value>, at: String) -> Option<Found> {
    let Some((segment, rest)) = segments.split_first() else {
        return believe(guard, Some(here), before).map(|rule| (at, rule, Some(here.clone())));
    };
    if *segment == "*" {
        let Some(items) = here.as_array() else {
            return believe(guard, None, None).map(|rule| (at, rule, None));
        };
        // Items of a list move, so one is compared with its own place only while the list keeps its length.
        let past = before.and_then(Value::as_array).filter(|p| p.len() == items.len());
        return items.iter().enumerate().find_map(|(i, item)| walk(guard, rest, item, past.map(|p| &p[i]), format!("{at}/{i}")));
    }
    let name = segment.replace("~1", "/").replace("~0", "~");
    let step = |value: &Value| -> Option<Value> { value.pointer(&format!("/{segment}")).cloned() };
    let at = format!("{at}/{segment}");
    match here.get(&name).or_else(|| here.as_array().and_then(|a| a.get(name.parse::<usize>().ok()?))) {
        Some(next) => walk(guard, rest, next, before.and_then(step).as_ref(), at),
        None => believe(guard, None, None).map(|rule| (at, rule, None)),
    }
}

/// The rule that does not believe `found`.
fn believe(guard: &Guard, found: Option<&Value>, before: Option<&Value>) -> Option<&'static str> {
    guard.reject.iter().find_map(|rule| {
        let (name, rejects) = match rule {
            Reject::Missing => ("missing", found.is_none()),
            Reject::Null => ("null", found.is_some_and(Value::is_null)),
            Reject::NotA(kind) => ("wrong_type", found.is_some_and(|v| !v.is_null() && type_of(v) != kind)),
            Reject::ZeroAfterNonzero => ("zero_after_nonzero", both(found, before).is_some_and(|(now, then)| now == 0.0 && then != 0.0)),
            Reject::DropsBy(part) => {
                ("drops_by", both(found, before).is_some_and(|(now, then)| then > 0.0 && then - now >= then * part * (1.0 - 1e-9)))
            }
            Reject::OutOf(low, high) => ("out_of_range", found.and_then(Value::as_f64).is_some_and(|v| v < *low || v > *high)),
        };
        rejects.then_some(name)
    })
}

fn both(found: Option<&Value>, before: Option<&Value>) -> Option<(f64, f64)> {
    Some((found?.as_f64()?, before?.as_f64()?))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guard(json: &str, reject: &[Reject]) -> Guard {
        Guard { json: json.to_owned(), reject: reject.to_vec(), mask: false }
    }
    fn rule_of(guards: &[Guard], answer: &Value, before: Option<&Value>) -> Option<&'static str> {
        judge(guards, answer, before).err().map(|r| r.rule)
    }

    #[test]
    fn zero_is_believed_unless_it_was_not_zero_before() {
        let g = [guard("/views", &[Reject::ZeroAfterNonzero])];
        let zero = json!({"views": 0});
        assert_eq!(rule_of(&g, &zero, None), None, "a new item");
        assert_eq!(rule_of(&g, &zero, Some(&json!({"views": 0}))), None, "it always was zero");
        assert_eq!(rule_of(&g, &zero, Some(&json!({"views": 7}))), Some("zero_after_nonzero"));
        assert_eq!(rule_of(&g, &json!({"views": 6}), Some(&json!({"views": 7}))), None, "a like taken back");
    }

    #[test]
    fn a_drop_is_judged_at_its_bound() {
        let g = [guard("/likes", &[Reject::DropsBy(0.9)])];
        let before = json!({"likes": 1000});
        assert_eq!(rule_of(&g, &json!({"likes": 101}), Some(&before)), None);
        assert_eq!(rule_of(&g, &json!({"likes": 100}), Some(&before)), Some("drops_by"));
        assert_eq!(rule_of(&g, &json!({"likes": 990}), Some(&before)), None, "ten likes taken back");
    }

    #[test]
    fn a_zero_without_a_past_is_doubtful_and_a_number_is_not() {
        let g = [guard("/items/*/views", &[Reject::ZeroAfterNonzero, Reject::DropsBy(0.9)])];
        assert_eq!(doubt(&g, &json!({"items": [{"views": 3}, {"views": 0}]})).unwrap_err().at, "/items/1/views");
        assert!(doubt(&g, &json!({"items": [{"views": 3}, {"views": 1}]})).is_ok());
    }

    #[test]
    fn rules_that_need_no_past() {
        let all = [Reject::Missing, Reject::Null, Reject::NotA("number".into()), Reject::OutOf(0.0, 10.0)];
        let g = [guard("/a/b", &all)];
        for (answer, rule) in [
            (json!({}), Some("missing")),
            (json!({"a": {}}), Some("missing")),
            (json!({"a": {"b": null}}), Some("null")),
            (json!({"a": {"b": "7"}}), Some("wrong_type")),
            (json!({"a": {"b": 11}}), Some("out_of_range")),
            (json!({"a": {"b": 10}}), None),
        ] {
            assert_eq!(rule_of(&g, &answer, None), rule, "{answer}");
        }
        assert_eq!(rule_of(&[guard("/a/b", &[Reject::Null])], &json!({}), None), None, "missing is not null");
    }

    #[test]
    fn a_star_stands_for_every_item() {
        let g = [guard("/items/*/n", &[Reject::ZeroAfterNonzero])];
        let (now, before) = (json!({"items": [{"n": 1}, {"n": 0}]}), json!({"items": [{"n": 1}, {"n": 2}]}));
        assert_eq!(judge(&g, &now, Some(&before)).unwrap_err().at, "/items/1/n");
        assert_eq!(rule_of(&g, &now, Some(&json!({"items": [{"n": 2}]}))), None, "the list has changed");
        assert_eq!(rule_of(&[guard("/items/*", &[Reject::Missing])], &json!({"items": 3}), None), Some("missing"));
    }

    #[test]
    fn two_regions_that_agree_make_it_true() {
        let g = [guard("/views", &[Reject::ZeroAfterNonzero, Reject::DropsBy(0.5)])];
        let before = json!({"views": 100});
        let say = |n: i64| judge(&g, &json!({"views": n}), Some(&before)).unwrap_err();
        assert!(say(0).agrees(&say(0)));
        assert!(!say(0).agrees(&say(10)) && !say(10).agrees(&say(11)));
    }

    #[test]
    fn masking_replaces_and_names_what_it_replaced() {
        let g = [Guard { mask: true, ..guard("/items/*/n", &[Reject::ZeroAfterNonzero]) }];
        let (mut now, before) = (json!({"items": [{"n": 0}, {"n": 5}, {"n": 0}]}), json!({"items": [{"n": 1}, {"n": 2}, {"n": 3}]}));
        assert_eq!(mask(&g, &mut now, Some(&before)), ["/items/0/n", "/items/2/n"]);
        assert_eq!(now, json!({"items": [{"n": null}, {"n": 5}, {"n": null}]}));
        assert!(judge(&g, &now, Some(&before)).is_ok());
    }
}
