//! What `#[event(..)]` says on a type.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, DeriveInput, Error, Ident, LitInt, LitStr, Meta, Path, Result, Token, Type, parse_quote,
};

/// The longest type of an event, bytes; as `limits.rs` of the library has it.
const NAME_BYTES_MAX: usize = 128;

/// What is said on the type.
#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) previous: Option<Type>,
    pub(crate) oldest: Option<Span>,
    pub(crate) channel: Option<LitStr>,
    pub(crate) key: Option<Ident>,
    pub(crate) subject: Option<Ident>,
    pub(crate) tenant: Option<Ident>,
    pub(crate) sign: Option<Span>,
    pub(crate) seal: Option<Span>,
    /// Where the library is, if not at `::tidewire`.
    pub(crate) library: Option<Path>,
}

impl Declared {
    pub(crate) fn of(input: &DeriveInput) -> Result<Self> {
        let mut declared = Self::default();
        for attribute in events(&input.attrs) {
            attribute.parse_nested_meta(|meta| declared.take(&meta))?;
        }
        Ok(declared)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match name.as_str() {
            "name" => set(&mut self.name, meta, checked_name(meta.value()?.parse()?)?),
            "version" => set(&mut self.version, meta, checked_version(meta.value()?.parse()?)?),
            "previous" => set(&mut self.previous, meta, meta.value()?.parse()?),
            "oldest" => set(&mut self.oldest, meta, meta.path.span()),
            "channel" => set(&mut self.channel, meta, meta.value()?.parse()?),
            "key" => set(&mut self.key, meta, meta.value()?.parse()?),
            "subject" => set(&mut self.subject, meta, meta.value()?.parse()?),
            "tenant" => set(&mut self.tenant, meta, meta.value()?.parse()?),
            "sign" => set(&mut self.sign, meta, meta.path.span()),
            "seal" => set(&mut self.seal, meta, meta.path.span()),
            "crate" => set(&mut self.library, meta, meta.value()?.parse::<LitStr>()?.parse()?),
            "redact" => Err(meta.error("`redact` stands on a field")),
            _ => Err(meta.error(
                "not known here; known are name, version, previous, oldest, channel, key, subject, tenant, sign, seal, crate",
            )),
        }
    }

    /// Whether it says what only one event has: a version, a text, a guard.
    pub(crate) fn says_of_one(&self) -> bool {
        let spans = [&self.oldest, &self.sign, &self.seal];
        let texts = [&self.key, &self.subject, &self.tenant];
        self.version.is_some()
            || self.previous.is_some()
            || spans.into_iter().any(Option::is_some)
            || texts.into_iter().any(Option::is_some)
    }

    /// The path of the library.
    pub(crate) fn library(&self) -> Path {
        self.library.clone().unwrap_or_else(|| parse_quote!(::tidewire))
    }

    /// The version as a number.
    pub(crate) fn number(&self) -> u32 {
        self.version.as_ref().and_then(|version| version.base10_parse().ok()).unwrap_or(1)
    }
}

/// Whether a field is marked with `#[event(redact)]`.
pub(crate) fn is_redacted(attributes: &[Attribute]) -> Result<bool> {
    let mut is_redacted = false;
    for attribute in events(attributes) {
        attribute.parse_nested_meta(|meta| match meta.path.is_ident("redact") {
            true => {
                is_redacted = true;
                Ok(())
            }
            false => Err(meta.error("not known on a field; known is redact. key, subject and tenant stand on the type: `key = field`")),
        })?;
    }
    Ok(is_redacted)
}

/// Refuses `#[event(..)]` where it would say nothing.
pub(crate) fn refuse(attributes: &[Attribute], text: &str) -> Result<()> {
    events(attributes).next().map_or(Ok(()), |attribute| Err(Error::new_spanned(attribute, text)))
}

/// Refuses words of serde and schemars that take a field's mark out of the schema, or its value past it.
pub(crate) fn refuse_unmarked(attributes: &[Attribute], words: &[&str]) -> Result<()> {
    for attribute in attributes {
        let shapes = ["serde", "schemars"].iter().any(|known| attribute.path().is_ident(known));
        let Ok(said) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            continue;
        };
        for meta in said.iter().filter(|_| shapes) {
            // What serde skips is in no data; what only schemars skips is.
            let is_skip = meta.path().is_ident("skip") && attribute.path().is_ident("schemars");
            if is_skip || words.iter().any(|word| meta.path().is_ident(word)) {
                let text = "with this the schema does not have what `redact` marks, which would be shown: mark the fields of a type \
                            of its own, `#[schemars(extend(\"x-redact\" = true))]`, or leave it out";
                return Err(Error::new_spanned(meta, text));
            }
        }
    }
    Ok(())
}

fn events(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("event"))
}

fn set<T>(place: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("said twice")),
    }
}

fn checked_name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_valid) {
        return Ok(name);
    }
    Err(Error::new_spanned(
        &name,
        "the type of an event is 1 to 128 of `A-Z a-z 0-9 - _ .`, such as \"order.placed\"",
    ))
}

fn checked_version(version: LitInt) -> Result<LitInt> {
    match version.base10_parse::<u32>() {
        Ok(1..) => Ok(version),
        _ => Err(Error::new_spanned(&version, "versions are whole numbers from 1")),
    }
}
