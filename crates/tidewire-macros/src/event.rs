//! One version of one event type.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{
    Data, DeriveInput, Error, Field, Fields, GenericArgument, Ident, LitStr, Path, PathArguments, Result,
    Type,
};

use crate::attributes::{Declared, is_redacted};
use crate::mirror;

pub(crate) fn expand(input: &DeriveInput, declared: Declared) -> Result<TokenStream> {
    let Some(name) = &declared.name else {
        let text = "an event needs a name and, to be sent, a channel: #[event(name = \"order.placed\", channel = \"orders\")]";
        return Err(Error::new_spanned(&input.ident, text));
    };
    check_chain(input, &declared)?;
    let fields = fields_of(input);
    let tidewire = &declared.library();
    let texts = [("key", &declared.key), ("subject", &declared.subject), ("tenant", &declared.tenant)];
    let texts = texts.into_iter().map(|(method, named)| text_of(input, fields, method, named.as_ref()));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let mirror = mirror::of(input, &declared)?;
    let (ident, mirrored, version) = (&input.ident, &input.ident, declared.number());
    let (is_signed, is_sealed) = (declared.sign.is_some(), declared.seal.is_some());
    let (channel, sent) = channel_of(ident, &declared);
    let lifted = Lifted::of(&declared, name);
    let Lifted { check, lift, contracts } = &lifted;
    Ok(quote! {
        impl #tidewire::EventType for #ident {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;

            fn contract() -> &'static ::std::sync::Arc<#tidewire::Contract> {
                #mirror
                static CONTRACT: ::std::sync::LazyLock<::std::sync::Arc<#tidewire::Contract>> =
                    ::std::sync::LazyLock::new(|| {
                        #tidewire::derive::contract::<#mirrored>(#name, #version, #channel, #is_signed, #is_sealed)
                    });
                &CONTRACT
            }

            #(#texts)*

            fn lift(version: u32, data: &[u8]) -> ::core::result::Result<Self, #tidewire::Unreadable> {
                if version == #version {
                    return #tidewire::derive::read(data);
                }
                #lift
            }
        }

        impl #tidewire::EventSet for #ident {
            fn has(event_type: &str) -> bool {
                event_type == #name
            }

            fn contracts() -> ::std::vec::Vec<&'static ::std::sync::Arc<#tidewire::Contract>> {
                #contracts
            }

            fn to_event(&self, sending: &#tidewire::Sending<'_>) -> #tidewire::Result<#tidewire::Event> {
                #tidewire::derive::to_event(self, sending)
            }

            fn from_event(
                event: &#tidewire::Event,
                receiving: &#tidewire::Receiving<'_>,
            ) -> ::core::result::Result<Self, #tidewire::Unreadable> {
                #tidewire::derive::from_event(event, receiving)
            }
        }

        #sent
        #check
    }
    .into_iter()
    .chain(argument(ident, tidewire))
    .collect())
}

/// What makes a type an argument of a handler.
pub(crate) fn argument(ident: &Ident, tidewire: &Path) -> TokenStream {
    quote! {
        impl #tidewire::FromDelivery for #ident {
            fn from_delivery(delivery: &#tidewire::Delivery) -> ::core::result::Result<Self, #tidewire::Outcome> {
                #tidewire::derive::typed(delivery)
            }

            fn contracts() -> ::std::vec::Vec<&'static ::std::sync::Arc<#tidewire::Contract>> {
                <Self as #tidewire::EventSet>::contracts()
            }
        }
    }
}

/// What is different where there is a version before this one.
struct Lifted {
    check: TokenStream,
    lift: TokenStream,
    contracts: TokenStream,
}

