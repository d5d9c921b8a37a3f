//! A set of event types: an enum with one of them in each variant.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{DataEnum, DeriveInput, Error, Fields, Ident, Result, Type, Variant};

use crate::attributes::{Declared, refuse};
use crate::event::argument;

pub(crate) fn expand(input: &DeriveInput, variants: &DataEnum, declared: &Declared) -> Result<TokenStream> {
    if let Some(channel) = &declared.channel {
        return Err(Error::new_spanned(
            channel,
            "the events in the variants say which channel they are sent to",
        ));
    }
    if declared.says_of_one() {
        let text = "without a name this enum is a set of events, each with a version, key and signature of its own; with `name = \"..\"` it is one event";
        return Err(Error::new_spanned(&input.ident, text));
    }
    refuse_marks(variants)?;
    let members = variants.variants.iter().map(member).collect::<Result<Vec<_>>>()?;
    let Some((_, first)) = members.first() else {
        return Err(Error::new_spanned(
            &input.ident,
            "a set of events has at least one: write `Placed(OrderPlaced)`",
        ));
    };
    let (names, types): (Vec<_>, Vec<_>) = members.iter().copied().unzip();
    let ident = &input.ident;
    let set = ident.to_string();
    let text = format!("the events of {set} are declared for different channels: a set is sent to one");
    let tidewire = &declared.library();
    let argument = argument(ident, tidewire);
    let checks = types.iter().map(|event| {
        quote_spanned! { event.span() =>
            const _: () = ::core::assert!(
                #tidewire::derive::is_same(
                    <#first as #tidewire::EventChannel>::CHANNEL,
                    <#event as #tidewire::EventChannel>::CHANNEL,
                ),
                #text
            );
        }
    });
    Ok(quote! {
        impl #tidewire::EventSet for #ident {
            fn has(event_type: &str) -> bool {
                #(<#types as #tidewire::EventSet>::has(event_type))||*
            }

            fn contracts() -> ::std::vec::Vec<&'static ::std::sync::Arc<#tidewire::Contract>> {
                let mut contracts = ::std::vec::Vec::new();
                #(contracts.extend(<#types as #tidewire::EventSet>::contracts());)*
                contracts
            }

            fn to_event(&self, sending: &#tidewire::Sending<'_>) -> #tidewire::Result<#tidewire::Event> {
                match self {
                    #(Self::#names(event) => <#types as #tidewire::EventSet>::to_event(event, sending),)*
                }
            }

            fn from_event(
                event: &#tidewire::Event,
                receiving: &#tidewire::Receiving<'_>,
            ) -> ::core::result::Result<Self, #tidewire::Unreadable> {
                #(
                    if <#types as #tidewire::EventSet>::has(event.event_type()) {
                        return <#types as #tidewire::EventSet>::from_event(event, receiving).map(Self::#names);
                    }
                )*
                ::core::result::Result::Err(#tidewire::derive::unknown_type(event, #set))
            }
        }

        impl #tidewire::EventChannel for #ident {
            const CHANNEL: &'static str = <#first as #tidewire::EventChannel>::CHANNEL;
        }

        #(#checks)*

        #argument
    })
}

/// Refuses what would stand on a variant and say nothing.
fn refuse_marks(variants: &DataEnum) -> Result<()> {
    let text = "the event in this variant says of itself what is to be said";
    variants.variants.iter().try_for_each(|variant| {
        refuse(&variant.attrs, text)?;
        variant.fields.iter().try_for_each(|field| refuse(&field.attrs, text))
    })
}

/// The name of a variant, and the event in it.
fn member(variant: &Variant) -> Result<(&Ident, &Type)> {
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            fields.unnamed.first().map(|field| (&variant.ident, &field.ty)).ok_or_else(|| wrong(variant))
        }
        _ => Err(wrong(variant)),
    }
}

fn wrong(variant: &Variant) -> Error {
    let text = "an enum without `#[event(name = \"..\")]` is a set of events, with one in each variant: write `Placed(OrderPlaced)`";
    Error::new_spanned(variant, text)
}
