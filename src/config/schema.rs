//! The JSON Schema (2020-12) of the config file, made of the raw types, so that it cannot say anything else than the reader.

use super::file::{self, service};
use super::problem::{Path, Seg};
use crate::model::policy;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

/// What must be there: every key has a default for the reader's sake, these an empty one that `validate` refuses.
const REQUIRED: &[(&str, &[&str])] = &[
    ("Service", &["pools"]),
    ("Route", &["name", "service"]),
    ("Listener", &["address"]),
    ("ListenerTls", &["certificates"]),
    ("Certificate", &["cert", "key"]),
    ("Token", &["name", "file"]),
    ("Guard", &["json", "reject"]),
    ("JsonExpect", &["pointer"]),
];

/// The schema as a JSON value.
pub fn schema() -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.root_schema_for::<file::File>().to_value();
    schema["title"] = json!("Evenkeel");
    schema["required"] = json!(["version", "listeners", "regions", "services", "routes"]);
    schema["properties"]["version"] = json!({"const": 1, "description": "The version of this format."});
    for (key, least) in [("listeners", "minItems"), ("routes", "minItems"), ("regions", "minProperties"), ("services", "minProperties")] {
        schema["properties"][key][least] = json!(1);
    }
    // As text it has a pattern; as a number it must not be meant as percent.
    schema["$defs"]["Ratio"]["maximum"] = json!(1);
    for (name, keys) in REQUIRED {
        let block = &mut schema["$defs"][name];
        block["required"] = json!(keys);
        for key in *keys {
            if let Some(property) = block["properties"][key].as_object_mut() {
                property.remove("default");
            }
        }
    }
    // What a service leaves out comes from the top, so the raw types have no default; the top has.
    for key in ["listeners", "regions", "services", "routes", "failover", "recovery", "overload", "retry_budget"] {
        if let Some(property) = schema["properties"][key].as_object_mut() {
            property.remove("default");
        }
    }
    for key in ["failover", "recovery", "overload", "retry_budget"] {
        if let Some(property) = schema["$defs"]["Service"]["properties"][key].as_object_mut() {
            property.remove("default");
        }
    }
    defaults(&mut schema, "Failover", service::Failover::from(policy::Failover::default()));
    defaults(&mut schema, "Recovery", service::Recovery::from(policy::Recovery::default()));
    let overload = service::Overload::from(policy::Overload::default());
    defaults(&mut schema, "Limit", overload.limit.clone());
    defaults(&mut schema, "Overload", overload);
    defaults(&mut schema, "RetryBudget", service::RetryBudget::from(policy::RetryBudget::default()));
    schema
}

fn defaults(schema: &mut Value, name: &str, block: impl Serialize) {
    let Ok(Value::Object(values)) = serde_json::to_value(block) else { return };
    for (key, value) in values {
        if let Some(property) = schema["$defs"][name]["properties"][&key].as_object_mut() {
            property.insert("default".into(), value);
        }
    }
}

/// The schema as text, as in `config/evenkeel.schema.json`.
pub fn text() -> String {
    format!("{:#}", schema())
}

/// Where a key that stands in the wrong block would be right: `services.*.pools.*`. `None`: nowhere, or in many places.
pub fn home(path: &Path) -> Option<String> {
    let Some(Seg::Key(key)) = path.0.last() else { return None };
    let schema = schema();
    let mut homes = vec![];
    walk(&schema, &schema, "", &mut |place, block| {
        if block["properties"].get(key).is_some() {
            let place = place.trim_start_matches('.').replace(".[]", "[]");
            homes.push(if place.is_empty() { "the top of the file".into() } else { format!("`{place}`") });
        }
    });
    homes.dedup();
    (1..=3).contains(&homes.len()).then(|| homes.join(" or "))
}

/// Every block that the schema knows, with its place: `.services.*.pools.*`, `.routes.[]`.
pub fn walk(root: &Value, node: &Value, place: &str, visit: &mut dyn FnMut(&str, &Value)) {
    let target = node["$ref"].as_str().and_then(|r| root.pointer(r.trim_start_matches('#'))).unwrap_or(node);
    if let Some(properties) = target["properties"].as_object() {
        visit(place, target);
        for (key, property) in properties {
            walk(root, property, &format!("{place}.{key}"), visit);
        }
    }
    for (key, suffix) in [("additionalProperties", ".*"), ("items", ".[]")] {
        if target[key].is_object() {
            walk(root, &target[key], &format!("{place}{suffix}"), visit);
        }
    }
    for key in ["anyOf", "oneOf"] {
        target[key].as_array().into_iter().flatten().for_each(|option| walk(root, option, place, visit));
    }
}
