//! A copy of a type that only says what its data is like: its schema is derived, and with it the marks of its fields.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Result, parse_quote};

use crate::attributes::{Declared, is_redacted};

/// The copy, with a schema.
pub(crate) fn of(input: &DeriveInput, declared: &Declared) -> Result<TokenStream> {
    let mut mirror = input.clone();
    mirror.vis = syn::Visibility::Inherited;
    mirror.attrs.retain(shapes_schema);
    match &mut mirror.data {
        Data::Struct(data) => mark_all(&mut data.fields, declared)?,
        Data::Enum(data) => {
            for variant in &mut data.variants {
                variant.attrs.retain(shapes_schema);
                variant.discriminant = None;
                mark_all(&mut variant.fields, declared)?;
            }
        }
        Data::Union(_) => {}
    }
    Ok(quote! {
        #[derive(::tidewire::derive::schemars::JsonSchema)]
        #[schemars(crate = "::tidewire::derive::schemars")]
        #[allow(dead_code, clippy::all, clippy::pedantic, reason = "only its schema is of use")]
        #mirror
    })
}

fn mark_all(fields: &mut Fields, declared: &Declared) -> Result<()> {
    fields.iter_mut().try_for_each(|field| mark(field, declared))
}

fn mark(field: &mut Field, declared: &Declared) -> Result<()> {
    let mut marks = Vec::<Attribute>::new();
    if is_redacted(&field.attrs)? {
        marks.push(parse_quote!(#[schemars(extend("x-redact" = true))]));
    }
    let is = |named: &Option<syn::Ident>| named.is_some() && *named == field.ident;
    if is(&declared.key) {
        marks.push(parse_quote!(#[schemars(extend("x-key" = true))]));
    }
    if is(&declared.subject) {
        marks.push(parse_quote!(#[schemars(extend("x-subject" = true))]));
    }
    if is(&declared.tenant) {
        marks.push(parse_quote!(#[schemars(extend("x-tenant" = true))]));
    }
    field.vis = syn::Visibility::Inherited;
    field.attrs.retain(shapes_schema);
    field.attrs.extend(marks);
    Ok(())
}

/// Whether an attribute says anything of the schema.
fn shapes_schema(attribute: &Attribute) -> bool {
    ["doc", "serde", "schemars", "validate", "garde", "deprecated"]
        .iter()
        .any(|known| attribute.path().is_ident(known))
}
