//! `#[derive(Event)]`: what `docs/events.md` describes, and nothing else.

mod attributes;
mod event;
mod mirror;
mod set;

use proc_macro::TokenStream;
use syn::{Data, DeriveInput, Error, parse_macro_input};

use crate::attributes::Declared;

/// Makes a struct, or an enum with a name, one version of an event type; and an enum without a name, with one event in each
/// variant, a set of event types.
///
/// On the type, `#[event(..)]` says:
///
/// | | |
/// |---|---|
/// | `name = "order.placed"` | the type of its events, 1 to 128 of `A-Z a-z 0-9 - _ .` |
/// | `version = 2` | its version; 1 unless said |
/// | `previous = OrderPlacedV1` | the type of the version before it; `impl From<OrderPlacedV1>` lifts what it was to this. From version 2 on this or `oldest` is needed |
/// | `oldest` | versions before this one are not read any more |
/// | `channel = "orders"` | the channel that its events are sent to |
/// | `key = customer`, `subject = order` | the field, `Display` or an `Option` of it, that orders the events, or that they are about |
/// | `tenant = shop` | the field that says whose they are: sent in another tenant they are refused |
/// | `sign`, `seal` | every event is signed; its data is sealed |
/// | `crate = "shop::tidewire"` | where the library is, for who has it from another crate |
///
/// On a field, `#[event(redact)]` hides it from those who only operate the system. `#[serde(..)]` and `#[schemars(..)]` shape the
/// schema, as in `#[schemars(range(min = 1))]`; doc comments describe it. Types of fields have a schema by
/// `#[derive(schemars::JsonSchema)]`.
#[proc_macro_derive(Event, attributes(event, schemars))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "an event has no generic parameters: its data is the same wherever it is read",
        ));
    }
    let declared = Declared::of(input)?;
    match (&input.data, &declared.name) {
        (Data::Union(_), _) => {
            Err(Error::new_spanned(&input.ident, "a union cannot be an event: write a struct"))
        }
        (Data::Enum(variants), None) => set::expand(input, variants, &declared),
        _ => event::expand(input, declared),
    }
}