impl Lifted {
    fn of(declared: &Declared, name: &LitStr) -> Self {
        let tidewire = declared.library();
        let Some(previous) = &declared.previous else {
            return Self {
                check: quote!(),
                lift: quote!(::core::result::Result::Err(#tidewire::derive::unknown_version::<Self>(
                    version
                ))),
                contracts: quote!(::std::vec![<Self as #tidewire::EventType>::contract()]),
            };
        };
        let (version, before) = (declared.number(), declared.number() - 1);
        let text = format!(
            "`previous` of {} version {version} has to be version {before} of {}: a step is missing, or it is another event",
            name.value(),
            name.value(),
        );
        Self {
            check: quote_spanned! { previous.span() =>
                const _: () = ::core::assert!(
                    <#previous as #tidewire::EventType>::VERSION == #before
                        && #tidewire::derive::is_same(<#previous as #tidewire::EventType>::NAME, #name),
                    #text
                );
            },
            lift: quote_spanned! { previous.span() =>
                if version > #version {
                    return ::core::result::Result::Err(#tidewire::derive::unknown_version::<Self>(version));
                }
                <#previous as #tidewire::EventType>::lift(version, data).map(<Self as ::core::convert::From<#previous>>::from)
            },
            contracts: quote! {
                let mut contracts = <#previous as #tidewire::EventSet>::contracts();
                contracts.push(<Self as #tidewire::EventType>::contract());
                contracts
            },
        }
    }
}

/// That there is a way from every version to this one, or that it is said that there is none.
fn check_chain(input: &DeriveInput, declared: &Declared) -> Result<()> {
    let version = declared.number();
    match (version, &declared.previous, &declared.oldest) {
        (1, Some(previous), _) => {
            Err(Error::new_spanned(previous, "version 1 has no previous version: say `version = 2`"))
        }
        (1, None, Some(oldest)) => Err(Error::new(*oldest, "version 1 is the oldest anyway")),
        (1, None, None) => Ok(()),
        (_, Some(previous), Some(_)) => Err(Error::new_spanned(
            previous,
            "either `previous` or `oldest`: with both, older events are read or not",
        )),
        (_, None, None) => {
            let text = format!(
                "version {version} needs `previous = TheTypeOfVersion{}` and `impl From` it, so that older events are read; or `oldest`, so \
                 that they are dead letters",
                version - 1
            );
            let spanned = declared
                .version
                .as_ref()
                .map_or_else(|| input.ident.to_token_stream(), |version| version.to_token_stream());
            Err(Error::new_spanned(spanned, text))
        }
        (_, Some(_), None) | (_, None, Some(_)) => Ok(()),
    }
}

fn fields_of(input: &DeriveInput) -> Option<&Fields> {
    match &input.data {
        Data::Struct(data) => Some(&data.fields),
        Data::Enum(_) | Data::Union(_) => None,
    }
}

/// The method that gives a text of the event, if a field was named for it.
fn text_of(
    input: &DeriveInput,
    fields: Option<&Fields>,
    method: &str,
    named: Option<&Ident>,
) -> Result<TokenStream> {
    let Some(named) = named else { return Ok(quote!()) };
    let Some(fields) = fields else {
        return Err(Error::new_spanned(named, format!("only a struct has a field to be its {method}")));
    };
    let Some(field) = fields.iter().find(|field| field.ident.as_ref() == Some(named)) else {
        return Err(Error::new_spanned(
            named,
            format!("{} has no field `{named}` to be its {method}", input.ident),
        ));
    };
    if is_redacted(&field.attrs)? {
        let text = format!("`{named}` is marked redact and cannot be the {method}, which everybody sees");
        return Err(Error::new_spanned(named, text));
    }
    let (at, method) = (named.span(), Ident::new(method, named.span()));
    let value = match is_option(field) {
        true => quote_spanned!(at => self.#named.as_ref().map(|value| value as &dyn ::core::fmt::Display)),
        false => quote_spanned!(at => ::core::option::Option::Some(&self.#named)),
    };
    Ok(quote! {
        fn #method(&self) -> ::core::option::Option<&dyn ::core::fmt::Display> {
            #value
        }
    })
}

/// Whether a field is written as an `Option<..>`.
fn is_option(field: &Field) -> bool {
    let Type::Path(path) = &field.ty else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
    last.ident == "Option" && matches!(arguments.args.first(), Some(GenericArgument::Type(_)))
}

/// The channel as an option, and what makes the type one that is sent there.
fn channel_of(ident: &Ident, declared: &Declared) -> (TokenStream, TokenStream) {
    let tidewire = declared.library();
    let Some(channel) = &declared.channel else { return (quote!(::core::option::Option::None), quote!()) };
    let sent = quote! {
        impl #tidewire::EventChannel for #ident {
            const CHANNEL: &'static str = #channel;
        }
    };
    (quote!(::core::option::Option::Some(#channel)), sent)
}
