//! A copy of a type that only says what its data is like: its schema is derived, and with it the marks of its fields.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Result, parse_quote};

use crate::attributes::{Declared, is_redacted, refuse, refuse_unmarked};

/// The copy, with a schema.
pub(crate) fn of(input: &DeriveInput, declared: &Declared) -> Result<TokenStream> {
    let mut mirror = input.clone();
    mirror.vis = syn::Visibility::Inherited;
    mirror.attrs.retain(shapes_schema);
    match &mut mirror.data {
        Data::Struct(data) => mark_all(&mut data.fields, &input.attrs, declared)?,
        Data::Enum(data) => {
            for variant in &mut data.variants {
                refuse(&variant.attrs, "a variant cannot be marked: mark its fields")?;
                variant.attrs.retain(shapes_schema);
                variant.discriminant = None;
                mark_all(&mut variant.fields, &input.attrs, declared)?;
            }
        }
        Data::Union(_) => {}
    }
    let tidewire = declared.library();
    let schemars = quote!(#tidewire::derive::schemars).to_string().replace(' ', "");
    Ok(quote! {
        #[derive(#tidewire::derive::schemars::JsonSchema)]
        #[schemars(crate = #schemars)]
        #[allow(dead_code, clippy::all, clippy::pedantic, reason = "only its schema is of use")]
        #mirror
    })
}

fn mark_all(fields: &mut Fields, container: &[Attribute], declared: &Declared) -> Result<()> {
    fields.iter_mut().try_for_each(|field| mark(field, container, declared))
}

fn mark(field: &mut Field, container: &[Attribute], declared: &Declared) -> Result<()> {
    let mut marks = Vec::<Attribute>::new();
    if is_redacted(&field.attrs)? {
        refuse_unmarked(&field.attrs, &["flatten", "alias"])?;
        refuse_unmarked(container, &["from", "try_from", "into", "remote", "with"])?;
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
