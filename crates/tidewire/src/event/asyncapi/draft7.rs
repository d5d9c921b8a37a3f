//! A schema of draft 2020-12 as [draft 7](https://json-schema.org/draft-07/json-schema-release-notes), which AsyncAPI is based
//! on.

use serde_json::{Map, Value, json};

/// The same schema, with each reference as `refer` says. What draft 7 cannot say is left out: it checks less, never more.
pub(super) fn schema(schema: &Value, refer: &dyn Fn(&str) -> String) -> Value {
    let Some(keywords) = schema.as_object() else { return schema.clone() };
    let mut written = Map::new();
    let has_first =
        keywords.get("prefixItems").and_then(Value::as_array).is_some_and(|first| !first.is_empty());
    for (keyword, asked) in keywords {
        let (name, asked) = match keyword.as_str() {
            "$schema" | "$id" | "$anchor" | "$defs" | "definitions" | "$ref" | "minContains"
            | "maxContains" | "unevaluatedItems" | "$dynamicRef" | "$dynamicAnchor" | "$vocabulary" => {
                continue;
            }
            "unevaluatedProperties" if is_combined(keywords) => continue,
            "unevaluatedProperties" => ("additionalProperties", self::schema(asked, refer)),
            "prefixItems" if !has_first => continue,
            "prefixItems" => ("items", listed(asked, refer)),
            "items" if has_first => ("additionalItems", self::schema(asked, refer)),
            "dependentRequired" => ("dependencies", asked.clone()),
            "dependentSchemas" => ("dependencies", named(asked, refer)),
            "properties" | "patternProperties" => (keyword.as_str(), named(asked, refer)),
            "allOf" | "anyOf" | "oneOf" => (keyword.as_str(), listed(asked, refer)),
            "items"
            | "additionalProperties"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "propertyNames" => (keyword.as_str(), self::schema(asked, refer)),
            _ => (keyword.as_str(), asked.clone()),
        };
        match (written.get_mut(name).and_then(Value::as_object_mut), asked) {
            // Draft 7 has one keyword for both kinds of dependencies.
            (Some(known), Value::Object(more)) if name == "dependencies" => known.extend(more),
            (_, asked) => {
                written.insert(name.into(), asked);
            }
        }
    }
    let Some(reference) = keywords.get("$ref").and_then(Value::as_str) else { return written.into() };
    let reference = json!({"$ref": refer(reference)});
    if written.is_empty() {
        return reference;
    }
    // Draft 7 takes no notice of what stands beside a reference.
    match written.get_mut("allOf").and_then(Value::as_array_mut) {
        Some(all) => all.insert(0, reference),
        None => {
            written.insert("allOf".into(), json!([reference]));
        }
    }
    written.into()
}

/// Whether other schemas say what properties there are, which draft 7 cannot take into account.
fn is_combined(keywords: &Map<String, Value>) -> bool {
    ["$ref", "allOf", "anyOf", "oneOf", "additionalProperties", "if", "dependentSchemas"]
        .iter()
        .any(|keyword| keywords.contains_key(*keyword))
}

fn named(asked: &Value, refer: &dyn Fn(&str) -> String) -> Value {
    let schemas = asked.as_object().into_iter().flatten();
    schemas.map(|(name, schema)| (name.clone(), self::schema(schema, refer))).collect::<Map<_, _>>().into()
}

fn listed(asked: &Value, refer: &dyn Fn(&str) -> String) -> Value {
    asked.as_array().into_iter().flatten().map(|schema| self::schema(schema, refer)).collect()
}
